"""Who is told what happens in a study."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Status
from orchestrator.outcome import Outcome
from orchestrator.reasons import Reason, State
from orchestrator.redaction import redact

Survey = Mapping[str, tuple[State, Reason, Status | None]]


class Observer(Protocol):
    """Is told what happens; MLflow and the terminal are two of them."""

    def study_started(self, graph: Graph, states: Survey) -> None: ...
    def cell_started(self, cell: CellSpec, reason: Reason) -> None: ...
    def cell_progress(self, cell: CellSpec, step: int, total: int, metrics: Mapping[str, float]) -> None: ...
    def cell_finished(self, cell: CellSpec, status: Status, cached: bool) -> None: ...
    def cell_pruned(self, cell: CellSpec) -> None: ...
    def study_finished(self, outcome: Outcome) -> None: ...


@runtime_checkable
class ShowsWaiting(Protocol):
    """An observer that also shows what is waited for."""

    def waiting(self, others: Mapping[str, int]) -> None: ...


class Observers:
    """All observers as one; what they raise is printed once each and stops nothing."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._complained: set[int] = set()

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*values: Any) -> None:
            for observer in self._observers:
                try:
                    getattr(observer, name)(*values)
                except Exception as error:
                    self._complain(observer, error)

        return tell

    def waiting(self, others: Mapping[str, int]) -> None:
        """Tell those who show it how many cells other drivers have in hand that this one waits for."""
        for observer in self._observers:
            if isinstance(observer, ShowsWaiting):
                observer.waiting(others)

    def _complain(self, observer: Observer, error: Exception) -> None:
        if id(observer) not in self._complained:
            self._complained.add(id(observer))
            kind = type(observer).__name__
            line = redact(" ".join(f"{type(error).__name__}: {error}".split()))
            print(f"{kind} is behind: {line}; the study goes on without it", file=sys.stderr)
