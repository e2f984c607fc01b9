"""The trainings of a study in Ray Tune: one run of trials that are released when their inputs are done."""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
}
os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})

from ray import tune  # noqa: E402
from ray.tune import PlacementGroupFactory, RunConfig, TuneConfig, Tuner  # noqa: E402
from ray.tune.execution import class_cache  # noqa: E402
from ray.tune.schedulers import FIFOScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402
from ray.tune.stopper import Stopper  # noqa: E402

from orchestrator.orders import Event, WorkOrder  # noqa: E402
from orchestrator.stages import Stage  # noqa: E402
from orchestrator.worker import execute, sentence, stop_marker  # noqa: E402

# Tune would hand the driver's keys to every trial in its runtime environment, which Ray writes into its logs. Each node
# has rights of its own.
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(
    {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
)

REPORT_EVERY_S = 2.0
PENDING_AT_MOST = 200


def train(config: dict[str, Any]) -> None:
    """The trainable: one training, from its last checkpoint in the ledger; exceptions end as statuses there."""
    order: WorkOrder = config["order"].content
    waiting: list[Event] = []
    sent = -REPORT_EVERY_S

    def emit(event: Event) -> None:
        nonlocal sent
        waiting.append(event)
        if event.kind != "progress" or time.monotonic() - sent >= REPORT_EVERY_S:
            tune.report({"events": Box(list(waiting))})
            waiting.clear()
            sent = time.monotonic()

    execute(order, emit, stop_marker(order.storage, order.stop_path))


class Box:
    """Carries objects through Tune's dictionaries, which it would flatten, merge, copy and print."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __deepcopy__(self, memo: dict[int, Any]) -> Box:
        return self

    def __repr__(self) -> str:
        return "..."


class _Release(Searcher):  # type: ignore[misc]
    """Suggests what was released; Tune asks it about every second while nothing runs, ten times a second otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._queue: deque[WorkOrder] = deque()
        self._live: dict[str, WorkOrder] = {}
        self._started: set[str] = set()
        self._settled: set[str] = set()
        self.closed = False
        self.while_idle: Callable[[], None] = lambda: None
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def release(self, order: WorkOrder) -> None:
        with self._lock:
            self._queue.append(order)

    def close(self) -> None:
        with self._lock:
            self.closed = True
            self._queue.clear()

    def lose_all(self, why: str) -> list[Event]:
        """Everything released comes back as lost; nothing more is taken."""
        with self._lock:
            self.closed = True
            left = [order for trial, order in self._live.items() if trial not in self._settled]
            orders = [*left, *self._queue]
            self._live.clear()
            self._queue.clear()
        return [Event("lost", order.cells[0].signature, sentence=why) for order in orders]

    def stages(self) -> list[Stage]:
        with self._lock:
            return [order.stage for order in (*self._live.values(), *self._queue)]

    def started(self) -> bool:
        """True while a trial that began has not come back."""
        with self._lock:
            return bool(self._started & self._live.keys())

    def suggest(self, trial_id: str) -> Any:
        with self._lock:
            if self._queue:
                order = self._queue.popleft()
                self._live[trial_id] = order
                return {"order": Box(order)}
            if self.closed:
                return Searcher.FINISHED
        self.while_idle()
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._take(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        with self._lock:
            order = self._live.pop(trial_id, None)
        if order is not None and trial_id not in self._settled:
            self.events.put(Event("lost", order.cells[0].signature, sentence="Ray Tune's trial ended without a result"))

    def _take(self, trial_id: str, result: dict[str, Any]) -> None:
        box = result.get("events")
        with self._lock:
            self._started.add(trial_id)
        for event in box.content if box is not None else ():
            if event.kind not in ("started", "progress"):
                self._settled.add(trial_id)
            self.events.put(event)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Release, ())  # Tune pickles its settings for a restore that is never made

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a study is resumed from the ledger, never from Tune."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: see `save`."""

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("Tune is never restored: a study resumes from the ledger, by the same command")


class _FreeIdleProcesses(FIFOScheduler):  # type: ignore[misc]
    """Hands a finished trial's process on to a waiting trial, but keeps none idle: its CPU belongs to fan-out.

    Tune has no setting for either half, hence the private names. It keeps one idle process for trials to come; and
    while no trial is left, it waits up to 600 s for the searcher without taking back the CPUs of ended processes.
    """

    def __init__(self, searcher: _Release) -> None:
        super().__init__()
        self._searcher = searcher

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        controller = getattr(tune_controller, "_tune_controller", tune_controller)
        controller._actor_cache._may_keep_one = False
        self._searcher.while_idle = lambda: _collect_ended(controller)
        return super().choose_trial_to_run(tune_controller)


def _collect_ended(controller: Any) -> None:
    if controller._live_trials:
        return
    controller._cleanup_cached_actors(force_all=True)
    while controller._actor_manager.next(timeout=0.05):
        pass


class End(Stopper):  # type: ignore[misc]
    """Ends a run of Tune whatever it does, once `now` is set."""

    def __init__(self) -> None:
        self.now = threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        return (End, ())

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.now.is_set()


class TrainingRun:
    """One run of Ray Tune in a thread of its own, alive until `finish`."""

    def __init__(self, expected: int) -> None:
        # Tune asks a searcher for one pending trial at a time unless told how many may wait for resources.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(2, min(expected, PENDING_AT_MOST)))
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        self._release = _Release()
        self._end = End()
        self._scratch = tempfile.TemporaryDirectory(prefix="orchestrator-tune-", ignore_cleanup_errors=True)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, name="ray-tune", daemon=True)
        self._thread.start()

    def _fit(self) -> None:
        def resources(config: dict[str, Any]) -> Any:
            stage = config["order"].content.stage
            return PlacementGroupFactory([stage.request])

        try:
            Tuner(
                tune.with_resources(train, resources),
                tune_config=TuneConfig(
                    search_alg=self._release,
                    scheduler=_FreeIdleProcesses(self._release),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_name_creator=lambda trial: f"trial_{trial.trial_id}",
                    trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
                ),
                run_config=RunConfig(name="trials", storage_path=self._scratch.name, stop=self._end, verbose=0),
            ).fit()
        except BaseException as error:
            self._error = error

    def release(self, order: WorkOrder) -> None:
        self._release.release(order)

    def live_stages(self) -> list[Stage]:
        """The stage of every trial that was released and has not come back."""
        return self._release.stages()

    def poll(self) -> list[Event]:
        ended = self._error  # looked at first: what it left behind is all there
        found = []
        while not self._release.events.empty():
            found.append(self._release.events.get())
        if ended is not None:
            found += self._release.lose_all(f"Ray Tune ended by itself: {sentence(ended)}")
        return found

    def running(self) -> bool:
        """True while a trial that began has not come back."""
        return self._thread.is_alive() and self._release.started()

    @property
    def closed(self) -> bool:
        """True after `finish`: this run takes no further trial."""
        return self._release.closed

    def finish(self) -> None:
        """No trial will be released any more: the run ends with those that are there."""
        self._release.close()

    def abandon(self, seconds: float = 10.0) -> None:
        """End the run whatever it does."""
        self._release.close()
        self._end.now.set()
        self._thread.join(seconds)
        self._scratch.cleanup()
