"""A bounded folder on this node for files that were fetched from elsewhere, shared by all its processes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from orchestrator.local_files import temporary_beside

DEFAULT_LIMIT_BYTES = 4 * 2**30


def default_folder() -> Path:
    """A folder of this user in the temporary folder; a name that somebody else took is not used."""
    folder = Path(tempfile.gettempdir()) / f"noise-level-orchestrator-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="noise-level-orchestrator-"))


class NodeCache:
    """Files by key; the least recently opened ones go when all together pass the limit."""

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def open(self, key: str, fetch: Callable[[Path], None]) -> BinaryIO:
        """The file of `key`, fetched once per node: other processes that want it wait for the one that fetches."""
        name = hashlib.sha256(key.encode()).hexdigest()
        found = self._open(name)
        if found is not None:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".lock-{name[:2]}").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = self._open(name)
            if found is None:
                found = self._fetch(name, fetch)
        return found

    def forget(self, key: str) -> None:
        """Drop a file that turned out to be damaged."""
        (self.folder / hashlib.sha256(key.encode()).hexdigest()).unlink(missing_ok=True)

    def _open(self, name: str) -> BinaryIO | None:
        try:
            stream = (self.folder / name).open("rb")
            os.utime(self.folder / name)
        except FileNotFoundError:
            return None
        return stream

    def _fetch(self, name: str, fetch: Callable[[Path], None]) -> BinaryIO:
        part = temporary_beside(self.folder / name)
        try:
            fetch(part)
            stream = part.open("rb")
            part.replace(self.folder / name)
        finally:
            part.unlink(missing_ok=True)
        self._shrink(keep=name)
        return stream

    def _shrink(self, keep: str) -> None:
        files = []
        for entry in os.scandir(self.folder):
            if not entry.name.startswith(".") and entry.is_file():
                about = entry.stat()
                files.append((about.st_mtime_ns, about.st_size, entry.name))
        total = sum(size for _, size, _ in files)
        for _, size, name in sorted(files):
            if total > self.limit_bytes and name != keep:
                (self.folder / name).unlink(missing_ok=True)
                total -= size
