"""Where and by what a result was computed: facts for people, never part of a signature."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

UNKNOWN = "unknown"
_CHECKOUT = Path(__file__).resolve().parents[1]


def utc_now() -> str:
    """This moment in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=1)
def process_facts() -> dict[str, str]:
    """Host, Python, commit, lock file and CPU of this process; asked once."""
    commit, dirty = _commit()
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "commit": commit,
        "dirty": dirty,
        "lock": _lock_hash(),
        "cpu": _cpu_model(),
    }


def provenance(started: str) -> dict[str, str]:
    """Facts of this process with the threads it has now, and when it started and finished."""
    return {**process_facts(), "threads": str(_threads()), "started": started, "finished": utc_now()}


def _commit() -> tuple[str, str]:
    """Commit and whether files differ from it; nodes that run a copy are told in ``ORCHESTRATOR_COMMIT``."""
    told = os.environ.get("ORCHESTRATOR_COMMIT")
    if told:
        return told.removesuffix("+dirty"), str(told.endswith("+dirty")).lower()
    if not (_CHECKOUT / "pyproject.toml").exists():
        return UNKNOWN, UNKNOWN
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD").split()
        if Path(top).resolve() != _CHECKOUT:
            return UNKNOWN, UNKNOWN
        return commit, str(bool(_git("status", "--porcelain").strip())).lower()
    except (OSError, ValueError, subprocess.SubprocessError):
        return UNKNOWN, UNKNOWN


def _git(*words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(_CHECKOUT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


def _lock_hash() -> str:
    try:
        return hashlib.sha256((_CHECKOUT / "requirements.lock").read_bytes()).hexdigest()
    except OSError:
        return UNKNOWN


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or UNKNOWN


def _threads() -> int:
    from threadpoolctl import threadpool_info

    return max((int(pool["num_threads"]) for pool in threadpool_info()), default=1)
