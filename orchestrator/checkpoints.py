"""Checkpoints of trainings in the ledger, where any node finds them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.paths import check_path
from orchestrator.status import dump
from orchestrator.storage import Storage

KEPT = 2


@dataclass(frozen=True)
class LedgerCheckpoints:
    """The last two checkpoints below `base`; each counts only once its list of checksums lies beside it."""

    storage: Storage
    base: str
    scratch: Path

    def latest(self) -> tuple[int, Path] | None:
        """Step and own copy of the last whole checkpoint; damaged ones are dropped in favour of the one before."""
        for step in sorted(self._steps(), reverse=True):
            folder = self._whole(step)
            if folder is not None:
                return step, folder
            self.storage.delete(self._at(step), recursive=True)
        return None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Call `write` on an empty local folder and keep what it put there; older ones but one go."""
        near = self.storage.local_path(self.base) or self.scratch
        near.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".saving-", dir=near))
        try:
            write(folder)
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            marker = {str(file.relative_to(folder)): _record(file) for file in files}
            self.storage.delete(self._at(step), recursive=True)
            for file in files:
                self.storage.adopt(file, f"{self._at(step)}/files/{file.relative_to(folder).as_posix()}")
            self.storage.write(f"{self._at(step)}/complete.json", dump(marker))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for old in sorted(set(self._steps()) - {step})[: -(KEPT - 1)]:
            self.storage.delete(self._at(old), recursive=True)

    def _steps(self) -> list[int]:
        return [int(name) for name in self.storage.names(self.base) if name.isdecimal()]

    def _at(self, step: int) -> str:
        return f"{self.base}/{step:012d}"

    def _whole(self, step: int) -> Path | None:
        try:
            marker = json.loads(self.storage.read(f"{self._at(step)}/complete.json"))
            folder = self._copy(step, list(marker))
            return folder if all(_record(folder / name) == record for name, record in marker.items()) else None
        except (OSError, ValueError, TypeError):
            return None

    def _copy(self, step: int, names: list[str]) -> Path:
        """A copy in `scratch`: in the ledger another driver at the same cell may remove it at any time."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"checkpoint-{step}-", dir=self.scratch))
        for name in map(check_path, names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self.storage.get_file(f"{self._at(step)}/files/{name}", folder / name)
        return folder


def _record(file: Path) -> dict[str, int | str]:
    with file.open("rb") as stream:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
