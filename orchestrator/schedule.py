"""Which cells are ready, how they form tasks, and what the outcome of one means for the others. Pure bookkeeping."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping

from orchestrator.graph import CellSpec, Graph
from orchestrator.ready import Entry, Phase, ReadyTasks, Task
from orchestrator.reasons import Reason, State
from orchestrator.stages import STAGES, Stage

__all__ = ["Phase", "Reduce", "Schedule", "Task", "fan_out_room", "starves_nobody"]

Reduce = Callable[[CellSpec, Mapping[str, str]], CellSpec | None]
"""Rebuilds an aggregate without the inputs that failed; None when nothing is left to aggregate."""

LOSSES_ALLOWED = 3
RECOMPUTATIONS_ALLOWED = 2
FIRST_PAUSE_S, LONGEST_PAUSE_S, PATIENCE_S = 5.0, 60.0, 600.0
TROUBLES_AT_LEAST = 3
"""Fewer losses are no trouble that lasts, however long ago the first one was."""

SETTLED = frozenset({Phase.DONE, Phase.FAILED, Phase.BLOCKED})
LOST = frozenset({Phase.FAILED, Phase.BLOCKED})


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
        self._reduce = reduce
        self._entries: dict[str, Entry] = {}
        self._children: dict[str, list[Entry]] = {}
        self._ready = ReadyTasks(stages)
        self._unsettled = 0
        self._trainings = 0
        self._planned: dict[str, str] = {}
        self._parked: list[tuple[float, str, Reason]] = []
        self.reduced: dict[str, CellSpec] = {}
        for order, spec in enumerate(graph):
            self._enter(order, spec, *states[spec.signature], retry_failed)
        for entry in self._entries.values():
            self._connect(entry)
        for entry in self._entries.values():
            if entry.phase is Phase.WAITING:
                self._refresh(entry)

    def _enter(self, order: int, spec: CellSpec, state: State, reason: Reason, why: str, retry_failed: bool) -> None:
        entry = Entry(spec, order, Phase.WAITING, reason, why)
        if state is State.CACHED:
            entry.phase = Phase.DONE
        elif state is State.FAILED and retry_failed:
            entry.reason = Reason.RETRY_REQUESTED
        elif state is State.FAILED:
            entry.phase = Phase.FAILED
        elif state is State.BLOCKED:
            entry.phase = Phase.BLOCKED
        self._entries[spec.signature] = entry

    def _connect(self, entry: Entry) -> None:
        for parent in self._parents(entry):
            self._children.setdefault(parent.spec.signature, []).append(entry)
            entry.unsettled += parent.phase not in SETTLED
            entry.lost += parent.phase in LOST
        self._count(entry, 1 if entry.phase not in SETTLED else 0)

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
        return self._ready.tasks()

    def ready_by_kind(self) -> Iterator[Iterator[Task]]:
        """The same by kind, without touching those that nobody takes: thousands may be ready."""
        return self._ready.by_kind()

    # What happened

    def started(self, task: Task) -> None:
        for spec in task.cells:
            entry = self._entries[self._key(spec.signature)]
            entry.phase = Phase.RUNNING
            self._ready.remove(entry)

    def done(self, signature: str) -> None:
        self._settle(self._key(signature), Phase.DONE, "")

    def failed(self, signature: str, sentence: str) -> None:
        self._settle(self._key(signature), Phase.FAILED, sentence)

    def progressed(self, signature: str, step: int) -> None:
        """A training that gets further between losses is not worn out by them."""
        entry = self._entries[self._key(signature)]
        if step > entry.step:
            entry.step, entry.losses = step, 0
            entry.pauses, entry.troubled_since = 0, None

    def again(self, signature: str, reason: Reason) -> None:
        """Put a running cell back among those that wait."""
        entry = self._entries[self._key(signature)]
        if entry.phase is Phase.RUNNING:
            entry.phase, entry.reason = Phase.WAITING, reason
            self._refresh(entry)

    def lost(self, signature: str, reason: Reason = Reason.LOST_PROCESS) -> bool:
        """Its process died: put it back; False when that happened too often and the cell has to be failed."""
        entry = self._entries[self._key(signature)]
        if entry.phase is not Phase.RUNNING:
            return True
        entry.losses += 1
        if entry.losses > LOSSES_ALLOWED:
            return False
        self.again(signature, reason)
        return True

    def troubled(self, signature: str, reason: Reason, now: float) -> bool:
        """A node or the store was in trouble: the cell waits for a while; False when that lasts too long already."""
        entry = self._entries[self._key(signature)]
        if entry.phase is not Phase.RUNNING:
            return True
        if entry.troubled_since is None:
            entry.troubled_since = now
        if now - entry.troubled_since > PATIENCE_S and entry.pauses >= TROUBLES_AT_LEAST - 1:
            return False
        pause_s = min(FIRST_PAUSE_S * 2.0**entry.pauses, LONGEST_PAUSE_S)
        entry.pauses += 1
        heapq.heappush(self._parked, (now + pause_s, signature, reason))
        return True

    def unpark(self, now: float) -> None:
        """Put cells back among those that wait whose pause after such a trouble is over."""
        while self._parked and self._parked[0][0] <= now:
            _, signature, reason = heapq.heappop(self._parked)
            self.again(signature, reason)

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
        for child in self._children.get(self._key(producer), ()):
            child.unsettled += 1
            if child.phase is Phase.WAITING:
                self._ready.put(child, ready=False)
        self._refresh(entry)
        return True

    # Consequences

    def _key(self, signature: str) -> str:
        """The planned signature of a cell that was perhaps reduced."""
        return self._planned.get(signature, signature)

    def _parents(self, entry: Entry) -> list[Entry]:
        """Inputs that belong to the study."""
        return [self._entries[parent] for parent in entry.spec.parents if parent in self._entries]

    def _count(self, entry: Entry, by: int) -> None:
        self._unsettled += by
        self._trainings += by * self._stages[entry.spec.stage].training

    def _settle(self, key: str, phase: Phase, sentence: str) -> None:
        entry = self._entries[key]
        if entry.phase in SETTLED:
            return
        entry.phase, entry.sentence = phase, sentence
        self._count(entry, -1)
        self._ready.remove(entry)
        for child in self._children.get(key, ()):
            child.unsettled -= 1
            child.lost += phase in LOST
            if child.phase is Phase.WAITING and not (child.unsettled and phase is Phase.DONE):
                self._refresh(child)

    def _refresh(self, entry: Entry) -> None:
        """Decide whether a waiting cell is ready, waits on, or can never run."""
        aggregate = self._stages[entry.spec.stage].aggregate and self._reduce is not None
        if entry.lost and not aggregate:
            self._block(entry)
        elif entry.unsettled:
            self._ready.put(entry, ready=False)
        elif entry.lost:
            self._shrink(entry)
        else:
            self._ready.put(entry, ready=True)

    def _block(self, entry: Entry) -> None:
        """It can never run: the first of its inputs that was lost says why."""
        parent = next(parent for parent in self._parents(entry) if parent.phase in LOST)
        cause = parent.sentence
        if parent.phase is Phase.FAILED:
            cause = f"its input {parent.spec.name} failed: {parent.sentence}"
        self._settle(self._key(entry.spec.signature), Phase.BLOCKED, cause)

    def _shrink(self, entry: Entry) -> None:
        assert self._reduce is not None
        lost = {parent.spec.signature: parent.sentence for parent in self._parents(entry) if parent.phase in LOST}
        smaller = self._reduce(entry.spec, lost)
        if smaller is None:
            self._block(entry)
            return
        key = self._key(entry.spec.signature)
        self.reduced[key] = smaller
        self._planned[smaller.signature] = key
        entry.spec, entry.lost = smaller, 0
        self._ready.put(entry, ready=True)


def fan_out_room(capacity: Mapping[str, float], trainings: Iterable[Stage], tasks: Iterable[Stage]) -> dict[str, float]:
    """What is left of each resource for fan-out when trainings that run, are pending or were released come first.

    Trainings that wait for a GPU or a custom resource claim CPUs only as far as those that exist can hold them.
    """
    left = dict(capacity)
    for training in trainings:
        scarce = {name: amount for name, amount in training.request.items() if name != "CPU"}
        if all(left.get(name, 0.0) >= amount for name, amount in scarce.items()):
            _claim(left, training)
    for task in tasks:
        _claim(left, task)
    return left


def starves_nobody(stage: Stage, trainings: Iterable[Stage]) -> bool:
    """True when fan-out of `stage` may wait for nodes to come: no training could wait behind it.

    Ray serves plain tasks before placement groups that wait, unless a custom resource keeps the two apart.
    """
    return not any(not (stage.custom.keys() - training.custom.keys()) for training in trainings)


def _claim(left: dict[str, float], stage: Stage) -> None:
    for name, amount in stage.request.items():
        left[name] = left.get(name, 0.0) - amount
