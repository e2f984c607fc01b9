"""One thread that does jobs in order on something slow to open, which may be away for as long as it likes."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from typing import Generic, Protocol, TypeVar

from orchestrator import trouble

T = TypeVar("T")
Job = Callable[[T], None]

PAUSES_S = (0.2, 1.0, 3.0)
LONGEST_PAUSE_S, PAUSE_AT_THE_END_S = 30.0, 2.0
LOOK_S = 0.5


class Trouble(Enum):
    """What an error means for the job that met it."""

    AWAY = "it is done again until it works, however long that takes"
    REFUSED = "it will never work, nor will any other"
    UNCLEAR = "it is done again a few times"


class Listener(Protocol):
    """Is told how it goes, in the thread: `failed` is the end of all jobs."""

    def judge(self, error: Exception) -> Trouble: ...
    def away(self, error: Exception) -> None: ...
    def back(self) -> None: ...
    def failed(self, error: Exception) -> None: ...


class Background(Generic[T]):
    """`do` returns at once; `drain` waits. The thread starts with the first job, and `idle` runs between jobs.

    A job that fails is done again on what is opened anew: jobs have to bear repetition. That something is away is told
    after as many failures as there are `pauses_s`; the jobs that wait meanwhile are kept by key, the last of each.
    """

    def __init__(
        self,
        open_it: Callable[[], T],
        idle: Job[T],
        listener: Listener,
        idle_s: float = 5.0,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._open, self._idle, self._listener, self._idle_s = open_it, idle, listener, idle_s
        self._pauses_s = pauses_s
        self._opened: T | None = None
        self._waiting: dict[Hashable, Job[T]] = {}
        self._busy: Hashable | None = None
        self._news = threading.Condition()
        self._draining = False
        self._done_at = 0.0
        self._thread: threading.Thread | None = None
        self.broken = False

    @property
    def started(self) -> bool:
        return self._thread is not None

    def do(self, job: Job[T], key: Hashable | None = None) -> None:
        """Queue a job, in the place of one of the same key that still waits."""
        with self._news:
            if self.broken:
                return
            self._waiting[object() if key is None else key] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="background", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def left(self) -> list[Hashable]:
        """Keys of the jobs that are not done."""
        with self._news:
            return [*([] if self._busy is None else [self._busy]), *self._waiting]

    def drain(self, stalled_s: float, at_most_s: float = math.inf) -> bool:
        """Wait for all jobs; False when none was finished for `stalled_s`, or some are left after `at_most_s`.

        A stop that comes while this waits ends the waiting.
        """
        asked_before = trouble.hurried()
        with self._news:
            began = self._done_at = time.monotonic()
            self._draining = True
            self._news.notify_all()
            try:
                while self._waiting or self._busy is not None:
                    until = min(self._done_at + stalled_s, began + at_most_s)
                    if time.monotonic() >= until or (trouble.hurried() and not asked_before):
                        return False
                    self._news.wait(min(LOOK_S, until - time.monotonic()))
                return True
            finally:
                self._draining = False

    def _work(self) -> None:
        while True:
            job = self._next()
            try:
                self._attempt(job)
            except Exception as error:  # what fails here is a mirror: nothing may depend on it
                with self._news:
                    self.broken = True
                    self._waiting.clear()
                self._listener.failed(error)
            with self._news:
                self._busy, self._done_at = None, time.monotonic()
                self._news.notify_all()

    def _next(self) -> Job[T]:
        with self._news:
            if not self._news.wait_for(lambda: bool(self._waiting), None if self.broken else self._idle_s):
                self._busy = "idle"
                return self._idle
            self._busy = next(iter(self._waiting))
            return self._waiting.pop(self._busy)

    def _attempt(self, job: Job[T]) -> None:
        failures = 0
        while True:
            try:
                self._opened = self._open() if self._opened is None else self._opened
                job(self._opened)
            except Exception as error:
                self._opened = None
                failures += 1
                trouble = self._listener.judge(error)
                if trouble is Trouble.REFUSED or (trouble is Trouble.UNCLEAR and failures > len(self._pauses_s)):
                    raise
                if trouble is Trouble.AWAY and failures == len(self._pauses_s):
                    self._listener.away(error)
                self._pause(failures)
            else:
                if failures >= len(self._pauses_s):
                    self._listener.back()
                return

    def _pause(self, failures: int) -> None:
        """Longer from time to time; short once somebody waits for the end."""
        known = failures <= len(self._pauses_s)
        pause_s = self._pauses_s[failures - 1] if known else min(2.0 ** (failures - 1), LONGEST_PAUSE_S)
        pause_s *= 1.0 if known else random.uniform(0.5, 1.0)
        until = time.monotonic() + pause_s
        with self._news:
            self._news.wait_for(lambda: self._draining, pause_s)
            shortened = min(until - time.monotonic(), PAUSE_AT_THE_END_S)
        if shortened > 0:
            time.sleep(shortened)
