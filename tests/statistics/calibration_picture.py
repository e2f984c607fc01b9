"""The calibration as pictures: rates with their bounds, coloured by what is asked of them."""

from __future__ import annotations

from typing import Any

from calibration_report import ASKS, TEST_WORDS
from comparisons import ALPHA, CASES
from made import TESTS
from matplotlib.figure import Figure
from rates import Cell

COLOURS = {"kept": "#1a6e8e", "broken": "#b5472f", "found": "#3f7d3a", "described": "#8a8a8a"}
MEANINGS = {
    "kept": "must keep its level",
    "broken": "broken, must exceed .5",
    "found": "something is there, must exceed .5",
    "described": "described alone",
}


def draw(cells: list[Cell]) -> Figure:
    """One condition: over stimuli, over subjects and the claim a panel each, a row per generator and null."""
    cells = [cell for cell in cells if cell.generator not in CASES]
    rows = list(dict.fromkeys((cell.generator, cell.null) for cell in cells))
    place = {row: index for index, row in enumerate(rows)}
    figure = Figure(figsize=(12, 1.4 + 0.17 * len(rows)))
    axes = figure.subplots(1, len(TESTS), sharey=True)
    for axis, test in zip(axes, TESTS, strict=True):
        _shade(axis, [generator for generator, _ in rows])
        for cell in (cell for cell in cells if cell.test == test):
            _point(axis, cell, place[cell.generator, cell.null])
        _scale(axis, "both: the claim" if test == "both" else f"over {test}")
    _label(axes[0], [f"{generator} · {null}" for generator, null in rows])
    return _finished(figure, axes[0], {cell.role for cell in cells})


def draw_comparisons(cells: list[Cell]) -> Figure:
    """Several conditions: each test, and what is claimed by it, a panel each, a row per case and question."""
    by_place = {(cell.generator, cell.test): cell for cell in cells if cell.generator in CASES}
    rows = [(name, ask) for name in CASES for ask in ASKS if {(name, test) for test in ask} & by_place.keys()]
    figure = Figure(figsize=(9, 1.4 + 0.17 * len(rows)))
    axes = figure.subplots(1, 2, sharey=True)
    for side, (axis, title) in enumerate(zip(axes, ("the test", "the claim"), strict=True)):
        _shade(axis, [name for name, _ in rows])
        for y, (name, ask) in enumerate(rows):
            cell = by_place.get((name, ask[side]))
            if cell is not None:
                _point(axis, cell, y)
        _scale(axis, title)
    _label(axes[0], [f"{name} · {TEST_WORDS[ask[0]]}" for name, ask in rows])
    return _finished(figure, axes[0], {cell.role for cell in by_place.values()})


def _shade(axis: Any, generators: list[str]) -> None:
    """A grey band behind every other generator's rows."""
    shaded = list(dict.fromkeys(generators))[::2]
    for y, generator in enumerate(generators):
        if generator in shaded:
            axis.axhspan(y - 0.5, y + 0.5, color="#f2f2f2", lw=0)


def _point(axis: Any, cell: Cell, y: int) -> None:
    colour = COLOURS[cell.role]
    axis.plot([cell.low, cell.high], [y, y], color=colour, lw=1.2)
    axis.plot(cell.rate, y, "o" if cell.ok else "X", color=colour, ms=4 if cell.ok else 8)


def _scale(axis: Any, title: str) -> None:
    axis.axvline(ALPHA, color="black", lw=0.7, ls=":")
    axis.set_xscale("symlog", linthresh=0.1)
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.05, 0.1, 0.2, 0.5, 1], ["0", ".05", ".1", ".2", ".5", "1"])
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("rate of p ≤ .05", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(axis="x", lw=0.3)


def _label(axis: Any, names: list[str]) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=6.5)
    axis.set_ylim(len(names) - 0.5, -0.5)


def _finished(figure: Figure, axis: Any, roles: set[str]) -> Figure:
    """With a legend of the roles that there are."""
    handles = [
        axis.plot([], [], "o-", color=COLOURS[role], label=MEANINGS[role])[0] for role in COLOURS if role in roles
    ]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
    return figure
