"""Results of hours, kept as they come: a calibration that is killed goes on where it was.

A file has the results of one generator (or of the study of power), a line of JSON each, under a name with a digest of
the sources that made them: after a change of the tests or of the engine nothing old is taken for new.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import scipy

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def sources(entry: Path) -> list[Path]:
    """`entry` and what it imports, directly or not, of its own folder and of tasks/."""
    found: dict[Path, None] = {}
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = None
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                folder = ROOT if name.split(".")[0] == "tasks" else HERE
                own = folder / f"{name.replace('.', '/')}.py"
                waiting += [own] if own.is_file() else []
    return sorted(found)


def digest(entry: Path, *more: Hashable) -> str:
    """Of the code (comments and docstrings left out) of `sources`, of numpy's and scipy's versions, and of `more`."""
    hashed = hashlib.blake2b(repr((np.__version__, scipy.__version__, more)).encode(), digest_size=6)
    for path in sources(entry):
        hashed.update(f"{path.name}\n{_code(path.read_text(encoding='utf-8'))}\n".encode())
    return hashed.hexdigest()


def _code(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                line for line in body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
            ]
    return ast.dump(tree)


@dataclass(frozen=True)
class Kept:
    """Lines of JSON in a file, each with a `number` (and, of power, an `effect`)."""

    path: Path

    @classmethod
    def of(cls, folder: Path, name: str, entry: Path, *more: Hashable) -> Kept:
        """The file of results `name`, which the code that begins at `entry` makes of `more`."""
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        return cls(folder / f"{slug}-{digest(entry, *more)}.jsonl")

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; one that was torn by a kill is left out."""
        if not self.path.is_file():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8").split("\n")[:-1]:
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append lines; what a kill left of the last one becomes a line of its own."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.is_file() and self.path.read_bytes()[-1:] not in (b"", b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + "".join(f"{json.dumps(row)}\n" for row in rows))


Task = tuple[Callable[..., Any], tuple[Any, ...]]


def worked(tasks: Sequence[Task], n_jobs: int) -> Iterator[tuple[int, Any]]:
    """Number and result of each task as it is done, by `n_jobs` processes; by this one alone where that is 1."""
    if n_jobs == 1:
        for place, (work, arguments) in enumerate(tasks):
            yield place, work(*arguments)
        return
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        waiting: dict[Future[Any], int] = {}
        rest = iter(enumerate(tasks))
        for place, (work, arguments) in rest:
            waiting[pool.submit(work, *arguments)] = place
            if len(waiting) < 2 * n_jobs:
                continue
            yield from _done(waiting)
        while waiting:
            yield from _done(waiting)


def _done(waiting: dict[Future[Any], int]) -> Iterator[tuple[int, Any]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        yield waiting.pop(future), future.result()


def _end_with_parent() -> None:
    """A worker whose parent was killed waits for work for ever; here it ends."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
