"""Ray Tune for searches: OptunaSearch asks, ASHA stops poor trials early, checkpoints stay in the ledger."""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from orchestrator.training import REPORT_EVERY_S, Box, End

# isort: split
from ray import tune
from ray.tune import FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch

from orchestrator.ledger import Ledger
from orchestrator.orders import Event, Pruned, WorkOrder
from orchestrator.reasons import SENTENCES, TROUBLES, Reason, State
from orchestrator.schedule import FIRST_PAUSE_S, LONGEST_PAUSE_S, PATIENCE_S
from orchestrator.search import sampler
from orchestrator.search.objective import VALIDATION_LOSS
from orchestrator.search.records import Trial
from orchestrator.search.stage import ALL_ASKED, StageTrials
from orchestrator.trouble import StorageAway
from orchestrator.worker import execute, sentence, stop_marker

SHARE = "share_of_steps"
GRACE, FACTOR = 10, 3
"""ASHA judges at 10, 30 and 90 per cent of a trial's own steps; of those judged so far the best third goes on."""

os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "300")
"""How long a process that is handed on waits until the trial that was stopped in it has said so in the ledger."""

LOSSES_ALLOWED = 3
PAUSE_S = 5.0
GLANCE_S = 1.0


class _Reports:
    """What a trial tells of itself: every new validation loss at once, the rest now and then; its end with `send`."""

    def __init__(self) -> None:
        self.lost: Event | None = None
        self.over = False
        self.reason = Reason.NEW
        self._step = 0
        self._waiting: list[Event] = []
        self._sent = -REPORT_EVERY_S

    def __call__(self, event: Event) -> None:
        if self.over:
            return
        if event.kind in ("lost", "corrupt", "again"):
            self.lost = replace(event, step=self._step)
            return
        self._step = max(self._step, event.step)
        loss = event.metrics.get(VALIDATION_LOSS) if event.kind == "progress" else None
        self._waiting.append(replace(event, reason=self.reason) if event.kind == "started" else event)
        if event.kind == "progress" and loss is None and time.monotonic() - self._sent < REPORT_EVERY_S:
            return
        share = min(100, 100 * event.step // max(event.total, 1))
        self.send({VALIDATION_LOSS: loss, SHARE: share} if loss is not None else {})

    def send(self, news: Mapping[str, Any], *more: Event) -> None:
        """Report all that waits."""
        batch = Box([*self._waiting, *more])
        self._waiting, self._sent = [], time.monotonic()
        try:
            tune.report({"events": batch, **news})
        except SystemExit:  # how Tune tells a function that its trial was stopped
            self.over = True
            raise Pruned from None


def train(config: dict[str, Any]) -> None:
    """The trainable: one trial from its last checkpoint in the ledger; every new validation loss is reported."""
    order: WorkOrder = config["order"].content
    reports, should_stop = _Reports(), stop_marker(order.storage, order.stop_path)
    lost = persistently(lambda: _tried(order, reports, should_stop), should_stop)
    if lost is not None and not reports.over:
        with suppress(Pruned):
            reports.send({}, lost)
    if reports.over:
        raise SystemExit  # a return would be reported, to nobody, and the process could not go on with another trial
    if lost is not None and lost.kind != "stopped" and lost.reason not in TROUBLES:
        time.sleep(PAUSE_S)
        raise RuntimeError(lost.sentence)  # Tune tries again


def _tried(order: WorkOrder, reports: _Reports, should_stop: Callable[[], bool]) -> Event | None:
    """One try at a trial; what it was lost by."""
    (cell,) = order.cells
    reports.lost = None
    try:
        state, reason, _ = Ledger(order.storage).survey([cell], full=False)[cell.signature]
    except StorageAway as error:
        return Event("lost", cell.signature, reason=Reason.STORAGE_AWAY, sentence=sentence(error))
    reports.reason = Reason.RETRY_REQUESTED if state is State.FAILED else reason
    execute(replace(order, reasons={cell.signature: reports.reason}), reports, should_stop)
    lost = reports.lost
    if lost is not None and lost.kind != "lost":
        return replace(lost, kind="lost", sentence=lost.sentence or f"an input is corrupt: {lost.producer[:12]}")
    return lost


def persistently(attempt: Callable[[], Event | None], should_stop: Callable[[], bool]) -> Event | None:
    """Try until nothing is lost to trouble of the node or the store, or that lasts too long; ``stopped`` on request.

    A try that came further than all before it ends the trouble that was.
    """
    pauses, waited_s, furthest = 0, 0.0, 0
    while (lost := attempt()) is not None and lost.reason in TROUBLES:
        if lost.step > furthest:
            pauses, waited_s, furthest = 0, 0.0, lost.step
        if waited_s >= PATIENCE_S:
            return replace(lost, sentence=f"{SENTENCES[lost.reason]} for too long: {lost.sentence}")
        pause_s = min(FIRST_PAUSE_S * 2.0**pauses, LONGEST_PAUSE_S)
        pauses, waited_s = pauses + 1, waited_s + pause_s
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0 and not should_stop():
            time.sleep(min(left_s, GLANCE_S))
        if should_stop():
            return replace(lost, kind="stopped")
    return lost


def _nothing() -> None:
    """What Tune pickles of settings, for a restore that is never made."""


class _Forgetful:
    """Tune saves and pickles its settings for a restore that is never made: a search is resumed from the ledger."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_nothing, ())

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("Tune is never restored: a search resumes from the ledger, by the same command")


class _Search(_Forgetful, OptunaSearch):  # type: ignore[misc]
    """Optuna's study lives in memory, and is rebuilt from the ledger's records at every start."""

    def __init__(self, trials: StageTrials) -> None:
        self._host, search = trials, trials.run.search
        super().__init__(
            sampler.distributions(search.space), metric=VALIDATION_LOSS, mode="min", study_name=search.signature
        )
        for trial in trials.run.trials.values():
            if trial.finished:
                self._ot_study.add_trial(sampler.frozen(trial, search.space))
        self._numbers: dict[str, int] = {}
        self._ended: dict[str, Event] = {}
        self._lost: dict[str, str] = {}
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.trouble: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        return self._guarded(self._suggest, trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._guarded(self._take, trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._guarded(self._complete, trial_id, result, error)

    def _guarded(self, act: Callable[..., Any], *values: Any) -> Any:
        """Keep what goes wrong here: Tune would take it for an error of the trial, and try that again."""
        try:
            return act(*values)
        except Exception as error:
            self.trouble = self.trouble or error
            raise

    def _suggest(self, trial_id: str) -> Any:
        found = self._host.next()
        if isinstance(found, str):
            return Searcher.FINISHED if found == ALL_ASKED else None
        trial, order = found
        self._ot_study.enqueue_trial(sampler.params(trial.settings, self._host.run.search.space))
        super().suggest(trial_id)
        self._numbers[trial_id] = trial.number
        return {"order": Box(order), "trial": trial.number}

    def _take(self, trial_id: str, result: dict[str, Any]) -> None:
        box = result.get("events")
        for event in box.content if box is not None else ():
            given_up = event.kind == "lost" and event.reason in TROUBLES
            if event.kind in ("settled", "stopped") or given_up:
                self._ended[trial_id] = event
            if event.kind == "lost":
                self._lost[trial_id] = event.sentence
            self.events.put(event)
        if SHARE in result and trial_id not in self._ended:
            self._host.reported(self._numbers[trial_id], result[SHARE], result[VALIDATION_LOSS])
            self._ot_trials[trial_id].report(result[VALIDATION_LOSS], result[SHARE])

    def _complete(self, trial_id: str, result: dict[str, Any] | None, error: bool) -> None:
        if result is not None and trial_id not in self._ended:
            self._take(trial_id, result)
        number, ended = self._numbers[trial_id], self._ended.get(trial_id)
        if ended is not None and ended.status is not None:
            self._host.settled(number, ended.status)
        elif self._host.closed or (ended is not None and ended.kind == "stopped"):
            self._host.stopped(number)
            return
        elif error or ended is not None:
            self._host.lost(number, self._lost.get(trial_id, ""))
        else:
            self.events.put(Event("stopped", self._host.live[number], reason=Pruned.reason))
            self._host.pruned(number)
        sampler.tell(self._ot_study, self._ot_trials[trial_id], self._host.run.trials[number])


class _Limiter(_Forgetful, ConcurrencyLimiter):  # type: ignore[misc]
    """At most so many trials at once."""


class _Asha(_Forgetful, ASHAScheduler):  # type: ignore[misc]
    """ASHA that knows what earlier runs of the search measured; its rungs have no other way in, hence private names."""

    def __init__(self, trials: StageTrials) -> None:
        super().__init__(
            time_attr=SHARE, metric=VALIDATION_LOSS, mode="min", max_t=101, grace_period=GRACE, reduction_factor=FACTOR
        )
        self._trials = trials
        for trial in trials.run.trials.values():
            if trial.finished:
                self._remember(trial, f"trial {trial.number}")

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial that goes on isn't judged again where it was judged."""
        super().on_trial_add(tune_controller, trial)
        self._remember(self._trials.run.trials[trial.config["trial"]], trial.trial_id)

    def _remember(self, trial: Trial, trial_id: str) -> None:
        for share, loss in sorted(trial.intermediate.items()):
            self._brackets[0].on_result(SimpleNamespace(trial_id=trial_id), share, -loss)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True


class Tuning:
    """One run of Ray Tune in a thread of its own, until its searcher has nothing left to ask for."""

    def __init__(self, trials: StageTrials) -> None:
        os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # most reports come between validations
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        self._trials = trials
        self._search = _Search(trials)
        self._end = End()
        self._scratch = tempfile.TemporaryDirectory(prefix="orchestrator-tune-", ignore_cleanup_errors=True)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, name="ray-tune", daemon=True)
        self._thread.start()

    def _fit(self) -> None:
        request = PlacementGroupFactory([self._trials.stage.request])
        try:
            Tuner(
                tune.with_resources(train, request),
                tune_config=TuneConfig(
                    search_alg=_Limiter(self._search, self._trials.run.search.config.concurrent),
                    scheduler=_Asha(self._trials),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_name_creator=lambda trial: f"trial_{trial.trial_id}",
                    trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
                ),
                run_config=RunConfig(
                    name="search",
                    storage_path=self._scratch.name,
                    stop=self._end,
                    failure_config=FailureConfig(max_failures=LOSSES_ALLOWED),
                    verbose=0,
                ),
            ).fit()
        except BaseException as error:
            self._error = error

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def poll(self) -> list[Event]:
        error = self._search.trouble or self._error
        if error is not None:
            raise RuntimeError(f"Ray Tune ended by itself: {sentence(error)}") from error
        found = []
        while not self._search.events.empty():
            found.append(self._search.events.get())
        return found

    def abandon(self, seconds: float = 10.0) -> None:
        """End the run whatever it does."""
        self._trials.closed = True
        self._end.now.set()
        self._thread.join(seconds)
        self._scratch.cleanup()
