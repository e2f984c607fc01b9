"""Files of a local folder: the fast half of `orchestrator.storage`."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO


def temporary_beside(target: Path) -> Path:
    """A hidden name in the folder of `target`: listings pass over it, and renaming it to `target` is atomic."""
    return target.with_name(f".{target.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}")


def files_below(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All visible files below `folder` with their `stat`, linked folders included, each folder once."""
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            where = folder / inside
            about = where.stat()
            entries = list(os.scandir(where))
        except (FileNotFoundError, NotADirectoryError):
            continue
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                waiting.append(f"{inside}{entry.name}/")
            elif entry.is_file():
                yield inside + entry.name, entry.stat()


class LocalFiles:
    """Reads and atomic writes below one folder; paths are relative and already checked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def at(self, path: str) -> Path:
        return self.folder / path

    def read(self, path: str) -> bytes:
        try:
            return self.at(path).read_bytes()
        except NotADirectoryError as error:
            raise FileNotFoundError(path) from error

    def open(self, path: str) -> BinaryIO:
        return self.at(path).open("rb")

    def write(self, path: str, data: bytes) -> None:
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Replacing(target) as part:
            part.write_bytes(data)

    def put_file(self, local: Path, path: str) -> None:
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Replacing(target) as part:
            shutil.copyfile(local, part)

    def adopt(self, local: Path, path: str) -> None:
        """Rename `local` into the folder; copied only when it lies on another file system."""
        target = self.at(path)
        if local == target:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            local.replace(target)
        except OSError:
            self.put_file(local, path)
            local.unlink()

    def get_file(self, path: str, local: Path) -> None:
        shutil.copyfile(self.at(path), local)

    def size(self, path: str) -> int | None:
        try:
            return self.at(path).stat().st_size if self.at(path).is_file() else None
        except OSError:
            return None

    def modified(self, path: str) -> float:
        return self.at(path).stat().st_mtime

    def exists(self, path: str) -> bool:
        return self.at(path).exists()

    def delete(self, path: str, recursive: bool) -> None:
        target = self.at(path)
        if recursive and target.is_dir() and not target.is_symlink():
            self._remove_tree(target)
        else:
            target.unlink(missing_ok=True)

    def _remove_tree(self, folder: Path) -> None:
        """Others may remove the same folder at the same time."""
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(folder)

    def names(self, path: str) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self.at(path)) if not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def find(self, path: str) -> dict[str, int]:
        prefix = f"{path}/" if path else ""
        return {prefix + name: about.st_size for name, about in files_below(self.at(path))}


class Replacing:
    """A temporary file that takes the place of `target` when the block ends well, and goes when it does not."""

    def __init__(self, target: Path) -> None:
        self.target, self.part = target, temporary_beside(target)

    def __enter__(self) -> Path:
        return self.part

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.part.replace(self.target)
        else:
            self.part.unlink(missing_ok=True)
