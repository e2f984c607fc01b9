"""A TCP proxy on loopback that can be cut and mended: a store that goes away and comes back with all it held."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit


class ShakyProxy:
    """Passes bytes on to `target` while it is up; cut, it resets what is open and refuses what comes.

    Silent, it takes everything and says nothing.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", int(parts.port or 80))
        self._open: list[socket.socket] = []
        self._listening: socket.socket | None = None
        self._cut_after: int | None = None
        self._away_s = 0.0
        self._bytes_left: int | None = None
        self.silent = False
        self.port = 0
        self.mend()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def mend(self) -> None:
        """Listen again, at the same port."""
        if self._listening is not None:
            return
        self._cut_after = self._bytes_left = None
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(64)
        self.port = listening.getsockname()[1]
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        listening, self._listening = self._listening, None
        if listening is not None:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        _break(*self._open)
        self._open = []

    def cut_after(self, requests: int, away_s: float) -> None:
        """Cut in the midst of the request after that many more, and mend `away_s` later."""
        self._cut_after, self._away_s = requests, away_s

    def break_off_after(self, n_bytes: int) -> None:
        """Break the connection, once, in the midst of an answer after that many bytes."""
        self._bytes_left = n_bytes

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                near, _ = listening.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            self._open += [near, far]
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: Any, sink: Any, outward: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if (
                    outward
                    and self._cut_after is not None
                    and data[:4] in (b"PUT ", b"GET ", b"HEAD", b"POST", b"DELE")
                ):
                    self._cut_after -= 1
                    if self._cut_after < 0:
                        self._cut_after = None
                        self.cut()
                        timer = threading.Timer(self._away_s, self.mend)
                        timer.daemon = True
                        timer.start()
                        return
                if not outward and self._bytes_left is not None:
                    self._bytes_left -= len(data)
                    if self._bytes_left < 0:
                        self._bytes_left = None
                        _break(source, sink)
                        return
                if not self.silent:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def _break(*connections: socket.socket) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def later(seconds: float, act: Callable[[], Any]) -> None:
    """Call `act` after a while, beside what the test does."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
