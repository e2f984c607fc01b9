"""The driver loop: from a graph and a ledger to an outcome, whatever processes are lost on the way."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from orchestrator.backends import Backend, InlineBackend, RayBackend, Refused
from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger, Status
from orchestrator.reasons import Reason, State
from orchestrator.schedule import Phase, Reduce, Schedule, Task
from orchestrator.signals import StopFlag, stop_on_signals
from orchestrator.stages import STAGES, Stage
from orchestrator.worker import Event, WorkOrder

Survey = Mapping[str, tuple[State, Reason, Status | None]]

ALL_DONE, WITH_FAILURES, REFUSED = 0, 1, 3
STOP_GRACE_S = 30.0
HEARTBEAT_S = 10.0


@dataclass(frozen=True)
class Execution:
    """Where and how a study runs; nothing here changes a result.

    Attributes
    ----------
    inline : bool
        All in this process, one task after the other, without Ray.
    address : str or None
        A running Ray cluster; None: $RAY_ADDRESS, or a Ray of our own on this machine.
    cpus : int or None
        CPUs of a Ray of our own; None: all.
    gpus_per_training : float
        GPUs of one training; shares such as 0.5 are possible.
    retry_failed : bool
        Try cells again that failed before.
    """

    inline: bool = False
    address: str | None = None
    cpus: int | None = None
    gpus_per_training: float = 0.0
    retry_failed: bool = False


@dataclass
class Outcome:
    """What became of a study; `exit_code` is the process's."""

    done: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    reduced: dict[str, CellSpec] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    signum: int | None = None
    seconds: float = 0.0

    @property
    def stopped(self) -> bool:
        return self.signum is not None

    @property
    def exit_code(self) -> int:
        if self.signum is not None:
            return 128 + self.signum
        if self.refused:
            return REFUSED
        return WITH_FAILURES if self.failed or self.blocked or self.left else ALL_DONE


class Observer(Protocol):
    """Is told what happens; MLflow and the terminal are two of them."""

    def study_started(self, graph: Graph, states: Survey) -> None: ...
    def cell_started(self, cell: CellSpec, reason: Reason) -> None: ...
    def cell_progress(self, cell: CellSpec, step: int, total: int, metrics: Mapping[str, float]) -> None: ...
    def cell_finished(self, cell: CellSpec, status: Status, cached: bool) -> None: ...
    def study_finished(self, outcome: Outcome) -> None: ...


class _Observers:
    """All observers as one; what they raise is printed once each and stops nothing."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._complained: set[int] = set()

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*values: Any) -> None:
            for observer in self._observers:
                try:
                    getattr(observer, name)(*values)
                except Exception as error:
                    self._complain(observer, error)

        return tell

    def _complain(self, observer: Observer, error: Exception) -> None:
        if id(observer) not in self._complained:
            self._complained.add(id(observer))
            kind = type(observer).__name__
            print(f"{kind} is behind: {type(error).__name__}: {error}; the study goes on without it", file=sys.stderr)


def run_study(
    graph: Graph,
    ledger: Ledger,
    execution: Execution,
    observers: Sequence[Observer] = (),
    reduce: Reduce | None = None,
    stages: Mapping[str, Stage] = STAGES,
    driver: str | None = None,
) -> Outcome:
    """Compute every cell of `graph` that the ledger doesn't have; resuming is calling this again."""
    with stop_on_signals() as flag:
        return _Study(graph, ledger, execution, observers, reduce, stages, flag, driver or new_driver()).run()


