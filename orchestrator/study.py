"""The driver loop: from a graph and a ledger to an outcome, whatever processes are lost on the way."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress

from orchestrator.backends import Backend, InlineBackend, RayBackend, Refused
from orchestrator.claims import WAITING_S, Claims
from orchestrator.execution import Execution
from orchestrator.graph import CellSpec, Graph
from orchestrator.known import MAY_HAVE_ENDED, Known, give_up, why
from orchestrator.ledger import Ledger, Status
from orchestrator.observers import Observer, Observers
from orchestrator.orders import Event, WorkOrder
from orchestrator.outcome import ALL_DONE, REFUSED, WITH_FAILURES, Exclusions, Outcome
from orchestrator.ready import Phase, Task
from orchestrator.reasons import SENTENCES, TROUBLES, Reason, State
from orchestrator.schedule import Reduce, Schedule
from orchestrator.signals import StopFlag, stop_on_signals
from orchestrator.stages import STAGES, Stage, with_requests
from orchestrator.trouble import StorageAway, StorageRefused, described
from orchestrator.worker import placed, sentence

__all__ = ["ALL_DONE", "REFUSED", "WITH_FAILURES", "Execution", "Observer", "Outcome", "new_driver", "run_study"]

STOP_GRACE_S = 30.0


def run_study(
    graph: Graph,
    ledger: Ledger,
    execution: Execution,
    observers: Sequence[Observer] = (),
    reduce: Reduce | None = None,
    stages: Mapping[str, Stage] = STAGES,
    driver: str | None = None,
    backend: Backend | None = None,
) -> Outcome:
    """Compute every cell of `graph` that the ledger doesn't have; resuming is calling this again.

    A `backend` that is given serves several studies one after the other, and is closed by whoever opened it.
    """
    with stop_on_signals() as flag:
        driver = driver or new_driver()
        return _Study(graph, ledger, execution, observers, reduce, stages, flag, driver, backend).run()


def open_cluster(ledger: Ledger, execution: Execution, trainings: int) -> RayBackend:
    """Ray, as the execution asks for it; `Refused` when it isn't to be had."""
    from orchestrator.cluster import Cluster

    storage = ledger.storage
    own_disks = storage.root if storage.is_local and not execution.shared_ledger else None
    cluster = Cluster(execution.address, execution.cpus, execution.cluster)
    return RayBackend(cluster, trainings, own_disks, None if storage.is_local else storage)


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
        backend: Backend | None,
    ) -> None:
        self._graph = graph
        self._ledger = ledger
        self._execution = execution
        self._tell = Observers(observers)
        self._flag = flag
        self._driver = driver
        self._given = backend
        self._stop_path = f"drivers/{self._driver}.stop"
        self._began = time.monotonic()
        self._survey = dict(ledger.survey(graph, full=ledger.storage.is_local))
        requested = with_requests(stages, execution.resources, execution.gpus_per_training)
        states = {key: (state, reason, why(state, status)) for key, (state, reason, status) in self._survey.items()}
        self._schedule = Schedule(graph, states, execution.retry_failed, reduce, requested)
        self._cached = [spec.signature for spec in graph if self._survey[spec.signature][0] is State.CACHED]
        self._known = Known(self._survey)
        self._done: list[str] = []
        self._excluded = Exclusions()
        self._running: dict[str, Reason] = {}
        self._attempts: dict[str, set[str]] = {}
        self._claims = Claims(ledger, driver, graph)
        self._was_shared = False
        self._twice: list[str] = []

    def run(self) -> Outcome:
        refused: list[str] = []
        aborted = None
        try:
            self._start_telling()
            if not self._schedule.finished:
                refused = self._compute()
        except (StorageAway, StorageRefused) as error:
            aborted = f"the ledger failed: {described(error)}"
        except Exception as error:
            aborted = placed(error)
        outcome = self._outcome(refused, aborted)
        self._tell.study_finished(outcome)
        return outcome

    def _start_telling(self) -> None:
        if not self._schedule.finished:
            with suppress(Exception):
                self._ledger.clear_dead_drivers()
            self._claims.start()
        self._tell.study_started(self._graph, self._survey)
        for spec in self._graph:
            _, _, status = self._survey[spec.signature]
            if status is not None and self._schedule.phase(spec.signature) in (Phase.DONE, Phase.FAILED):
                self._finished(spec, status, True)
        self._survey = {}  # told once: statuses of thousands of cells are not carried through the study

    def _finished(self, spec: CellSpec, status: Status, cached: bool) -> None:
        self._excluded.put(spec, status)
        self._tell.cell_finished(spec, status, cached)

    def _compute(self) -> list[str]:
        """Do all the work there is; what refuses it comes back in sentences."""
        try:
            with self._backend() as backend:
                self._flag.listen()  # Ray has put a SIGTERM handler of its own in place
                refused = backend.preflight(self._schedule.stages_to_run())
                if not refused:
                    self._loop(backend)
                    self._drain(backend)
                return refused
        except Refused as error:
            return [str(error)]
        finally:
            with suppress(Exception):  # the file of a driver that is gone is removed by the next one
                self._ledger.storage.delete(self._stop_path)
            self._claims.close()

    def _backend(self) -> AbstractContextManager[Backend]:
        if self._given is not None:
            return nullcontext(self._given)
        if self._execution.inline:
            return closing(InlineBackend(self._flag.is_set))
        trainings = sum(STAGES[spec.stage].training for spec in self._graph if spec.stage in STAGES)
        return closing(open_cluster(self._ledger, self._execution, trainings))

    # The loop

    def _loop(self, backend: Backend) -> None:
        while not self._schedule.finished and not self._flag.is_set():
            self._schedule.unpark(time.monotonic())
            self._claims.refresh(WAITING_S)
            self._was_shared |= self._claims.shared
            self._start_ready(backend)
            if self._claims.shared:
                ready = (task for tasks in self._schedule.ready_by_kind() for task in tasks)
                self._tell.waiting(self._claims.waited_for(ready))
            if not self._schedule.trainings_left:
                backend.no_more_trainings()
            backend.poll(self._handle)

    def _start_ready(self, backend: Backend) -> None:
        """Start what there is room for and no other driver has in hand, this driver's own share first."""
        for tasks in self._schedule.ready_by_kind():
            for task in self._claims.in_order(tasks):
                if not backend.room(task):
                    break
                free = self._claims.free(task)
                if free is not None and not self._start(backend, free):
                    return

    def _drain(self, backend: Backend) -> None:
        """After a stop: nothing new; what runs has `STOP_GRACE_S` to publish or to save its checkpoint."""
        if not self._flag.is_set():
            return
        with suppress(Exception):  # whoever doesn't see it is ended after the time of grace
            self._ledger.storage.write(self._stop_path, b"")
        backend.stop()
        until = time.monotonic() + STOP_GRACE_S
        while backend.busy() and time.monotonic() < until:
            backend.poll(self._handle)

    def _start(self, backend: Backend, task: Task) -> bool:
        """Submit what the ledger doesn't have of a task; False when the ledger is away, so that nothing can start."""
        self._schedule.started(task)
        try:
            reasons = {**task.reasons, **self._found(task)}
        except StorageAway as error:
            reason = Reason.STORAGE_AWAY
            for spec in task.cells:
                self._lost(spec, Event("lost", spec.signature, sentence=sentence(error)), reason)
            return False
        cells = tuple(spec for spec in task.cells if self._schedule.phase(spec.signature) is Phase.RUNNING)
        if not cells:
            return True
        self._claims.take(spec.signature for spec in cells)
        parents = {parent for spec in cells for parent in spec.parents}
        stage_of = {parent: self._graph.cells[parent].stage for parent in parents}
        self._running.update(reasons)
        storage = self._ledger.storage
        backend.submit(WorkOrder(storage, task.stage, cells, reasons, stage_of, self._driver, self._stop_path))
        return True

    def _found(self, task: Task) -> dict[str, Reason]:
        """What the ledger says of cells that the first survey didn't know, and of what may be settled meanwhile."""
        lost = {signature for signature, reason in task.reasons.items() if reason in MAY_HAVE_ENDED}
        may_be_settled = lost.union(spec.signature for spec in task.cells if self._was_shared)
        asked = [spec for spec in task.cells if spec.signature in may_be_settled or spec.signature not in self._known]
        reasons: dict[str, Reason] = {}
        for news in self._known.ask(self._ledger, asked):
            spec, state, status = news.spec, news.state, news.status
            again = news.first and self._execution.retry_failed
            if status is not None and not self._was_shared and spec.signature in lost:
                self._settled(spec, status)  # this driver's own: only the word of it was lost
            elif status is not None and state is State.CACHED:
                self._cached.append(spec.signature)
                self._schedule.done(spec.signature)
                self._finished(spec, status, True)
            elif status is not None and state is State.FAILED and not again:
                self._schedule.failed(spec.signature, why(state, status))
                self._finished(spec, status, True)
            elif news.first:
                reasons[spec.signature] = Reason.RETRY_REQUESTED if state is State.FAILED else news.reason
        return reasons

    def _handle(self, event: Event) -> None:
        spec = self._schedule.spec(event.signature)
        if event.kind not in ("started", "progress"):
            self._claims.drop(event.signature)
        match event.kind:
            case "started":
                self._tell.cell_started(spec, self._running.get(event.signature, Reason.NEW))
            case "progress":
                self._schedule.progressed(event.signature, event.step)
                self._tell.cell_progress(spec, event.step, event.total, event.metrics)
            case "settled":
                assert event.status is not None
                if event.superseded:
                    self._twice.append(spec.name)
                    self._was_shared = True  # there may be more of theirs
                self._settled(spec, event.status)
            case "again":
                self._schedule.again(event.signature, Reason.SET_BACK)
            case "corrupt":
                self._corrupt(spec, event)
            case "lost":
                self._lost(spec, event, event.reason or Reason.LOST_PROCESS)
            case "stopped":
                pass

    def _settled(self, spec: CellSpec, status: Status) -> None:
        if status.state == "done":
            self._done.append(spec.signature)
            self._schedule.done(spec.signature)
            self._known.note(spec.signature, status)
        else:
            self._schedule.failed(spec.signature, status.failure or "no reason was given")
        self._finished(spec, status, False)

    def _lost(self, spec: CellSpec, event: Event, reason: Reason) -> None:
        if reason is Reason.LOST_PROCESS and not self._had_begun(spec):
            reason = Reason.NOT_BEGUN
        if reason in TROUBLES:
            if not self._schedule.troubled(event.signature, reason, time.monotonic()):
                self._fail(spec, reason, f"{SENTENCES[reason]} for too long: {event.sentence}")
        elif not self._schedule.lost(event.signature, reason):
            what = "process was lost" if reason is Reason.LOST_PROCESS else "end could not be recorded"
            self._fail(spec, reason, f"its {what} again and again: {event.sentence}")

    def _had_begun(self, spec: CellSpec) -> bool:
        """Whether a lost process had begun with its cell: an attempt is there that wasn't at the last loss."""
        try:
            attempts = set(self._ledger.attempts(spec.stage, spec.signature))
        except OSError:
            return True
        new = attempts - self._attempts.get(spec.signature, set())
        self._attempts[spec.signature] = attempts
        return bool(new)

    def _corrupt(self, spec: CellSpec, event: Event) -> None:
        if self._schedule.recompute(event.producer, event.reason or Reason.CHECKSUM_MISMATCH):
            self._schedule.again(event.signature, Reason.INPUT_CORRUPT)
            return
        self._fail(spec, Reason.INPUT_CORRUPT, f"its input {event.producer[:12]} is corrupt and stays so")

    def _fail(self, spec: CellSpec, reason: Reason, sentence: str) -> None:
        self._settled(spec, give_up(self._ledger, spec, reason, sentence, self._driver))

    def _outcome(self, refused: list[str], aborted: str | None) -> Outcome:
        schedule, done = self._schedule, set(self._done)
        return Outcome(
            done=self._done,
            cached=[signature for signature in self._cached if signature not in done],
            failed=schedule.cells(Phase.FAILED),
            blocked=schedule.cells(Phase.BLOCKED),
            left=list(schedule.cells(Phase.WAITING, Phase.RUNNING)),
            reduced=dict(schedule.reduced),
            excluded=self._excluded.by_sentence(),
            computed_twice=list(self._twice),
            refused=refused,
            aborted=aborted,
            signum=None if schedule.finished else self._flag.signum,
            seconds=time.monotonic() - self._began,
        )
