"""Which drivers are alive: advice that saves work, never what guards a result."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator.paths import check_name
from orchestrator.provenance import utc_now
from orchestrator.status import dump
from orchestrator.storage import Storage

_FOLDER = "drivers"
_CLOCK = "clock"
FORGOTTEN_AFTER_S = 86_400.0


def beat(storage: Storage, driver: str, study: str = "", claims: Iterable[str] = ()) -> None:
    """Say that this process is alive, drives `study` under the id `driver`, and has the cells `claims` in hand."""
    record = {"host": machine(), "pid": os.getpid(), "start": started(os.getpid()), "beat": utc_now()}
    storage.write(f"{_FOLDER}/{check_name(driver)}.json", dump({**record, "study": study, "claims": sorted(claims)}))


def leave(storage: Storage, driver: str) -> None:
    """Say that this driver ended in order."""
    storage.delete(f"{_FOLDER}/{check_name(driver)}.json")


def alive(storage: Storage, max_age_s: float) -> set[str]:
    """Drivers whose last beat is young by the store's clock, and which, on this machine, still are the same process."""
    now = _now(storage)
    return {name for name in _named(storage) if _is_alive(storage, name, now, max_age_s)}


@dataclass(frozen=True)
class Peer:
    """Another driver that is alive: what it drives, and the cells it has in hand."""

    study: str
    claims: frozenset[str]


def peers(storage: Storage, driver: str, max_age_s: float) -> dict[str, Peer]:
    """All other drivers alive, by id."""
    others = [name for name in _named(storage) if name != driver]
    now = _now(storage) if others else 0.0
    records = {name: _record(storage, name, now, max_age_s) for name in others}
    return {
        name: Peer(str(record.get("study", "")), frozenset(str(claim) for claim in record.get("claims", ())))
        for name, record in records.items()
        if record is not None
    }


def clear_dead(storage: Storage) -> None:
    """Remove what drivers left here that were killed: on this machine, or anywhere `FORGOTTEN_AFTER_S` ago."""
    now = _now(storage)
    for name in _named(storage):
        if not _is_alive(storage, name, now, FORGOTTEN_AFTER_S):
            storage.delete(f"{_FOLDER}/{name}.stop")
            storage.delete(f"{_FOLDER}/{name}.json")


def _named(storage: Storage) -> list[str]:
    return [name.removesuffix(".json") for name in storage.names(_FOLDER) if name.endswith(".json")]


def _is_alive(storage: Storage, name: str, now: float, max_age_s: float) -> bool:
    return _record(storage, name, now, max_age_s) is not None


def _record(storage: Storage, name: str, now: float, max_age_s: float) -> dict[str, Any] | None:
    """What a driver said last, None when it is dead."""
    path = f"{_FOLDER}/{name}.json"
    try:
        record: dict[str, Any] = json.loads(storage.read(path))
        if now - storage.modified(path) > max_age_s:
            return None
        alive = record["host"] != machine() or started(int(record["pid"])) == record["start"]
        return record if alive else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _now(storage: Storage) -> float:
    """The store's clock, read off a file written just now; this machine's where nothing may be written."""
    try:
        storage.write(f"{_FOLDER}/{_CLOCK}", b"")
        return storage.modified(f"{_FOLDER}/{_CLOCK}")
    except OSError:
        return time.time()


@lru_cache(maxsize=1)
def machine() -> str:
    """Host name, boot and process namespace: equal only where process ids mean the same."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        pass
    return " ".join(parts)


def started(pid: int) -> str | None:
    """When a process of this machine started, in its own notation; None when there is no such process any more."""
    if platform.system() != "Linux":
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return found.stdout.strip() or None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
