"""One thread that does jobs in order on something slow to open; an error that lasts ends it, and is said once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
Job = Callable[[T], None]

PAUSES_S = (0.2, 1.0, 3.0)


class Background(Generic[T]):
    """`do` returns at once; `drain` waits. The thread starts with the first job, and `idle` runs between jobs.

    A job that fails is done again on what is opened anew, after each of `pauses_s`: jobs have to bear repetition.
    """

    def __init__(
        self,
        open_it: Callable[[], T],
        idle: Callable[[T], None],
        failed: Callable[[Exception], None],
        idle_s: float = 5.0,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._open, self._idle, self._failed, self._idle_s = open_it, idle, failed, idle_s
        self._pauses_s = pauses_s
        self._opened: T | None = None
        self._jobs: queue.Queue[tuple[Callable[[T], None] | None, threading.Event]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self.broken = False

    @property
    def started(self) -> bool:
        return self._thread is not None

    def do(self, job: Callable[[T], None] | None) -> threading.Event:
        """Queue a job; the event is set when it was done, or given up."""
        event = threading.Event()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="background", daemon=True)
            self._thread.start()
        self._jobs.put((job, event))
        return event

    def drain(self, timeout_s: float) -> bool:
        """Wait for all jobs so far; False when they took longer than that."""
        return not self.started or self.do(None).wait(timeout_s)

    def _work(self) -> None:
        while True:
            job: Callable[[T], None] | None
            try:
                job, event = self._jobs.get(timeout=self._idle_s)
            except queue.Empty:
                job, event = self._idle, threading.Event()
            try:
                if not self.broken and job is not None:
                    self._attempt(job)
            except Exception as error:  # what fails here is a mirror: nothing may depend on it
                self.broken = True
                self._failed(error)
            finally:
                event.set()

    def _attempt(self, job: Callable[[T], None]) -> None:
        for pause_s in (*self._pauses_s, None):
            try:
                self._opened = self._open() if self._opened is None else self._opened
                job(self._opened)
                return
            except Exception:
                self._opened = None
                if pause_s is None:
                    raise
                time.sleep(pause_s)
