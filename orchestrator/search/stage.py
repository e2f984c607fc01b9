"""A search over one training stage: each trial an ordinary cell, trained by Ray Tune, poor ones stopped early."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.backends import IDLE_S, RayBackend
from orchestrator.claims import Claims
from orchestrator.graph import CellSpec
from orchestrator.observers import Observers
from orchestrator.orders import Event, WorkOrder
from orchestrator.outcome import Outcome
from orchestrator.reasons import Reason, State
from orchestrator.search.objective import VALIDATION_LOSS
from orchestrator.search.records import Trial
from orchestrator.search.showing import settings_text
from orchestrator.signals import StopFlag, stop_on_signals
from orchestrator.stages import with_requests
from orchestrator.study import STOP_GRACE_S

if TYPE_CHECKING:
    from orchestrator.ledger import Status
    from orchestrator.search.run import SearchRun
    from orchestrator.search.tune import Tuning

ALL_ASKED, WAIT = "all asked", "wait"
LOST = "its process was lost again and again"


class StageTrials:
    """What Ray Tune is told to train, and what it tells of it; asked from Tune's thread alone."""

    def __init__(self, run: SearchRun, claims: Claims, stop_path: str) -> None:
        self.run, self.claims = run, claims
        execution = run.execution
        stages = with_requests(run.stages, execution.resources, execution.gpus_per_training)
        self.stage = stages[run.search.config.over]
        self.cells: dict[int, CellSpec] = {}
        self.live: dict[int, str] = {}
        self.closed = False
        self._stop_path = stop_path
        self._again = [trial for _, trial in sorted(run.trials.items()) if not trial.finished]
        self._next: Trial | None = None

    def next(self) -> tuple[Trial, WorkOrder] | str:
        """A trial to start: first those that were interrupted; `WAIT`, or `ALL_ASKED`."""
        while not self.closed:
            self._next = self._next or (self._again.pop(0) if self._again else self.run.take())
            if self._next is None:
                return ALL_ASKED
            self.run.learn()
            if self.run.trials[self._next.number].finished:
                self._next = None  # by another driver
                continue
            planned = self.run.plan(self._next)
            if planned is None:
                self._next = None
                continue
            (cell,) = planned.judges
            self.claims.refresh()
            if cell.signature in self.live.values() or self.claims.elsewhere(cell.signature):
                return WAIT  # somebody trains this very cell: it will be cached when that is done
            trial, self._next = self.run.trials[self._next.number], None
            self.cells[trial.number] = cell
            if not self._is_known(trial, cell):
                self.run.say(f"trial {trial.number}: {settings_text(trial.settings)}")
                self.live[trial.number] = cell.signature
                self.claims.take([cell.signature])
                return trial, self._order(cell)
        return ALL_ASKED

    def _is_known(self, trial: Trial, cell: CellSpec) -> bool:
        """True when the ledger already holds what the trial would train, or its failure."""
        state, _, status = self.run.search.ledger.survey([cell], full=False)[cell.signature]
        if status is None or state is State.TO_DO or (state is State.FAILED and trial.number in self.run.retried):
            return False
        self.settled(trial.number, status)
        return True

    def _order(self, cell: CellSpec) -> WorkOrder:
        run = self.run
        stage_of = {parent: run.search.base.graph.cells[parent].stage for parent in cell.parents}
        reasons = {cell.signature: Reason.NEW}
        storage = run.search.ledger.storage
        return WorkOrder(storage, self.stage, (cell,), reasons, stage_of, run.driver, self._stop_path)

    def reported(self, number: int, share: int, value: float) -> None:
        """A validation loss at a share of the training, in per cent."""
        trial = self.run.trials[number]
        self.run.put(replace(trial, intermediate={**trial.intermediate, share: value}))
        self.run.say(f"trial {number} at {share} %: {VALIDATION_LOSS} {value:.4g}")

    def settled(self, number: int, status: Status) -> None:
        """A trial was trained to its end, or failed."""
        self._let_go(number)
        trial, loss = self.run.trials[number], status.metrics.get(VALIDATION_LOSS)
        if status.state == "done" and isinstance(loss, int | float):
            self.run.finish(trial.completed(float(loss)))
        else:
            self.run.finish(trial.failed(status.failure or f"it has no {VALIDATION_LOSS}"))

    def pruned(self, number: int) -> None:
        """A trial was stopped early: its attempt says so, for the process may have had no time to."""
        self._let_go(number)
        cell = self.cells[number]
        self.run.search.ledger.abandon_last(cell, Reason.PRUNED)
        self.run.finish(self.run.trials[number].pruned())

    def lost(self, number: int, why: str = "") -> None:
        """Its process died too often, or what it said itself was in its way."""
        self._let_go(number)
        self.run.finish(self.run.trials[number].failed(why or LOST))

    def stopped(self, number: int) -> None:
        """The search was asked to stop: the trial goes on from its checkpoint next time."""
        self._let_go(number)

    def _let_go(self, number: int) -> None:
        signature = self.live.pop(number, None)
        if signature is not None:
            self.claims.drop(signature)


def train_trials(run: SearchRun, backend: RayBackend) -> Outcome | None:
    """Train until all trials are finished; an outcome that ended the search before its time."""
    from orchestrator.search.tune import Tuning

    ledger, stop_path = run.search.ledger, f"drivers/{run.driver}.stop"
    claims = Claims(ledger, run.driver, run.search.base.graph)
    with stop_on_signals() as flag:
        if flag.is_set():
            return Outcome(signum=flag.signum)
        trials = StageTrials(run, claims, stop_path)
        refused = backend.preflight([trials.stage])
        if refused:
            return Outcome(refused=refused)
        claims.start()
        tuning = Tuning(trials)
        try:
            return _watch(tuning, trials, flag)
        finally:
            tuning.abandon()
            with suppress(Exception):  # the file of a driver that is gone is removed by the next one
                ledger.storage.delete(stop_path)
            claims.close()


def _watch(tuning: Tuning, trials: StageTrials, flag: StopFlag) -> Outcome | None:
    """Pass on what happens until Tune has ended, or until a stop was carried out."""
    run = trials.run
    tell = Observers(run.trackers)
    tell.study_started(run.search.base.graph, {})
    while tuning.alive and not flag.is_set():
        for event in tuning.poll():
            _tell(tell, run, trials, event)
        time.sleep(IDLE_S)
    if flag.is_set():
        trials.closed = True
        with suppress(Exception):
            run.search.ledger.storage.write(f"drivers/{run.driver}.stop", b"")
        until = time.monotonic() + STOP_GRACE_S
        while tuning.alive and trials.live and time.monotonic() < until:
            time.sleep(IDLE_S)
    for event in tuning.poll():
        _tell(tell, run, trials, event)
    outcome = Outcome(signum=flag.signum)
    tell.study_finished(outcome)
    return outcome if outcome.stopped else None


def _tell(tell: Observers, run: SearchRun, trials: StageTrials, event: Event) -> None:
    cell = next(cell for cell in trials.cells.values() if cell.signature == event.signature)
    match event.kind:
        case "started":
            tell.cell_started(cell, event.reason or Reason.NEW)
        case "progress":
            tell.cell_progress(cell, event.step, event.total, event.metrics)
        case "settled":
            run.computed(event.signature)
            tell.cell_finished(cell, event.status, False)
        case "stopped" if event.reason is Reason.PRUNED:
            tell.cell_pruned(cell)
