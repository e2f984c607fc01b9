"""Ctrl-C and SIGTERM: an answer at once, time to write checkpoints, and a second one that leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

from orchestrator import trouble

ANSWER = b"\nstopping: checkpoints are being written; again to leave at once\n"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Set by the first signal; `signum` says which it was; the second ends the process."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def is_set(self) -> bool:
        return self.signum is not None

    def listen(self) -> None:
        """Take the signals over; outside the main thread they stay with whoever has them."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.is_set():
            os._exit(128 + signum)
        self.signum = signum
        os.write(2, ANSWER)
        trouble.hurry()


_OUTER: ContextVar[StopFlag | None] = ContextVar("outer", default=None)
"""The flag of the block that runs; each thread has its own."""


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """A flag that SIGINT and SIGTERM set while the block runs; a block within a block has the outer one's."""
    outer = _OUTER.get()
    if outer is not None:
        yield outer
        return
    flag = StopFlag()
    trouble.calm()
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    entered = _OUTER.set(flag)
    flag.listen()
    try:
        yield flag
    finally:
        _OUTER.reset(entered)
        if threading.current_thread() is threading.main_thread():
            for signum, handler in before.items():
                signal.signal(signum, handler)
