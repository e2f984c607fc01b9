"""What a driver knows of the ledger, what is news in it, and what it writes there of cells that it gives up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.graph import CellSpec
from orchestrator.ledger import Ledger, Status
from orchestrator.reasons import TROUBLES, Reason, State
from orchestrator.storage import Storage
from orchestrator.survey import Finding
from orchestrator.worker import trouble_of

MAY_HAVE_ENDED = TROUBLES | {Reason.LOST_PROCESS, Reason.ERROR}
"""A cell that was lost for one of these may have been published before word of it was lost."""


@dataclass(frozen=True)
class News:
    """Where a cell stands now; `status` is there when it is another one than was known."""

    spec: CellSpec
    state: State
    reason: Reason
    status: Status | None
    first: bool


class Known:
    """The attempt that counts of every cell that was ever asked for."""

    def __init__(self, survey: Mapping[str, Finding]) -> None:
        self._attempts: dict[str, str | None] = {}
        for signature, (_, _, status) in survey.items():
            self.note(signature, status)

    def __contains__(self, signature: str) -> bool:
        return signature in self._attempts

    def note(self, signature: str, status: Status | None) -> None:
        """This is what counts of a cell now."""
        self._attempts[signature] = None if status is None else status.attempt

    def ask(self, ledger: Ledger, cells: Sequence[CellSpec]) -> Iterator[News]:
        """Look at a few cells again."""
        found = ledger.survey(cells, full=ledger.storage.is_local) if cells else {}
        for spec in cells:
            state, reason, status = found[spec.signature]
            first = spec.signature not in self
            is_news = first or (status is not None and self._attempts[spec.signature] != status.attempt)
            self.note(spec.signature, status)
            yield News(spec, state, reason, status if is_news else None, first)


def give_up(ledger: Ledger, spec: CellSpec, reason: Reason, sentence: str, driver: str) -> Status:
    """Write down that a cell failed; where that can't be written, the next run finds it interrupted and tries again."""
    if reason is Reason.STORAGE_AWAY:  # which was waited for long enough: this once, with little patience
        ledger = Ledger(Storage(ledger.storage.root, ledger.storage.options))
    try:
        return ledger.fail(ledger.begin(spec, reason, driver), reason, sentence, 0.0)
    except OSError as error:
        if trouble_of(error) is None:
            raise
        return Status(spec.stage, spec.signature, spec.name, "failed", "", {}, {}, sentence, reason, 0.0, (), {})


def why(state: State, status: Status | None) -> str:
    """What a failed cell says of itself."""
    return (status.failure or "") if state is State.FAILED and status is not None else ""
