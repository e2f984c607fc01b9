"""The trials of a search: scores by trial number, and over the key where one number was searched."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.report.figures import style
from orchestrator.report.results import Point, Results, SearchResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOT, BEST = "#0072b2", "#d55e00"


def draw(results: Results) -> Figure | None:
    """Scores over trial number with the best so far; beside it, for one numeric key, scores over that key."""
    search = results.search
    if search is None or not search.points:
        return None
    panels = 2 if search.axis else 1
    size = (1.4 + 4.4 * panels, 3.9)
    figure = Figure(figsize=size)
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    figure.subplots_adjust(left=0.85 / size[0], right=1 - 0.3 / size[0], top=0.88, bottom=0.24, wspace=0.14)
    _by_number(axes[0], search)
    if search.axis:
        _by_key(axes[1], search)
    axes[0].set_ylabel(f"{search.header[-2]}  ({'higher' if search.maximise else 'lower'} is better)")
    note = f"{search.title}. Measured on {search.material}."
    figure.text(0.85 / size[0], 0.06 / size[1], note, fontsize=7.5, color=style.MUTED, va="bottom")
    return figure


def _by_number(axes: Axes, search: SearchResults) -> None:
    _dots(axes, search, [point[0] for point in search.points])
    complete = [point for point in search.points if point[3] == "complete"]
    if complete:
        pick = max if search.maximise else min
        so_far = list(accumulate((point[2] for point in complete), pick))
        axes.step([point[0] for point in complete], so_far, where="post", color=BEST, linewidth=1.1, zorder=1)
    axes.set_title("by trial")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.grid(axes)


def _by_key(axes: Axes, search: SearchResults) -> None:
    places = [point[1] if point[1] is not None else float("nan") for point in search.points]
    _dots(axes, search, places)
    axes.set_title(f"by {search.axis}")
    axes.set_xlabel(search.axis or "")
    if search.log:
        axes.set_xscale("log")
    style.grid(axes)


def _dots(axes: Axes, search: SearchResults, places: Sequence[float]) -> None:
    best = _best(search)
    for point, place in zip(search.points, places, strict=True):
        whole, colour = point[3] == "complete", BEST if point is best else DOT
        axes.plot([place], [point[2]], "o", color=colour, markerfacecolor=colour if whole else "white", markersize=5.5)


def _best(search: SearchResults) -> Point | None:
    complete = [point for point in search.points if point[3] == "complete"]
    pick = max if search.maximise else min
    return pick(complete, key=lambda point: point[2]) if complete else None
