"""Which cells are ready, how they form tasks, and what the outcome of one means for the others. Pure bookkeeping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.graph import CellSpec, Graph
from orchestrator.reasons import Reason, State
from orchestrator.stages import STAGES, Stage

Reduce = Callable[[CellSpec, Mapping[str, str]], CellSpec | None]
"""Rebuilds an aggregate without the inputs that failed; None when nothing is left to aggregate."""

LOSSES_ALLOWED = 3
RECOMPUTATIONS_ALLOWED = 2


class Phase(StrEnum):
    """Where a cell stands while the study runs."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"


SETTLED = frozenset({Phase.DONE, Phase.FAILED, Phase.BLOCKED})


@dataclass(frozen=True)
class Task:
    """Cells of one stage that are ready and go to one process; `whole` when no more of their group is to come."""

    stage: Stage
    cells: tuple[CellSpec, ...]
    reasons: Mapping[str, Reason]
    whole: bool = True


@dataclass
class _Entry:
    spec: CellSpec
    order: int
    phase: Phase
    reason: Reason
    sentence: str = ""
    losses: int = 0
    recomputations: int = 0
    step: int = 0


class Schedule:
    """The state of every cell of a study; cells are named by the signatures they were planned under."""

    def __init__(
        self,
        graph: Graph,
        states: Mapping[str, tuple[State, Reason, str]],
        retry_failed: bool = False,
        reduce: Reduce | None = None,
        stages: Mapping[str, Stage] = STAGES,
    ) -> None:
        self._stages = stages
        self._rank = {name: rank for rank, name in enumerate(stages)}
        self._reduce = reduce
        self._entries: dict[str, _Entry] = {}
        self._children: dict[str, list[str]] = {}
        self._ready: dict[str, None] = {}
        self._unsettled = 0
        self._trainings = 0
        self._tasks: list[Task] | None = None
        self._planned: dict[str, str] = {}
        self.reduced: dict[str, CellSpec] = {}
        for order, spec in enumerate(graph):
            self._enter(order, spec, *states[spec.signature], retry_failed)
        for spec in graph:
            for parent in spec.parents:
                self._children.setdefault(parent, []).append(spec.signature)
        for entry in self._entries.values():
            self._count(entry, 1 if entry.phase not in SETTLED else 0)
        for signature in list(self._entries):
            if self._entries[signature].phase is Phase.WAITING:
                self._refresh(signature)

    def _enter(self, order: int, spec: CellSpec, state: State, reason: Reason, why: str, retry_failed: bool) -> None:
        entry = _Entry(spec, order, Phase.WAITING, reason, why)
        if state is State.CACHED:
            entry.phase = Phase.DONE
        elif state is State.FAILED and retry_failed:
            entry.reason = Reason.RETRY_REQUESTED
        elif state is State.FAILED:
            entry.phase = Phase.FAILED
        elif state is State.BLOCKED:
            entry.phase = Phase.BLOCKED
        self._entries[spec.signature] = entry

    # What there is to do

    @property
    def finished(self) -> bool:
        """True when every cell is done, failed or blocked."""
        return self._unsettled == 0

    def spec(self, signature: str) -> CellSpec:
        return self._entries[self._key(signature)].spec

    def phase(self, signature: str) -> Phase:
        return self._entries[self._key(signature)].phase

    def cells(self, *phases: Phase) -> dict[str, str]:
        """Signature and sentence (why it failed or is blocked) of the cells in `phases`."""
        return {key: entry.sentence for key, entry in self._entries.items() if entry.phase in phases}

    def stages_to_run(self) -> list[Stage]:
        """Stages of which at least one cell is not settled."""
        names = {entry.spec.stage for entry in self._entries.values() if entry.phase not in SETTLED}
        return [stage for name, stage in self._stages.items() if name in names]

    @property
    def trainings_left(self) -> bool:
        """True while a training is not settled."""
        return self._trainings > 0

    def ready(self) -> list[Task]:
        """All tasks that could start now: trainings first, then in the order of the stages and of the graph."""
        if self._tasks is None:
            self._tasks = sorted(self._form_tasks(), key=self._priority)
        return self._tasks

    def _form_tasks(self) -> Iterator[Task]:
        coming = Counter(
            self._group(entry)
            for key, entry in self._entries.items()
            if entry.phase is Phase.WAITING and key not in self._ready
        )
        groups: dict[tuple[str, ...], list[_Entry]] = {}
        for signature in self._ready:
            entry = self._entries[signature]
            groups.setdefault(self._group(entry), []).append(entry)
        for key, group in groups.items():
            yield from self._cut(group, coming[key] == 0)

    def _priority(self, task: Task) -> tuple[bool, int, int]:
        first = self._entries[self._key(task.cells[0].signature)].order
        return (not task.stage.training, self._rank[task.stage.name], first)

    def _group(self, entry: _Entry) -> tuple[str, ...]:
        stage = self._stages[entry.spec.stage]
        if stage.training or not stage.grouped_by or entry.losses > 1:
            return (stage.name, entry.spec.signature)
        return (stage.name, *(entry.spec.labels.get(label, "") for label in stage.grouped_by))

    def _cut(self, group: Sequence[_Entry], whole: bool) -> Iterator[Task]:
        group = sorted(group, key=lambda entry: entry.order)
        stage = self._stages[group[0].spec.stage]
        size = 1 if stage.training else stage.cells_per_task
        for first in range(0, len(group), size):
            part = group[first : first + size]
            reasons = {entry.spec.signature: entry.reason for entry in part}
            yield Task(stage, tuple(entry.spec for entry in part), reasons, whole or len(part) == size)

    # What happened

    def started(self, task: Task) -> None:
        for spec in task.cells:
            self._entries[self._key(spec.signature)].phase = Phase.RUNNING
            self._ready.pop(self._key(spec.signature), None)
        self._tasks = None

    def done(self, signature: str) -> None:
        self._settle(self._key(signature), Phase.DONE, "")

    def failed(self, signature: str, sentence: str) -> None:
        self._settle(self._key(signature), Phase.FAILED, sentence)

    def progressed(self, signature: str, step: int) -> None:
        """A training that gets further between losses is not worn out by them."""
        entry = self._entries[self._key(signature)]
        if step > entry.step:
            entry.step, entry.losses = step, 0

    def again(self, signature: str, reason: Reason) -> None:
        """Put a running cell back among those that wait."""
        key = self._key(signature)
        entry = self._entries[key]
        if entry.phase is Phase.RUNNING:
            entry.phase, entry.reason = Phase.WAITING, reason
            self._refresh(key)

    def lost(self, signature: str) -> bool:
        """Its process died: put it back; False when that happened too often and the cell has to be failed."""
        entry = self._entries[self._key(signature)]
        if entry.phase is not Phase.RUNNING:
            return True
        entry.losses += 1
        if entry.losses > LOSSES_ALLOWED:
            return False
        self.again(signature, Reason.LOST_PROCESS)
        return True

    def recompute(self, producer: str, reason: Reason) -> bool:
        """A published input is corrupt: compute it again; False when that was done often enough."""
        entry = self._entries.get(self._key(producer))
        if entry is None:
            return False
        if entry.phase is not Phase.DONE:
            return True
        entry.recomputations += 1
        if entry.recomputations > RECOMPUTATIONS_ALLOWED:
            return False
        entry.phase, entry.reason = Phase.WAITING, reason
        self._count(entry, 1)
        self._refresh(self._key(producer))
        for child in self._children.get(self._key(producer), ()):
            if self._entries[child].phase is Phase.WAITING:
                self._refresh(child)
        return True

    # Consequences

    def _key(self, signature: str) -> str:
        """The planned signature of a cell that was perhaps reduced."""
        return self._planned.get(signature, signature)

    def _count(self, entry: _Entry, by: int) -> None:
        self._unsettled += by
        self._trainings += by * self._stages[entry.spec.stage].training

    def _settle(self, key: str, phase: Phase, sentence: str) -> None:
        entry = self._entries[key]
        if entry.phase in SETTLED:
            return
        entry.phase, entry.sentence = phase, sentence
        self._count(entry, -1)
        self._tasks = None
        self._ready.pop(key, None)
        for child in self._children.get(key, ()):
            if self._entries[child].phase is Phase.WAITING:
                self._refresh(child)

    def _refresh(self, key: str) -> None:
        """Decide whether a waiting cell is ready, waits on, or can never run."""
        self._tasks = None
        entry = self._entries[key]
        parents = [self._entries[parent] for parent in entry.spec.parents if parent in self._entries]
        failed = {parent.spec.signature: parent for parent in parents if parent.phase in (Phase.FAILED, Phase.BLOCKED)}
        aggregate = self._stages[entry.spec.stage].aggregate and self._reduce is not None
        self._ready.pop(key, None)
        if failed and not aggregate:
            self._block(key, next(iter(failed.values())))
        elif all(parent.phase in SETTLED for parent in parents):
            if failed:
                self._shrink(key, {signature: parent.sentence for signature, parent in failed.items()})
            else:
                self._ready[key] = None

    def _block(self, key: str, parent: _Entry) -> None:
        cause = parent.sentence
        if parent.phase is Phase.FAILED:
            cause = f"its input {parent.spec.name} failed: {parent.sentence}"
        self._settle(key, Phase.BLOCKED, cause)

    def _shrink(self, key: str, failed: Mapping[str, str]) -> None:
        assert self._reduce is not None
        smaller = self._reduce(self._entries[key].spec, failed)
        if smaller is None:
            self._settle(key, Phase.BLOCKED, "all of its inputs failed")
            return
        self.reduced[key] = smaller
        self._planned[smaller.signature] = key
        self._entries[key].spec = smaller
        self._ready[key] = None


def fan_out_room(cpus: float, gpus: float, trainings: Iterable[Stage], tasks: Iterable[Stage]) -> float:
    """CPUs left for fan-out when trainings that run, are pending or were released come first.

    Trainings that wait for a GPU claim CPUs only as far as the GPUs that exist can hold them.
    """
    claimed = 0.0
    for training in trainings:
        if training.gpus <= gpus:
            claimed += training.cpus
            gpus -= training.gpus
    return cpus - claimed - sum(task.cpus for task in tasks)
