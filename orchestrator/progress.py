"""What a person sees while a study runs: a live table on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from orchestrator.graph import CellSpec, Graph
from orchestrator.reasons import SENTENCES, Reason, State
from orchestrator.redaction import redact
from orchestrator.report.results import States, some
from orchestrator.signature import SHORT
from orchestrator.stages import STAGES

if TYPE_CHECKING:
    from orchestrator.ledger import Status
    from orchestrator.outcome import Outcome

ORDINARY = frozenset({Reason.NEW, Reason.INPUT_TO_DO})
EVERY_S = 10.0
MOST_FAILURES = 5


class Progress:
    """An observer of a study. Every recomputation that isn't simply new is said with its reason."""

    def __init__(
        self,
        stream: TextIO | None = None,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty() if terminal is None else terminal
        self._clock = clock
        self._total: Counter[str] = Counter()
        self._cached: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._running: dict[str, tuple[CellSpec, int, int, Mapping[str, float]]] = {}
        self._again: dict[tuple[str, Reason], list[str]] = {}
        self._settled: set[str] = set()
        self._spoke_at = -EVERY_S
        self._spoke_of = ""
        self._waited_at = -EVERY_S
        self._live: Any = None

    # What the study tells

    def study_started(self, graph: Graph, states: States) -> None:
        self._total = Counter(cell.stage for cell in graph)
        counts = Counter(state for state, _, _ in states.values())
        shown = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
        self._line(f"{len(graph)} cells: {shown}")
        if self._terminal and counts[State.CACHED] < len(graph):
            self._open_table()

    def cell_started(self, cell: CellSpec, reason: Reason) -> None:
        self._running[cell.signature] = (cell, 0, 0, {})
        if cell.signature in self._settled:  # it was there, and is computed again
            self._settled.discard(cell.signature)
            counter = self._done if self._done[cell.stage] else self._cached
            counter[cell.stage] -= 1
        if reason not in ORDINARY:
            self._again.setdefault((cell.stage, reason), []).append(f"{cell.name} ({cell.signature[:SHORT]})")
        self._tick(cell.stage)

    def cell_progress(self, cell: CellSpec, step: int, total: int, metrics: Mapping[str, float]) -> None:
        _, _, _, last = self._running.get(cell.signature, (cell, 0, 0, {}))
        self._running[cell.signature] = (cell, step, total, metrics or last)
        self._tick(cell.stage)

    def cell_finished(self, cell: CellSpec, status: Status, cached: bool) -> None:
        self._running.pop(cell.signature, None)
        if status.state == "failed":
            self._failed[cell.stage] += 1
            if self._failed[cell.stage] <= MOST_FAILURES:
                self._line(f"failed: {cell.name} ({cell.signature[:SHORT]}): {status.failure}")
            elif self._failed[cell.stage] == MOST_FAILURES + 1:
                self._line(f"failed: more cells of {cell.stage}; the report names them all")
        else:
            self._settled.add(cell.signature)
            (self._cached if cached else self._done)[cell.stage] += 1
        if not cached:
            self._tick(cell.stage)

    def cell_pruned(self, cell: CellSpec) -> None:
        self._running.pop(cell.signature, None)

    def study_finished(self, outcome: Outcome) -> None:
        self._say_again()
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            self._live.stop()
            self._live = None
        word = "stopped" if outcome.stopped else "refused" if outcome.refused else "finished"
        word = "broken off" if outcome.aborted and word == "finished" else word
        parts = [f"{len(outcome.done)} computed", f"{len(outcome.cached)} cached"]
        for name, cells in (("failed", outcome.failed), ("blocked", outcome.blocked), ("left", outcome.left)):
            if cells:
                parts.append(f"{len(cells)} {name}")
        self._line(f"{word} after {_duration(outcome.seconds)}: {', '.join(parts)}")
        for sentence in outcome.refused:
            self._line(f"refused: {sentence}")
        if outcome.aborted:
            self._line(f"broken off by an error: {outcome.aborted}")

    def waiting(self, others: Mapping[str, int]) -> None:
        """Say what other drivers have in hand, unless somebody was told something a moment ago."""
        now = self._clock()
        if others and now - max(self._spoke_at, self._waited_at) >= EVERY_S:
            self._waited_at = now
            for driver, count in sorted(others.items()):
                self._line(f"waiting: {count} {'cell' if count == 1 else 'cells'} at work in driver {driver}")

    # Lines

    def _line(self, text: str) -> None:
        text = redact(text)
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def _tick(self, stage: str) -> None:
        """On a terminal redraw; elsewhere one line when the stage changes, and at most one per `EVERY_S`."""
        if self._live is not None:
            self._say_again()
            self._live.update(self._table())
            return
        now = self._clock()
        if now - self._spoke_at < EVERY_S and (stage == self._spoke_of or stage in self._spoke_of.split("+")):
            return
        if now - self._spoke_at < EVERY_S and self._is_parallel(stage):
            return
        self._spoke_at, self._spoke_of = now, stage
        self._say_again()
        self._line(self._summary(stage))

    def _is_parallel(self, stage: str) -> bool:
        """Two stages at work at once are not a change of stage."""
        return any(cell.stage == self._spoke_of for cell, *_ in self._running.values()) and stage != self._spoke_of

    def _say_again(self) -> None:
        again, self._again = self._again, {}
        for (stage, reason), names in again.items():
            self._line(f"again: {stage}: {SENTENCES[reason]}: {some(names)}")

    def _summary(self, stage: str) -> str:
        have = self._cached[stage] + self._done[stage]
        text = f"{stage}: {have} of {self._total[stage]}"
        if self._failed[stage]:
            text += f", {self._failed[stage]} failed"
        current = [entry for entry in self._running.values() if entry[0].stage == stage]
        if current:
            text += f", {len(current)} running: {_current(*current[-1])}"
        others = sorted({cell.stage for cell, *_ in self._running.values()} - {stage})
        return text + (f"; also {', '.join(others)}" if others else "")

    # The table

    def _open_table(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, force_terminal=True)
        self._live = Live(self._table(), console=console, refresh_per_second=4, redirect_stdout=False)
        self._live.start()

    def _table(self) -> Any:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("stage", "cells", "cached", "done", "running", "failed"):
            table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
        table.add_column("now", overflow="ellipsis", no_wrap=True)
        for stage in (stage for stage in STAGES if self._total[stage]):
            current = [entry for entry in self._running.values() if entry[0].stage == stage]
            have = self._cached[stage] + self._done[stage]
            style = "dim" if have == self._total[stage] else "bold" if current else ""
            counts = (self._total[stage], self._cached[stage], self._done[stage], len(current), self._failed[stage])
            numbers = [str(count) if count else "·" for count in counts]
            numbers[-1] = f"[red]{numbers[-1]}[/red]" if self._failed[stage] else numbers[-1]
            table.add_row(stage, *numbers, _escaped(_current(*current[-1])) if current else "", style=style)
        return table


def _current(cell: CellSpec, step: int, total: int, metrics: Mapping[str, float]) -> str:
    text = cell.name + (f" {step}/{total}" if total else "")
    shown = [f"{name} {value:.4g}" for name, value in list(metrics.items())[:2]]
    return f"{text} ({', '.join(shown)})" if shown else text


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
