"""Files of the outside world: their names in a study, and whether they are still what the study planned with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import SEEK_END
from typing import BinaryIO

from tasks.audio.config import SourceFile
from tasks.contract import OpenFile, TaskError


def identifiers(files: Sequence[SourceFile]) -> dict[str, str]:
    """Name every file for use in file names: its stem, with a number where two folders hold the same stem.

    Parameters
    ----------
    files : sequence of SourceFile
        The files of one source. Their order doesn't matter.

    Returns
    -------
    dict
        Path to id, in the order of the paths.
    """
    named: dict[str, str] = {}
    taken: set[str] = set()
    for path in sorted({file.path for file in files}):
        stem = path.rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
        base = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._") or "file"
        name, number = base, 2
        while name.casefold() in taken:
            name, number = f"{base}-{number}", number + 1
        named[path] = name
        taken.add(name.casefold())
    return named


def file_name(path: str) -> str:
    """The last part of a path or URL, for messages and outputs that must not depend on where the data lie."""
    return path.rstrip("/").rsplit("/", 1)[-1]


@contextmanager
def opened(file: SourceFile, open_file: OpenFile) -> Iterator[BinaryIO]:
    """Open `file`, and refuse it when it isn't the one the study was planned with.

    Raises
    ------
    TaskError
        When the file can't be opened or has another size. That is no property of the data: nothing may be computed
        without this file under a signature that names it.
    """
    try:
        stream = open_file(file.path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise TaskError(
            f"{file.path}: can't be opened ({reason}). Restore it or plan without it, and run again"
        ) from error
    with stream:
        size = stream.seek(0, SEEK_END)
        stream.seek(0)
        if size != file.size:
            raise TaskError(
                f"{file.path}: {size} bytes now, {file.size} when the study was planned. Plan and run again"
            )
        yield stream
