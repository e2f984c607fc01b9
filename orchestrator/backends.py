"""Where tasks run: in this process, or on Ray. Both take orders and give back events."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from orchestrator.node_facts import ledger_on_nodes
from orchestrator.orders import Emit, Event, WorkOrder
from orchestrator.ready import Task
from orchestrator.redaction import redact
from orchestrator.schedule import fan_out_room, starves_nobody
from orchestrator.stages import Stage
from orchestrator.worker import execute

if TYPE_CHECKING:
    from orchestrator.cluster import Cluster
    from orchestrator.storage import Storage
    from orchestrator.training import TrainingRun


IDLE_S = 0.1
TRAININGS_WAITING = 2
"""Trainings released beyond those that can run: the next ones start at once, all others are any driver's to take."""


class Refused(Exception):
    """What a study needs is not there: in one sentence, before anything is started."""


class Backend(Protocol):
    """What the driver loop asks of a place to run."""

    def preflight(self, stages: Iterable[Stage]) -> list[str]:
        """Requests that can never be satisfied here, one sentence with the numbers for each."""
        ...

    def room(self, task: Task) -> bool:
        """True when `task` should be submitted now."""
        ...

    def submit(self, order: WorkOrder) -> None: ...

    def poll(self, handle: Emit) -> None:
        """Hand over what happened; waits a moment when nothing did."""
        ...

    def busy(self) -> bool:
        """True while something that started has not come back."""
        ...

    def no_more_trainings(self) -> None:
        """No training will be submitted, unless a corrupt one has to be computed again."""
        ...

    def stop(self) -> None:
        """Nothing new starts; what runs was told to stop by its own means."""
        ...

    def close(self) -> None: ...


class InlineBackend:
    """One task after the other in this process, under a debugger if you like; Ray is not imported."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._queue: deque[WorkOrder] = deque()

    def preflight(self, stages: Iterable[Stage]) -> list[str]:
        return []

    def room(self, task: Task) -> bool:
        return not self._queue

    def submit(self, order: WorkOrder) -> None:
        self._queue.append(order)

    def poll(self, handle: Emit) -> None:
        if not self._queue:
            time.sleep(IDLE_S)
            return
        trouble: list[Exception] = []

        def emit(event: Event) -> None:
            try:
                if not trouble:
                    handle(event)
            except Exception as error:  # the driver's own trouble, not that of the stage in whose midst it comes up
                trouble.append(error)

        execute(self._queue.popleft(), emit, lambda: bool(trouble) or self._should_stop())
        if trouble:
            raise trouble[0]

    def busy(self) -> bool:
        return bool(self._queue)

    def no_more_trainings(self) -> None:
        return None

    def stop(self) -> None:
        self._queue.clear()

    def close(self) -> None:
        return None


class RayBackend:
    """Trainings are trials of one Ray Tune run, everything else Ray tasks, on one budget of CPUs."""

    def __init__(
        self, cluster: Cluster, trainings: int, own_disks: str | None = None, remote: Storage | None = None
    ) -> None:
        """`own_disks` names a ledger that each machine would look for on its own disk; `remote` is one behind a URL."""
        self._cluster = cluster
        self._remote = remote
        self._expected = trainings
        self._own_disks = own_disks
        self._training: TrainingRun | None = None

    def preflight(self, stages: Iterable[Stage]) -> list[str]:
        refused = self._cluster.preflight(stages)
        if self._own_disks is not None and self._cluster.has_other_nodes():
            refused.append(
                f"the cluster has several nodes, and each would write to its own disk below {self._own_disks}; put "
                "execution.ledger on s3://, or name a folder that all nodes share by its URL, file:///..."
            )
        if missing := self._cluster.missing_nodes():
            print(f"note: {missing}", file=sys.stderr, flush=True)
        if not refused and self._remote is not None and self._cluster.has_other_nodes():
            refused, silent = ledger_on_nodes(self._cluster, self._remote)
            for sentence in silent:
                print(f"note: {redact(sentence)}; the study goes on without it", file=sys.stderr, flush=True)
        return refused

    def room(self, task: Task) -> bool:
        trainings = self._training.live_stages() if self._training else []
        if task.stage.training:
            return len(trainings) < TRAININGS_WAITING + self._side_by_side(task.stage)
        running = self._cluster.running()
        if not task.whole and (running or trainings):
            return False
        capacity, more = self._cluster.capacity(), self._cluster.potential()
        if more and starves_nobody(task.stage, trainings):  # what waits makes the autoscaler start nodes
            capacity = {name: capacity.get(name, 0.0) + more.get(name, 0.0) for name in {*capacity, *more}}
        left = fan_out_room(capacity, trainings, running)
        return all(left.get(name, 0.0) >= amount for name, amount in task.stage.request.items())

    def _side_by_side(self, stage: Stage) -> int:
        """How many trainings of a stage all nodes can hold, with those that may be started."""
        capacity, more = self._cluster.capacity(), self._cluster.potential()
        shares = [
            (capacity.get(name, 0.0) + more.get(name, 0.0)) / amount for name, amount in stage.request.items() if amount
        ]
        return int(min(shares, default=1))

    def submit(self, order: WorkOrder) -> None:
        if not order.stage.training:
            self._cluster.submit(order)
            return
        if self._training is not None and self._training.closed:
            self._training.abandon()
            self._training = None
        if self._training is None:
            from orchestrator.training import TrainingRun

            self._training = TrainingRun(self._expected)
        self._training.release(order)

    def no_more_trainings(self) -> None:
        if self._training is not None:
            self._training.finish()

    def poll(self, handle: Emit) -> None:
        events = [*self._cluster.poll(), *(self._training.poll() if self._training else ())]
        for event in events:
            handle(event)
        if not events:
            self._cluster.wait(IDLE_S)

    def busy(self) -> bool:
        return bool(self._cluster.running()) or (self._training is not None and self._training.running())

    def stop(self) -> None:
        self.no_more_trainings()

    def close(self) -> None:
        if self._training is not None:
            self._training.abandon()
        self._cluster.close()
