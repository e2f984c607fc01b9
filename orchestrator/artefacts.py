"""Reading results back: every file is checked against its size and SHA-256 before it is believed."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from orchestrator.attempts import cell_path
from orchestrator.node_cache import NodeCache
from orchestrator.reasons import SENTENCES, Reason
from orchestrator.status import FileRecord, Status
from orchestrator.storage import Storage

_HASHERS = 2
_BLOCK_BYTES = 2**20
_verified: dict[tuple[str, int, int], str] = {}
_verified_in_cache: set[tuple[Path, str]] = set()


class CorruptArtefact(Exception):
    """A result that is not what was published: the cell (stage, signature) must be computed again."""

    def __init__(self, stage: str, signature: str, file: str, reason: Reason) -> None:
        super().__init__(stage, signature, file, reason)
        self.stage, self.signature, self.file, self.reason = stage, signature, file, reason

    def __str__(self) -> str:
        return f"{self.stage} {self.signature[:12]}, {self.file}: {SENTENCES[self.reason]}. It is computed again."


def digest_of(stream: BinaryIO) -> str:
    """SHA-256 (hex) of what is left to read in a stream."""
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def sha256_of(path: Path, trust_known: bool = True) -> str:
    """SHA-256 of a local file; with `trust_known` asked once for each (path, size, modification time)."""
    about = path.stat()
    key = (str(path), about.st_size, about.st_mtime_ns)
    if not (trust_known and key in _verified):
        with path.open("rb") as stream:
            _verified[key] = digest_of(stream)
    return _verified[key]


@dataclass(frozen=True)
class OpenVerified:
    """Opens the files of one result by name; picklable."""

    storage: Storage
    status: Status
    cache: Path | None

    def __call__(self, name: str) -> BinaryIO:
        """The file `name`; `CorruptArtefact` when it is not what was published, `FileNotFoundError` if it never was."""
        record = self.status.files.get(name)
        if record is None:
            there = ", ".join(sorted(self.status.files)) or "none"
            raise FileNotFoundError(f"{self._cell} has no file {name!r}. Its files are: {there}.")
        path = cell_path(self.status.stage, self.status.signature, "attempts", self.status.attempt, "out", name)
        local = self.storage.local_path(path)
        try:
            if local is not None:
                return self._open_local(local, name, record)
            return self._open_remote(path, name, record)
        except FileNotFoundError as error:
            raise self._corrupt(name, Reason.FILE_MISSING) from error

    @property
    def _cell(self) -> str:
        return f"{self.status.stage} {self.status.signature[:12]}"

    def _open_local(self, path: Path, name: str, record: FileRecord) -> BinaryIO:
        if path.stat().st_size != record.size:
            raise self._corrupt(name, Reason.SIZE_MISMATCH)
        if sha256_of(path) != record.sha256:
            raise self._corrupt(name, Reason.CHECKSUM_MISMATCH)
        return path.open("rb")

    def _open_remote(self, path: str, name: str, record: FileRecord) -> BinaryIO:
        if self.cache is None:
            data = self.storage.read(path)
            self._check(name, record, len(data), hashlib.sha256(data).hexdigest())
            return BytesIO(data)
        cache = NodeCache(self.cache)
        stream = cache.open(record.sha256, lambda part: self._fetch(path, name, record, part))
        known = (self.cache, record.sha256)
        if known not in _verified_in_cache and digest_of(stream) != record.sha256:
            stream.close()
            cache.forget(record.sha256)
            stream = cache.open(record.sha256, lambda part: self._fetch(path, name, record, part))
        _verified_in_cache.add(known)
        stream.seek(0)
        return stream

    def _fetch(self, path: str, name: str, record: FileRecord, part: Path) -> None:
        self.storage.get_file(path, part)
        with part.open("rb") as stream:
            digest = digest_of(stream)
        self._check(name, record, part.stat().st_size, digest)
        assert self.cache is not None
        _verified_in_cache.add((self.cache, record.sha256))

    def _check(self, name: str, record: FileRecord, size: int, digest: str) -> None:
        if size != record.size:
            raise self._corrupt(name, Reason.SIZE_MISMATCH)
        if digest != record.sha256:
            raise self._corrupt(name, Reason.CHECKSUM_MISMATCH)

    def _corrupt(self, name: str, reason: Reason) -> CorruptArtefact:
        return CorruptArtefact(self.status.stage, self.status.signature, name, reason)


def wrong_contents(storage: Storage, statuses: list[Status]) -> set[str]:
    """Signatures of local results with a file whose content is not what was published; all files are hashed."""

    def wrong(task: tuple[Status, str, FileRecord]) -> str | None:
        status, name, record = task
        path = storage.local_path(cell_path(status.stage, status.signature, "attempts", status.attempt, "out", name))
        assert path is not None
        try:
            return None if sha256_of(path, trust_known=False) == record.sha256 else status.signature
        except OSError:
            return status.signature

    tasks = [(status, name, record) for status in statuses for name, record in status.files.items()]
    with ThreadPoolExecutor(_HASHERS) as pool:
        return {signature for signature in pool.map(wrong, tasks, chunksize=16) if signature}
