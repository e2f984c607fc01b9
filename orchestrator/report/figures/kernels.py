"""Kernels of IC over lags: mean over subjects with its band, a column for each level, a row for each bottleneck."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from orchestrator.report.eeg_results import Curve, Kernels
from orchestrator.report.eeg_tables import people
from orchestrator.report.figures import style
from orchestrator.report.results import Group, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LEVELS = 6
Dashes = tuple[int, tuple[float, ...] | None]
DASHES: tuple[Dashes, ...] = ((0, None), (0, (5, 1.6)), (0, (1.5, 1.2)), (0, (6, 1.5, 1, 1.5)))


def draw(results: Results) -> Figure | None:
    """The kernels at the channel where IC adds most; of the tested model where there is one."""
    group = results.tested or results.paper
    found = group.kernels if group else None
    if group is None or found is None or not found.conditions or not found.channels or len(found.lags_s) < 2:
        return None
    rows = style.facets(results, tuple({row.variant for row in found.conditions}))
    levels = _levels(group, found)
    head = style.stamp_height(results) + 0.62
    width = max(2.0 + 1.75 * len(levels), 6.4)
    note = _note(results, group, found, levels, width)
    foot = 0.72 + 0.14 * len(note)
    size = (width, head + foot + 2.0 * len(rows) + 0.35 * (len(rows) - 1))
    figure = Figure(figsize=size)
    axes = figure.subplots(len(rows), len(levels), sharex=True, sharey=True, squeeze=False)
    edges = {"left": 0.85 / size[0], "right": 1 - 1.1 / size[0], "top": 1 - head / size[1], "bottom": foot / size[1]}
    figure.subplots_adjust(**edges, hspace=0.3, wspace=0.12)
    for number, (bottleneck, variants) in enumerate(rows.items()):
        for axis, level in zip(axes[number], levels, strict=True):
            _panel(axis, results, found, variants, level)
            mark = " (degenerate)" if any(results.degenerate(variant, level) for variant in variants) else ""
            axis.set_title(f"s = {level:g}{mark}" if number == 0 or mark else "", weight="normal", fontsize=9)
        axes[number, 0].set_ylabel("\n".join(filter(None, (bottleneck, "weight  (×0.001)"))))
        _names(axes[number, -1], results, variants)
    for axis in axes.flat:
        style.grid(axis)
        style.thousandths(axis)
        axis.xaxis.set_major_locator(MultipleLocator(100))
    figure.supxlabel("lag  (ms; EEG after the stimulus)", fontsize=9, x=(edges["left"] + edges["right"]) / 2,
                     y=(foot - 0.5) / size[1], color=style.INK)  # fmt: skip
    chosen = "excess Δr" if group.tested else "Δr"
    title = f"{group.model}: kernel of IC at {found.channels[0]}, the channel of the largest {chosen}"
    figure.text(edges["left"], 1 - (head - 0.36) / size[1], title, weight="bold", fontsize=10, va="bottom")
    figure.text(edges["left"], 0.1 / size[1], "\n".join(note), fontsize=7.5, color=style.MUTED, va="bottom")
    style.stamp(figure, results)
    return figure


def _levels(group: Group, found: Kernels) -> list[float]:
    """All levels where they fit; else the first, the last, the best, and others evenly between."""
    levels = sorted({row.noise_level for row in found.conditions})
    if len(levels) <= MOST_LEVELS:
        return levels
    best = max(group.conditions, key=lambda c: c.excess_delta_r_mean or c.delta_r_mean or 0.0).noise_level
    step = (len(levels) - 1) / (MOST_LEVELS - 1)
    shown = [levels[round(place * step)] for place in range(MOST_LEVELS)]
    if best not in shown and best in levels:
        inner = min(range(1, MOST_LEVELS - 1), key=lambda place: abs(shown[place] - best))
        shown[inner] = best
    return sorted(shown)


def _panel(axes: Axes, results: Results, found: Kernels, variants: list[str], level: float) -> None:
    looks = style.looks(results)
    lags_ms = [1000 * lag for lag in found.lags_s]
    axes.axvline(0, color=style.FAINT, linewidth=0.8, zorder=0)
    for variant in variants:
        curve = _curve(found, variant, level)
        if curve is None:
            continue
        colour = looks[variant].colour
        if curve.low is not None and curve.high is not None:
            axes.fill_between(lags_ms, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(lags_ms, curve.mean, color=colour, linewidth=1.4, linestyle=_dashes(variants, variant))
    axes.set_xlim(lags_ms[0], lags_ms[-1])


def _dashes(variants: list[str], variant: str) -> Dashes:
    """Lines differ in more than their colour."""
    return DASHES[variants.index(variant) % len(DASHES)]


def _curve(found: Kernels, variant: str, level: float) -> Curve | None:
    rows = (row for row in found.conditions if (row.variant, row.noise_level) == (variant, level) and row.curves)
    return next((row.curves[0] for row in rows), None)


def _names(axes: Axes, results: Results, variants: list[str]) -> None:
    """The arms beside the last panel, each with a piece of its line."""
    looks = style.looks(results)
    for place, variant in enumerate(variants):
        y = 0.92 - 0.13 * place
        line: dict[str, Any] = {
            "color": looks[variant].colour,
            "linewidth": 1.4,
            "linestyle": _dashes(variants, variant),
        }
        axes.plot([1.05, 1.18], [y, y], transform=axes.transAxes, clip_on=False, **line)
        said: dict[str, Any] = {
            "transform": axes.transAxes,
            "color": looks[variant].colour,
            "fontsize": 8,
            "va": "center",
        }
        axes.text(1.21, y, style.arm(results, variant), **said)


def _note(results: Results, group: Group, found: Kernels, levels: list[float], width: float) -> list[str]:
    who = people(results, group).replace("listeners", "simulated listeners")
    text = f"Mean over {who}; weight: EEG (in the subject's SD) per SD of IC's regressor. "
    text += "Bands: 95\u00a0% intervals at each lag by itself (bootstrap over subjects). "
    hidden = len({row.noise_level for row in found.conditions}) - len(levels)
    text += f"{hidden} more levels are in kernels.csv. " if hidden else ""
    if group.model.endswith("/hold"):
        text += "IC is held over frames of 93 ms: latencies carry ±50 ms and aren't neural ones. "
    text += "The channel was chosen by what is shown: a picture, no test."
    return textwrap.wrap(text, int(16.5 * (width - 0.9)))
