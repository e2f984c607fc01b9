"""Where every cell of a study stands once failures and gaps in the data have had their consequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.graph import CellSpec, Graph
from orchestrator.planner_eeg_group import reduce
from orchestrator.reasons import Reason, State
from orchestrator.schedule import Phase, Schedule
from orchestrator.stages import STAGES

if TYPE_CHECKING:
    from orchestrator.ledger import Ledger
    from orchestrator.report.results import States

Judged = dict[str, tuple[State, Reason, str]]


def stand(graph: Graph, ledger: Ledger, own: States | None = None, full: bool = False) -> tuple[Graph, States]:
    """The graph with aggregates as a run computes them (without the inputs that failed), and where each cell stands.

    `own` is a survey of the ledger, taken now when not given; `full` also hashes all contents of a local one.
    """
    own = own if own is not None else ledger.survey(graph, full=full)
    gaps = {cell.missing for cell in graph if cell.missing is not None}
    blocked, reduced = _consequences(graph, _judged(graph, own), gaps)
    cells = [reduced.get(cell.signature, cell) for cell in graph]
    states = {**own, **(ledger.survey(reduced.values(), full=full) if reduced else {})}
    for signature, sentence in blocked.items():
        states[signature] = (State.BLOCKED, Reason.DATA_MISSING if sentence in gaps else Reason.INPUT_FAILED, None)
    for cell in cells:
        state, reason, status = states[cell.signature]
        if reason is Reason.NEW and any(states[key][0] is State.TO_DO for key in cell.parents if key in states):
            states[cell.signature] = (state, Reason.INPUT_TO_DO, status)
    return Graph({cell.signature: cell for cell in cells}, graph.notes), states


def _judged(graph: Graph, own: States) -> Judged:
    """What the schedule is told of each cell by itself: what is blocked follows from that."""
    judged: Judged = {}
    for cell in graph:
        state, reason, status = own[cell.signature]
        if cell.missing:
            judged[cell.signature] = (State.BLOCKED, Reason.DATA_MISSING, cell.missing)
        elif state is State.FAILED:
            judged[cell.signature] = (state, reason, (status.failure or "") if status is not None else "")
        else:
            judged[cell.signature] = (State.TO_DO if state is State.BLOCKED else state, reason, "")
    return judged


def _consequences(graph: Graph, judged: Judged, gaps: set[str]) -> tuple[dict[str, str], dict[str, CellSpec]]:
    """Blocked cells with their sentences, and aggregates without lost inputs, if all that can be computed succeeds."""
    if all(state in (State.CACHED, State.TO_DO) for state, _, _ in judged.values()):
        return {}, {}

    def shrink(cell: CellSpec, lost: Mapping[str, str]) -> CellSpec | None:
        return None if gaps.intersection(lost.values()) else reduce(cell, lost)

    lost = Schedule(graph, judged, reduce=shrink).cells(Phase.BLOCKED)
    hoped = {
        cell.signature: (State.CACHED, Reason.DONE, "")
        for cell in graph
        if judged[cell.signature][0] is State.TO_DO and cell.signature not in lost and not STAGES[cell.stage].aggregate
    }
    schedule = Schedule(graph, {**judged, **hoped}, reduce=shrink)
    blocked = schedule.cells(Phase.BLOCKED)
    causes = {key: _gap(graph.cells[key], blocked, gaps) or sentence for key, sentence in blocked.items()}
    return causes, dict(schedule.reduced)


def _gap(cell: CellSpec, blocked: Mapping[str, str], gaps: set[str]) -> str | None:
    """The gap in the data that blocks a cell, its own or one of its inputs'."""
    sentences = [blocked.get(key, "") for key in (cell.signature, *cell.parents)]
    return next((sentence for sentence in sentences if sentence in gaps), None)