def new_driver() -> str:
    """A name for this run of a study, such as ``20260501T120000-4711-0f3a5c``: sorts by time."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}-{secrets.token_hex(3)}"


class _Study:
    def __init__(
        self,
        graph: Graph,
        ledger: Ledger,
        execution: Execution,
        observers: Sequence[Observer],
        reduce: Reduce | None,
        stages: Mapping[str, Stage],
        flag: StopFlag,
        driver: str,
    ) -> None:
        self._graph = graph
        self._ledger = ledger
        self._execution = execution
        self._tell = _Observers(observers)
        self._flag = flag
        self._driver = driver
        self._stop_path = f"drivers/{self._driver}.stop"
        self._began = time.monotonic()
        self._survey = ledger.survey(graph, full=ledger.storage.is_local)
        gpus = execution.gpus_per_training
        requested = {name: replace(row, gpus=gpus or row.gpus) if row.training else row for name, row in stages.items()}
        states = {signature: (*found[:2], _why(found)) for signature, found in self._survey.items()}
        self._schedule = Schedule(graph, states, execution.retry_failed, reduce, requested)
        self._cached = [spec.signature for spec in graph if self._survey[spec.signature][0] is State.CACHED]
        self._done: list[str] = []
        self._running: dict[str, Reason] = {}

    def run(self) -> Outcome:
        if not self._schedule.finished:
            self._ledger.heartbeat(self._driver)
        self._tell.study_started(self._graph, self._survey)
        for spec in self._graph:
            _, _, status = self._survey[spec.signature]
            if status is not None and self._schedule.phase(spec.signature) in (Phase.DONE, Phase.FAILED):
                self._tell.cell_finished(spec, status, True)
        refused = self._compute() if not self._schedule.finished else []
        outcome = self._outcome(refused)
        self._tell.study_finished(outcome)
        return outcome

    def _compute(self) -> list[str]:
        beating = threading.Event()
        threading.Thread(target=self._heartbeat, args=(beating,), daemon=True).start()
        try:
            backend = self._backend()
        except Refused as error:
            beating.set()
            self._ledger.leave(self._driver)
            return [str(error)]
        self._flag.listen()  # Ray has put a SIGTERM handler of its own in place
        try:
            refused = backend.preflight(self._schedule.stages_to_run())
            if not refused:
                self._loop(backend)
                self._drain(backend)
            return refused
        finally:
            beating.set()
            backend.close()
            self._ledger.storage.delete(self._stop_path)
            self._ledger.leave(self._driver)

    def _backend(self) -> Backend:
        if self._execution.inline:
            return InlineBackend(self._flag.is_set)
        from orchestrator.cluster import Cluster

        trainings = sum(STAGES[spec.stage].training for spec in self._graph if spec.stage in STAGES)
        return RayBackend(Cluster(self._execution.address, self._execution.cpus), trainings)

    def _heartbeat(self, ended: threading.Event) -> None:
        while not ended.is_set():
            with suppress(Exception):  # leases are advice: without a beat two drivers may do the same work twice
                self._ledger.heartbeat(self._driver)
            ended.wait(HEARTBEAT_S)

    # The loop

    def _loop(self, backend: Backend) -> None:
        while not self._schedule.finished and not self._flag.is_set():
            for task in self._schedule.ready():
                if backend.room(task):
                    self._start(backend, task)
            if not self._schedule.trainings_left:
                backend.no_more_trainings()
            backend.poll(self._handle)

    def _drain(self, backend: Backend) -> None:
        """After a stop: nothing new; what runs has `STOP_GRACE_S` to publish or to save its checkpoint."""
        if not self._flag.is_set():
            return
        self._ledger.storage.write(self._stop_path, b"")
        backend.stop()
        until = time.monotonic() + STOP_GRACE_S
        while backend.busy() and time.monotonic() < until:
            backend.poll(self._handle)

    def _start(self, backend: Backend, task: Task) -> None:
        self._schedule.started(task)
        cells = tuple(spec for spec in task.cells if not self._found(spec))
        if not cells:
            return
        parents = {parent for spec in cells for parent in spec.parents}
        stage_of = {parent: self._graph.cells[parent].stage for parent in parents}
        reasons = {spec.signature: task.reasons.get(spec.signature, Reason.NEW) for spec in cells}
        self._running.update(reasons)
        storage = self._ledger.storage
        backend.submit(WorkOrder(storage, task.stage, cells, reasons, stage_of, self._driver, self._stop_path))

    def _found(self, spec: CellSpec) -> bool:
        """A reduced aggregate has a signature that the first survey didn't know: perhaps it is in the ledger."""
        if spec.signature in self._survey:
            return False
        state, _, status = self._ledger.survey([spec], full=self._ledger.storage.is_local)[spec.signature]
        if state is not State.CACHED or status is None:
            return False
        self._cached.append(spec.signature)
        self._schedule.done(spec.signature)
        self._tell.cell_finished(spec, status, True)
        return True

    def _handle(self, event: Event) -> None:
        spec = self._schedule.spec(event.signature)
        match event.kind:
            case "started":
                self._tell.cell_started(spec, self._running.get(event.signature, Reason.NEW))
            case "progress":
                self._schedule.progressed(event.signature, event.step)
                self._tell.cell_progress(spec, event.step, event.total, event.metrics)
            case "settled":
                assert event.status is not None
                self._settled(spec, event.status)
            case "again":
                self._schedule.again(event.signature, Reason.INPUT_CORRUPT)
            case "corrupt":
                self._corrupt(spec, event)
            case "lost":
                if not self._schedule.lost(event.signature):
                    self._fail(spec, Reason.LOST_PROCESS, f"its process was lost again and again: {event.sentence}")
            case "stopped":
                pass

    def _settled(self, spec: CellSpec, status: Status) -> None:
        if status.state == "done":
            self._done.append(spec.signature)
            self._schedule.done(spec.signature)
        else:
            self._schedule.failed(spec.signature, status.failure or "no reason was given")
        self._tell.cell_finished(spec, status, False)

    def _corrupt(self, spec: CellSpec, event: Event) -> None:
        if self._schedule.recompute(event.producer, event.reason or Reason.CHECKSUM_MISMATCH):
            self._schedule.again(event.signature, Reason.INPUT_CORRUPT)
            return
        self._fail(spec, Reason.INPUT_CORRUPT, f"its input {event.producer[:12]} is corrupt and stays so")

    def _fail(self, spec: CellSpec, reason: Reason, sentence: str) -> None:
        attempt = self._ledger.begin(spec, reason, self._driver)
        self._settled(spec, self._ledger.fail(attempt, reason, sentence, 0.0))

    def _outcome(self, refused: list[str]) -> Outcome:
        schedule = self._schedule
        return Outcome(
            done=self._done,
            cached=[signature for signature in self._cached if signature not in self._done],
            failed=schedule.cells(Phase.FAILED),
            blocked=schedule.cells(Phase.BLOCKED),
            left=list(schedule.cells(Phase.WAITING, Phase.RUNNING)),
            reduced=dict(schedule.reduced),
            refused=refused,
            signum=None if schedule.finished else self._flag.signum,
            seconds=time.monotonic() - self._began,
        )


def _why(found: tuple[State, Reason, Status | None]) -> str:
    state, _, status = found
    return (status.failure or "") if state is State.FAILED and status is not None else ""
