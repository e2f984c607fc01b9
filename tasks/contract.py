"""What every stage of a study is handed and what it gives back.

A stage's entry point is ``run(cells, context)``: a generator that yields one `Result` per cell, as soon as that cell's
files lie in its ``out_dir``. It runs in any Python process; how its inputs reached the machine is not its concern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

OpenFile = Callable[[str], BinaryIO]
"""Opens a path or URL of the outside world (a recording, an EEG file) for reading."""


class TaskError(Exception):
    """Bad input, told to a person: what is wrong, where, what is allowed, what to do."""


@dataclass(frozen=True)
class Artefact:
    """A finished cell, as the stages after it read it: its config, its metrics, its files by name."""

    signature: str
    stage: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    open: OpenFile

    def read_bytes(self, name: str) -> bytes:
        """The whole content of the file `name` of this cell's ``out`` folder."""
        with self.open(name) as stream:
            return stream.read()


Input = Artefact | tuple[Artefact, ...]


@dataclass(frozen=True)
class Cell:
    """One unit of work: a config of JSON values, its inputs by role, and the empty folder for its files.

    `places` are paths or URLs of files outside the ledger that the config names by their content alone, by key.
    """

    signature: str
    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Input]
    out_dir: Path
    places: Mapping[str, str] = field(default_factory=dict)

    def input(self, role: str) -> Artefact:
        """The single artefact in `role`."""
        found = self.inputs[role]
        assert isinstance(found, Artefact), f"{self.stage}: input {role!r} is a collection"
        return found

    def collection(self, role: str) -> tuple[Artefact, ...]:
        """All artefacts in `role`, in the order of the graph."""
        found = self.inputs[role]
        return (found,) if isinstance(found, Artefact) else found


@dataclass(frozen=True)
class Result:
    """What became of one cell: numbers about it (JSON scalars), or the sentence that says why there are none."""

    signature: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None


class Checkpoints(Protocol):
    """Where a training keeps what it needs to go on after its process dies."""

    def latest(self) -> tuple[int, Path] | None:
        """Step and local folder of the last whole checkpoint, or None at the first start."""
        ...

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Call `write` on an empty local folder and keep what it put there as the checkpoint of `step`."""
        ...


class NoCheckpoints:
    """A training that starts over when its process dies."""

    def latest(self) -> tuple[int, Path] | None:
        return None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        return None


class Stopped(Exception):
    """The study was asked to stop; the checkpoint before this is whole."""


def _ignore(done: int, total: int, metrics: Mapping[str, float]) -> None:
    return None


def _open_local(path: str) -> BinaryIO:
    return Path(path).open("rb")


@dataclass(frozen=True)
class Context:
    """What a stage may use of the world around it.

    Attributes
    ----------
    open_file : callable
        Opens a path or URL outside the ledger.
    progress : callable
        ``progress(done, total, metrics)``: how far this task is. A training gives each row of its curve.csv once, with
        the step it belongs to as `done`; `metrics` is empty at other steps.
    should_stop : callable
        True once the study was asked to stop: trainings save a checkpoint and raise `Stopped`.
    checkpoints : callable
        Maps a cell's signature to its `Checkpoints`.
    """

    open_file: OpenFile = _open_local
    progress: Callable[[int, int, Mapping[str, float]], None] = _ignore
    should_stop: Callable[[], bool] = lambda: False
    checkpoints: Callable[[str], Checkpoints] = lambda signature: NoCheckpoints()


class Run(Protocol):
    """The entry point of a stage."""

    def __call__(self, cells: Sequence[Cell], context: Context) -> Iterator[Result]: ...
