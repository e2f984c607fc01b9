"""What became of a study, and the exit code that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.graph import CellSpec
from orchestrator.ledger import Status

ALL_DONE, WITH_FAILURES, REFUSED = 0, 1, 3


@dataclass
class Outcome:
    """What became of a study; `exit_code` is the process's.

    `excluded` names the parts of the data that finished cells had to leave out, each with the names of those cells;
    `aborted` is the error that ended the study before its time; `computed_twice` names the cells that another driver
    published first.
    """

    done: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    reduced: dict[str, CellSpec] = field(default_factory=dict)
    excluded: dict[str, list[str]] = field(default_factory=dict)
    computed_twice: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    aborted: str | None = None
    signum: int | None = None
    seconds: float = 0.0

    @property
    def stopped(self) -> bool:
        return self.signum is not None

    @property
    def exit_code(self) -> int:
        if self.signum is not None:
            return 128 + self.signum
        if self.refused:
            return REFUSED
        troubles = (self.failed, self.blocked, self.left, self.excluded, self.aborted)
        return WITH_FAILURES if any(troubles) else ALL_DONE


class Exclusions:
    """The parts of the data that cells left out and named in their metrics ``skipped`` and ``n_skipped``."""

    def __init__(self) -> None:
        self._of_cell: dict[str, tuple[str, list[str]]] = {}

    def put(self, spec: CellSpec, status: Status) -> None:
        """Take over what a cell says of itself, in place of what it said before."""
        self._of_cell.pop(spec.signature, None)
        if status.state == "done" and (sentences := _sentences(status.metrics)):
            self._of_cell[spec.signature] = (spec.name, sentences)

    def by_sentence(self) -> dict[str, list[str]]:
        """Each part once, with the names of the cells that named it."""
        found: dict[str, list[str]] = {}
        for name, sentences in self._of_cell.values():
            for sentence in sentences:
                found.setdefault(sentence, []).append(name)
        return found


def _sentences(metrics: Mapping[str, object]) -> list[str]:
    skipped, count = metrics.get("skipped"), metrics.get("n_skipped")
    named = [str(line) for line in skipped] if isinstance(skipped, list) else []
    unnamed = int(count) - len(named) if isinstance(count, int | float) else 0
    if unnamed > 0:
        named.append(f"{unnamed} {'more ' if named else ''}left out; the cell's files name them")
    return list(dict.fromkeys(named))
