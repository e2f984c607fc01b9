"""Checkpoints of trainings in the ledger, where any node finds them."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.paths import check_path
from orchestrator.status import dump
from orchestrator.storage import Storage

KEPT = 2
_DAMAGED = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True)
class LedgerCheckpoints:
    """The last two checkpoints below `base`; each counts only once its list of checksums lies beside it.

    Every one has a folder of its own, so that two processes at one cell never mix theirs.
    """

    storage: Storage
    base: str
    scratch: Path

    def latest(self) -> tuple[int, Path] | None:
        """Step and own copy of the last whole checkpoint; damaged ones are dropped in favour of the one before."""
        for name in reversed(self._names()):
            folder = self._whole(name)
            if folder is not None:
                return _step(name), folder
            self.storage.delete(f"{self.base}/{name}", recursive=True)
        return None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Call `write` on an empty local folder and keep what it put there; older ones but one go."""
        near = self.storage.local_path(self.base) or self.scratch
        near.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".saving-", dir=near))
        name = f"{step:012d}-{secrets.token_hex(4)}"
        try:
            write(folder)
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            marker = {str(file.relative_to(folder)): _record(file) for file in files}
            for file in files:
                self.storage.adopt(file, f"{self.base}/{name}/files/{file.relative_to(folder).as_posix()}")
            self.storage.write(f"{self.base}/{name}/complete.json", dump(marker))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for old in [other for other in self._names() if other != name][: -(KEPT - 1)]:
            self.storage.delete(f"{self.base}/{old}", recursive=True)

    def _names(self) -> list[str]:
        """All checkpoints, whole or not, by step."""
        return sorted(name for name in self.storage.names(self.base) if name.partition("-")[0].isdecimal())

    def _whole(self, name: str) -> Path | None:
        """A copy in `scratch`, None when the checkpoint is damaged; a store that is away is no damage."""
        try:
            marker = json.loads(self.storage.read(f"{self.base}/{name}/complete.json"))
            folder = self._copy(name, list(marker))
            return folder if all(_record(folder / file) == record for file, record in marker.items()) else None
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return None

    def _copy(self, name: str, files: list[str]) -> Path:
        """In the ledger another driver at the same cell may remove it at any time."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"checkpoint-{_step(name)}-", dir=self.scratch))
        for file in map(check_path, files):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            self.storage.get_file(f"{self.base}/{name}/files/{file}", folder / file)
        return folder


def _step(name: str) -> int:
    return int(name.partition("-")[0])


def _record(file: Path) -> dict[str, int | str]:
    with file.open("rb") as stream:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
