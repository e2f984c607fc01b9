"""Who computes what when several drivers share a ledger: advice that saves work; a result never depends on it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from orchestrator.drivers import Peer
from orchestrator.graph import Graph
from orchestrator.ledger import Ledger
from orchestrator.mirror import digest
from orchestrator.ready import Task

HEARTBEAT_S = 10.0
EXPIRES_S = 60.0
"""A driver that was silent for so long, by the store's clock, is dead, and its claims are void."""

LOOK_S = 1.0
"""No more than one beat of the thread in this time."""

GLANCE_S = 0.2
"""What was seen of others so lately is true enough to start something."""

WAITING_S = 1.5
"""How often to look while others have in hand what this driver waits for."""

LAST_BEAT_S = 5.0


class Claims:
    """The heartbeat of one driver: says what it has in hand, and knows what others have.

    Others' claims are read with every beat, and before something is started while others are alive: so two drivers
    compute twice at most what was begun within one beat.
    """

    def __init__(self, ledger: Ledger, driver: str, graph: Graph) -> None:
        self._ledger, self._driver = ledger, driver
        self._study = digest(sorted(graph.cells))
        self._mine: set[str] = set()
        self._peers: Mapping[str, Peer] = {}
        self._lock, self._beating = threading.Lock(), threading.Lock()
        self._changed, self._ended = threading.Event(), threading.Event()
        self._looked_at = -GLANCE_S
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def start(self) -> None:
        """The first beat and look, then a thread of its own."""
        with suppress(Exception):
            self._ledger.heartbeat(self._driver, self._study)
        self._look()
        self._thread.start()

    def close(self) -> None:
        """Say that this driver ended in order."""
        self._ended.set()
        self._changed.set()
        if self._thread.ident is not None:
            self._thread.join(LAST_BEAT_S)
        with suppress(Exception):  # the file of a driver that is gone is removed by the next one
            self._ledger.leave(self._driver)

    def take(self, signatures: Iterable[str]) -> None:
        """Claim cells that are about to start; while others are alive, they can read it when this returns."""
        with self._lock:
            self._mine.update(signatures)
        if self._peers:
            self._beat()
        else:
            self._changed.set()

    def drop(self, signature: str) -> None:
        """It came to an end."""
        with self._lock:
            self._mine.discard(signature)
        self._changed.set()

    @property
    def shared(self) -> bool:
        """True while another driver is alive."""
        return bool(self._peers)

    def refresh(self, age_s: float = GLANCE_S) -> None:
        """Look again what others have in hand, unless that was done less than `age_s` ago."""
        if self._peers and time.monotonic() - self._looked_at >= age_s:
            self._look()

    def elsewhere(self, signature: str) -> str | None:
        """The living driver that has a cell in hand."""
        return next((name for name, peer in self._peers.items() if signature in peer.claims), None)

    def free(self, task: Task) -> Task | None:
        """The part of a task that nobody else has in hand, by a look of just now; None when there is none."""
        if self._free(task) is None:
            return None
        self.refresh()
        return self._free(task)

    def waited_for(self, tasks: Iterable[Task]) -> dict[str, int]:
        """How many cells of `tasks` each other driver has in hand; empty while this one has any itself."""
        with self._lock:
            if self._mine or not self._peers:
                return {}
        theirs = [self.elsewhere(spec.signature) for task in tasks for spec in task.cells]
        return dict(Counter(name for name in theirs if name is not None))

    def _free(self, task: Task) -> Task | None:
        cells = tuple(spec for spec in task.cells if self.elsewhere(spec.signature) is None)
        if len(cells) == len(task.cells):
            return task
        return replace(task, cells=cells) if cells else None

    def in_order(self, tasks: Iterable[Task]) -> Iterable[Task]:
        """Trainings first, and of each kind first this driver's own share of the study: the others begin elsewhere."""
        names = sorted([self._driver, *(name for name, peer in self._peers.items() if peer.study == self._study)])
        if len(names) < 2:
            return tasks
        rank, count = names.index(self._driver), len(names)
        return sorted(tasks, key=lambda task: (not task.stage.training, _share(task, count) != rank))

    def _beat_on(self) -> None:
        while not self._ended.is_set():
            self._changed.wait(HEARTBEAT_S)
            self._changed.clear()
            self._beat()
            self._look()
            self._ended.wait(LOOK_S)

    def _beat(self) -> None:
        with self._beating, suppress(Exception):  # without a beat two drivers may do the same work twice
            with self._lock:
                mine = set(self._mine)
            self._ledger.heartbeat(self._driver, self._study, mine)

    def _look(self) -> None:
        with suppress(Exception):
            self._peers = self._ledger.peers(self._driver, EXPIRES_S)
        self._looked_at = time.monotonic()


def _share(task: Task, count: int) -> int:
    return int(task.cells[0].signature[:8], 16) % count
