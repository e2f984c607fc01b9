"""Files of the ledger, in a folder or behind a URL: the only room that knows fsspec, s3fs."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from orchestrator.local_files import LocalFiles
from orchestrator.paths import UnsafePath, check_path, local_folder
from orchestrator.redaction import redact
from orchestrator.trouble import ANSWER_PATIENCE_S, PATIENCE_S, patiently, refusal

__all__ = ["Storage", "UnsafePath", "check_path", "connect", "local_folder"]

_PROBE = "probe"
_READERS = 16
_WRITERS = 4


class _Files(Protocol):
    """What `Storage` asks of a folder and of an fsspec file system alike; paths are checked and relative."""

    def read(self, path: str) -> bytes: ...
    def open(self, path: str) -> BinaryIO: ...
    def write(self, path: str, data: bytes) -> None: ...
    def put_file(self, local: Path, path: str) -> None: ...
    def adopt(self, local: Path, path: str) -> None: ...
    def get_file(self, path: str, local: Path) -> None: ...
    def size(self, path: str) -> int | None: ...
    def modified(self, path: str) -> float: ...
    def exists(self, path: str) -> bool: ...
    def delete(self, path: str, recursive: bool) -> None: ...
    def names(self, path: str) -> list[str]: ...
    def find(self, path: str) -> dict[str, int]: ...


class Storage:
    """Files below one root, a local folder or any fsspec URL, with atomic writes; picklable, connects when first used.

    `options` go to the fsspec file system (for S3: ``endpoint_url``, ``key``, ``secret``, ...); they are never printed
    and never written. Without ``endpoint_url`` S3 follows ``AWS_ENDPOINT_URL_S3`` and ``AWS_ENDPOINT_URL``.
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
        self._files: _Files | None = None
        self._process = 0

    def __repr__(self) -> str:
        hidden = f", {len(self.options)} options hidden" if self.options else ""
        return f"Storage({self.shown!r}{hidden})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": None, "_process": 0}

    @property
    def shown(self) -> str:
        """The root as people may see it."""
        return redact(self.root)

    def be_patient(self) -> None:
        """From now on wait for the store as long as a study may."""
        self.patience_s = PATIENCE_S

    @property
    def files(self) -> _Files:
        """The connection of this process: a fork makes its own."""
        if self._files is None or self._process != os.getpid():
            self._files = LocalFiles(Path(self.root)) if self.is_local else cast(_Files, _PatientFiles(self))
            self._process = os.getpid()
        return self._files

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
        if self.is_local:
            found = [one(path) for path in wanted]
        else:
            with ThreadPoolExecutor(_READERS) as pool:
                found = list(pool.map(one, wanted))
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
            with ThreadPoolExecutor(_WRITERS) as pool:
                list(pool.map(self.adopt, targets.keys(), targets.values()))

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


class _PatientFiles:
    """The methods of `_RemoteFiles`, each tried again while the store of `storage` is away; all bear repetition."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._remote: _RemoteFiles | None = None

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any) -> Any:
            storage = self._storage
            return patiently(lambda: getattr(self._connected(), name)(*values), storage.patience_s, storage.shown)

        return call

    def _connected(self) -> _RemoteFiles:
        if self._remote is None:
            self._remote = _RemoteFiles(self._storage.root, self._storage.options)
        return self._remote


class _RemoteFiles:
    """Files of one fsspec file system below a prefix."""

    def __init__(self, root: str, options: Mapping[str, Any]) -> None:
        self.fs, base = connect(root, options, fresh=True)
        self.base = base.rstrip("/")
        self.in_one_request = {"max_concurrency": 1} if "s3" in self.fs.protocol else {}

    def at(self, path: str) -> str:
        return f"{self.base}/{path}" if path else self.base

    def read(self, path: str) -> bytes:
        return cast(bytes, self.fs.cat_file(self.at(path), **self.in_one_request))

    def open(self, path: str) -> BinaryIO:
        return cast(BinaryIO, self.fs.open(self.at(path), "rb"))

    def write(self, path: str, data: bytes) -> None:
        self.fs.pipe_file(self.at(path), data)

    def put_file(self, local: Path, path: str) -> None:
        self.fs.put_file(str(local), self.at(path))

    def adopt(self, local: Path, path: str) -> None:
        self.put_file(local, path)
        local.unlink(missing_ok=True)

    def get_file(self, path: str, local: Path) -> None:
        self.fs.get_file(self.at(path), str(local))

    def size(self, path: str) -> int | None:
        try:
            info = self.fs.info(self.at(path))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def modified(self, path: str) -> float:
        return float(self.fs.modified(self.at(path)).timestamp())

    def exists(self, path: str) -> bool:
        return bool(self.fs.exists(self.at(path)))

    def delete(self, path: str, recursive: bool) -> None:
        try:
            if recursive:
                self.fs.rm(self.at(path), recursive=True)
            else:
                self.fs.rm_file(self.at(path))
        except FileNotFoundError:
            return

    def names(self, path: str) -> list[str]:
        try:
            found = self.fs.ls(self.at(path), detail=False)
        except (FileNotFoundError, NotADirectoryError) as error:
            if refusal(error) is not None:  # it is the bucket that is missing
                raise
            return []
        inside = {name.rstrip("/")[len(self.at(path)) + 1 :] for name in found}
        return sorted(name for name in inside if name and not name.startswith("."))

    def find(self, path: str) -> dict[str, int]:
        found = self.fs.find(self.at(path), detail=True, withdirs=False)
        start = len(self.base) + 1
        return {name[start:]: int(info["size"]) for name, info in found.items() if name != self.at(path)}


def connect(url: str, options: Mapping[str, Any], fresh: bool = False) -> tuple[Any, str]:
    """The fsspec file system of `url` and the path in it; listings are never cached, for others write there too."""
    from fsspec.core import url_to_fs

    settings: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": fresh, **options}
    is_s3 = url.startswith(("s3://", "s3a://"))
    if is_s3:
        logging.getLogger("aiobotocore.credentials").setLevel(logging.CRITICAL)  # what it would print is raised, too
        settings = _s3_settings(settings)
    else:
        settings.pop("endpoint_url", None)
    fs, path = url_to_fs(url, **settings)
    if is_s3:
        fs.retries = 1  # `patiently` does that, and knows which errors are worth it
    return fs, str(path)


def _s3_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Endpoint from the settings or the environment; other stores than AWS know their buckets by path."""
    found = dict(settings)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_url" not in found.get("client_kwargs", {}):
        found.setdefault("endpoint_url", endpoint)
    limits: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}}
    if found.get("endpoint_url"):
        limits["s3"] = {"addressing_style": "path"}
    found["config_kwargs"] = {**limits, **found.get("config_kwargs", {})}
    return found
