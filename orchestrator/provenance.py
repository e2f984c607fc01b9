"""Where and by what a result was computed: facts for people, never part of a signature."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

UNKNOWN = "unknown"
NOTE = ".commit"
"""A file beside the code where git is not: the commit, and the code that it is true of."""

RESUME = "ORCHESTRATOR_RESUME"
"""Where a driver that a job started finds the command that goes on with its work."""

_CHECKOUT = Path(__file__).resolve().parents[1]
_CODE = ("orchestrator", "tasks")


def utc_now() -> str:
    """This moment in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=1)
def process_facts() -> dict[str, str]:
    """Host, Python, commit, code, installed lock and CPU of this process; asked once."""
    commit, dirty = _commit()
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "commit": commit,
        "dirty": dirty,
        "source": source_hash(_CHECKOUT),
        "lock": installed_lock() or lock_hash(),
        "cpu": _cpu_model(),
    }


def provenance(started: str) -> dict[str, str]:
    """Facts of this process with the threads it has now, and when it started and finished."""
    return {**process_facts(), "threads": str(_threads()), "started": started, "finished": utc_now()}


def _commit() -> tuple[str, str]:
    """Commit and whether files differ from it; a copy is told, by ``ORCHESTRATOR_COMMIT`` or by its `NOTE`."""
    told = os.environ.get("ORCHESTRATOR_COMMIT")
    if told:
        return told.removesuffix("+dirty"), str(told.endswith("+dirty")).lower()
    if not (_CHECKOUT / "pyproject.toml").exists():
        return UNKNOWN, UNKNOWN
    return _noted(_CHECKOUT) or _asked_of_git()


def _asked_of_git() -> tuple[str, str]:
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD").split()
        if Path(top).resolve() != _CHECKOUT:
            return UNKNOWN, UNKNOWN
        return commit, str(bool(_git("status", "--porcelain").strip())).lower()
    except (OSError, ValueError, subprocess.SubprocessError):
        return UNKNOWN, UNKNOWN


def note() -> str:
    """What `NOTE` has to say of this checkout: commit, "+dirty" where files differ from it, hash of the code."""
    commit, dirty = _asked_of_git()
    return f"{commit}{'+dirty' if dirty == 'true' else ''} {source_hash(_CHECKOUT)}"


def _noted(checkout: Path) -> tuple[str, str] | None:
    """Commit and dirtiness by the note in a copy of the code without git; a note of other code says nothing."""
    try:
        commit, source = (checkout / NOTE).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    if (checkout / ".git").exists() or source != source_hash(checkout):
        return None
    return commit.removesuffix("+dirty"), str(commit.endswith("+dirty")).lower()


def source_hash(checkout: Path) -> str:
    """BLAKE2b-128 of all files of the two packages, by name and content: equal on nodes that run the same code."""
    state = hashlib.blake2b(digest_size=16)
    files = [file for package in _CODE for file in (checkout / package).rglob("*") if file.suffix in (".py", ".html")]
    for file in sorted(files):
        data = file.read_bytes()
        state.update(f"{file.relative_to(checkout).as_posix()} {len(data)} ".encode() + data)
    return state.hexdigest()


def _git(*words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(_CHECKOUT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


def installed_lock() -> str | None:
    """SHA-256 of the lock that this environment was installed from, where the Makefile noted it."""
    try:
        noted = (Path(sys.prefix) / ".ready").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return noted if len(noted) == 64 else None


def lock_hash() -> str:
    """SHA-256 of the lock that lies beside this code; another one may be installed."""
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
