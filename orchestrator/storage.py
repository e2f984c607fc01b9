"""Files of the ledger, in a folder or behind a URL."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from orchestrator.local_files import LocalFiles
from orchestrator.paths import UnsafePath, check_path, local_folder
from orchestrator.redaction import redact
from orchestrator.remote import Files, PatientFiles, RemoteFiles
from orchestrator.trouble import ANSWER_PATIENCE_S, PATIENCE_S, hurry

__all__ = ["Storage", "UnsafePath", "check_path", "local_folder"]

_PROBE = "probe"
_READERS = 16
_WRITERS = 4
_CARRIED = ("endpoint_url",)
"""Options that a pickle holds: credentials are each machine's own."""

S = TypeVar("S")
T = TypeVar("T")


class Storage:
    """Files below one root, a local folder or any fsspec URL, with atomic writes; picklable, connects when first used.

    `options` go to the fsspec file system (for S3: ``endpoint_url``, ``key``, ``secret``, ...); they are never printed
    and never written, and only ``endpoint_url`` is pickled: other machines have credentials of their own. Without it
    S3 follows ``AWS_ENDPOINT_URL_S3`` and ``AWS_ENDPOINT_URL``.
    A local `root` is made absolute, so that every process means the same folder. A remote store that doesn't answer is
    asked again for `patience_s` seconds: then `trouble.StorageAway`; one that says no, `trouble.StorageRefused`.
    """

    def __init__(
        self, root: str, options: Mapping[str, Any] | None = None, patience_s: float = ANSWER_PATIENCE_S
    ) -> None:
        folder = local_folder(root)
        self.root = root if folder is None else str(folder)
        self.is_local = folder is not None
        self.options: dict[str, Any] = dict(options or {})
        self.patience_s = patience_s
        self._files: Files | None = None
        self._process = 0

    def __repr__(self) -> str:
        hidden = f", {len(self.options)} options hidden" if self.options else ""
        return f"Storage({self.shown!r}{hidden})"

    def __getstate__(self) -> dict[str, Any]:
        carried = {name: self.options[name] for name in _CARRIED if name in self.options}
        return {**self.__dict__, "options": carried, "_files": None, "_process": 0}

    @property
    def shown(self) -> str:
        """The root as people may see it."""
        return redact(self.root)

    def be_patient(self) -> None:
        """From now on wait for the store as long as a study may."""
        self.patience_s = PATIENCE_S

    def hasty(self) -> Storage:
        """The same files for questions that can wait: a store that is away is asked once."""
        return Storage(self.root, self.options, 0.0)

    @property
    def files(self) -> Files:
        """The connection of this process: a fork makes its own."""
        if self._files is None or self._process != os.getpid():
            files = LocalFiles(Path(self.root)) if self.is_local else cast(Files, self._patient())
            self._files = files
            self._process = os.getpid()
        return self._files

    def _patient(self) -> PatientFiles:
        return PatientFiles(lambda: RemoteFiles(self.root, self.options), lambda: self.patience_s, self.shown)

    def read(self, path: str) -> bytes:
        """The whole file; `FileNotFoundError` when there is none."""
        return self.files.read(check_path(path))

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Those of the files that exist, read side by side from a remote store."""

        def one(path: str) -> bytes | None:
            try:
                return self.read(path)
            except FileNotFoundError:
                return None

        wanted = list(paths)
        found = [one(path) for path in wanted] if self.is_local else _side_by_side(_READERS, one, wanted)
        return {path: data for path, data in zip(wanted, found, strict=True) if data is not None}

    def open(self, path: str) -> BinaryIO:
        """A stream on the file; `FileNotFoundError` when there is none."""
        return self.files.open(check_path(path))

    def write(self, path: str, data: bytes) -> None:
        """Put the whole file in place at once: readers see the old content or the new one."""
        self.files.write(check_path(path), data)

    def put_file(self, local: Path, path: str) -> None:
        """Copy a local file here, atomically."""
        self.files.put_file(local, check_path(path))

    def adopt(self, local: Path, path: str) -> None:
        """Move a local file here: a rename where that is possible."""
        self.files.adopt(local, check_path(path))

    def adopt_many(self, targets: Mapping[Path, str]) -> None:
        """Move local files to the paths given for them, side by side to a remote store."""
        if self.is_local or len(targets) < 2:
            for local, path in targets.items():
                self.adopt(local, path)
        else:
            _side_by_side(_WRITERS, lambda item: self.adopt(*item), list(targets.items()))

    def get_file(self, path: str, local: Path) -> None:
        """Copy a file from here to `local`."""
        self.files.get_file(check_path(path), local)

    def size(self, path: str) -> int | None:
        """Size in bytes, None when there is no such file."""
        return self.files.size(check_path(path))

    def modified(self, path: str) -> float:
        """When the file was last written, in seconds since 1970 by the store's clock."""
        return self.files.modified(check_path(path))

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return self.files.exists(check_path(path))

    def delete(self, path: str, recursive: bool = False) -> None:
        """Remove a file, or with `recursive` all below a folder; nothing happens when it is gone already."""
        if not path:
            raise UnsafePath("the root itself is never deleted")
        self.files.delete(check_path(path), recursive)

    def names(self, path: str) -> list[str]:
        """Direct children of a folder, sorted; none when there is no such folder."""
        return self.files.names(check_path(path))

    def find(self, path: str) -> dict[str, int]:
        """All files below a folder, by path from the root, with their sizes."""
        return self.files.find(check_path(path))

    def probe(self) -> None:
        """Write, read back, list and delete a small file; whatever goes wrong is raised."""
        name, content = f"{_PROBE}-{secrets.token_hex(8)}", secrets.token_bytes(16)
        self.write(f"{_PROBE}/{name}", content)
        try:
            if self.read(f"{_PROBE}/{name}") != content or name not in self.names(_PROBE):
                raise OSError("a file written a moment ago does not read back as it was written")
        finally:
            self.delete(f"{_PROBE}/{name}")

    def local_path(self, path: str) -> Path | None:
        """Where the file lies on this machine, None for remote stores."""
        checked = check_path(path)
        return Path(self.root) / checked if self.is_local else None


def _side_by_side(threads: int, work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """`work` on each of `items` in threads; an interrupt doesn't wait for a store that is away."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            return list(pool.map(work, items))
        except KeyboardInterrupt:
            hurry()
            raise
