"""A search over one stage on a real Ray: poor trials are stopped early, killed ones go on, nothing is done twice."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import fake_study
import pytest

from orchestrator.graph import CellSpec
from orchestrator.opening import open_study
from orchestrator.orders import Event, WorkOrder
from orchestrator.outcome import Outcome
from orchestrator.reasons import SENTENCES, Reason, State
from orchestrator.search.records import Trial, TrialState
from orchestrator.search.run import NO_PRUNING, SearchRun
from orchestrator.search.showing import best
from orchestrator.study import Execution

SPACE = {"flow.learning_rate": {"low": 1e-6, "high": 1.0, "log": True}}
FLOW = {"search.over": "flow", "search.space": SPACE, "search.concurrent": 2}


class Diary:
    """An observer that keeps which trainings were pruned, and which ended."""

    def __init__(self) -> None:
        self.pruned: list[str] = []
        self.finished: list[str] = []

    def cell_pruned(self, cell: CellSpec) -> None:
        self.pruned.append(cell.signature)

    def cell_finished(self, cell: CellSpec, status: Any, cached: bool) -> None:
        if not cached:
            self.finished.append(cell.signature)

    def __getattr__(self, name: str) -> Any:
        return lambda *values: None


def search(folder: Path, n_trials: int, diary: Diary, **execution: Any) -> tuple[SearchRun, Outcome, list[str]]:
    path = fake_study.write(folder, {**FLOW, "search.n_trials": n_trials})
    found, said = open_study(path, (), str(folder / "ledger")).search, list[str]()
    assert found is not None
    how = Execution(**{"cpus": 2, **execution})
    running = SearchRun(found, how, lambda: [], "driver", [diary], said.append, fake_study.STAGES)
    return running, running.run(), said


@pytest.mark.processes
def test_poor_trials_are_pruned_killed_ones_go_on_and_more_can_be_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv(fake_study.LOG_ENVIRONMENT, str(tmp_path / "log"))
    monkeypatch.setenv("FAKE_DIES_ONCE", str(tmp_path / "died"))
    diary = Diary()
    running, outcome, said = search(tmp_path, 7, diary)
    assert (outcome.exit_code, outcome.failed) == (0, {}), said
    states = Counter(trial.state for trial in running.trials.values())
    assert states[TrialState.PRUNED] >= 1
    assert states[TrialState.COMPLETE] >= 1
    assert sum(states.values()) == 7
    leader = best(running.search, running.trials.values())
    assert leader is not None
    for trial in running.trials.values():
        (signature,) = trial.cells
        state, reason, status = running.search.ledger.survey(running.search.plan(trial).judges, full=False)[signature]
        assert trial.value is not None
        if trial.state is TrialState.PRUNED:
            assert (state, reason) == (State.TO_DO, Reason.PRUNED)
            assert max(trial.intermediate) < 100
            assert signature in diary.pruned
        else:
            assert state is State.CACHED
            assert status is not None
            assert status.metrics["validation_loss"] == trial.value >= leader.value  # type: ignore[operator]
            assert signature in diary.finished

    killed = (tmp_path / "died").read_text()
    (trial,) = [trial for trial in running.trials.values() if trial.cells == (killed,)]
    history = running.search.ledger.history("flow", killed)
    assert [record.reason for record in history] == [Reason.NEW, Reason.INTERRUPTED]
    if trial.state is TrialState.COMPLETE:
        status = running.search.ledger.status("flow", killed)
        assert status is not None
        assert status.metrics["began_at"] == 20, "it goes on from its checkpoint"
    computed = Counter((tmp_path / "log").read_text().splitlines())
    assert {line for line, count in computed.items() if count > 1} == {f"flow {killed}"}

    before = (tmp_path / "log").read_text()
    again, outcome, _ = search(tmp_path, 7, Diary())
    assert (outcome.exit_code, outcome.done, again.trials) == (0, [], running.trials)
    assert (tmp_path / "log").read_text() == before

    more, outcome, _ = search(tmp_path, 9, Diary())
    assert outcome.exit_code == 0
    assert {number: more.trials[number] for number in running.trials} == running.trials
    assert sorted(more.trials) == list(range(9))


def test_inline_a_stage_is_searched_without_pruning(tmp_path: Path) -> None:
    running, outcome, said = search(tmp_path, 3, Diary(), inline=True)
    assert NO_PRUNING in said
    assert outcome.exit_code == 0
    assert {trial.state for trial in running.trials.values()} == {TrialState.COMPLETE}


def test_a_full_disk_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.search import tune

    running, _, _ = search(tmp_path, 1, Diary(), inline=True)
    (cell,) = running.search.plan(running.trials[0]).judges
    order = WorkOrder(running.search.ledger.storage, fake_study.STAGES["flow"], (cell,), {}, {}, "d", "drivers/d.stop")
    tries, reported = list[float](), list[Event]()
    monkeypatch.setattr(tune, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(tune, "PATIENCE_S", 0.05)
    monkeypatch.setattr(tune.tune, "report", lambda news: reported.extend(news["events"].content))

    def full(order: WorkOrder, emit: Any, should_stop: Any) -> None:
        tries.append(1.0)
        emit(Event("lost", cell.signature, reason=Reason.NO_SPACE, sentence="OSError: full"))

    monkeypatch.setattr(tune, "execute", full)
    tune.train({"order": tune.Box(order)})
    assert len(tries) == 4, "after 0.01, 0.03 and 0.07 s"
    assert [event.kind for event in reported] == ["lost"]
    assert reported[0].sentence == f"{SENTENCES[Reason.NO_SPACE]} for too long: OSError: full"

    running.search.ledger.storage.write(order.stop_path, b"")
    tune.train({"order": tune.Box(order)})
    assert reported[-1].kind == "stopped"


def test_a_training_that_was_given_up_is_to_do_in_no_other_study(tmp_path: Path) -> None:
    path = fake_study.write(tmp_path, FLOW)
    found = open_study(path, (), str(tmp_path / "ledger")).search
    assert found is not None
    trial = Trial(0, {"flow.learning_rate": 0.01})
    (cell,) = found.plan(trial).judges
    assert cell.signature in found.graph([trial]).cells
    assert cell.signature not in found.graph([trial.failed("the ledger did not answer for too long")]).cells
    found.ledger.fail(found.ledger.begin(cell, Reason.NEW, "d"), Reason.ERROR, "it broke", 0.0)
    assert cell.signature in found.graph([trial.failed("it broke")]).cells, "its failure is shown"
