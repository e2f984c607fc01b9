"""Delta r and excess delta r over noise levels: means with intervals over subjects, and every subject."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from orchestrator.report import group_tables
from orchestrator.report.eeg_results import Interval
from orchestrator.report.eeg_tables import people
from orchestrator.report.figures import style
from orchestrator.report.results import Condition, Group, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Bar:
    """A mean over subjects, the ends of its interval, and each subject's value."""

    mean: float | None
    low: float | None
    high: float | None
    subjects: Mapping[str, float | None]


Value = Callable[[Condition], Bar]
Point = tuple[float, float, Bar, Condition]
"""Noise level, mean, the whole bar, and the condition."""


def draw(results: Results) -> Figure | None:
    """A row of panels for the paper's definition, one for the tested model; a column for each bottleneck."""
    rows: list[tuple[Group, str, str, Value]] = []
    if results.paper and results.paper.conditions:
        label = "Δr  (full − reduced r, ×0.001)"
        title = f"{results.paper.model}: the paper's definition; no claim, no p"
        rows.append((results.paper, title, label, _delta_r))
    if results.tested and results.tested.conditions:
        said = "tested" if results.tested.calibrated else f"null {results.tested.null}: not calibrated, no claim"
        title = f"{results.tested.model}: excess over permutations, {said}"
        rows.append((results.tested, title, "excess Δr  (Δr − its null mean, ×0.001)", _excess))
    if not rows:
        return None
    used = {condition.variant for group, *_ in rows for condition in group.conditions}
    columns = style.facets(results, tuple(used))
    width = 1.9 + 4.2 * len(columns)
    letters = int(11.5 * (width - 0.9))
    rows = [(group, textwrap.fill(title, letters), label, value) for group, title, label, value in rows]
    head = style.stamp_height(results) + 0.6 + 0.17 * rows[0][1].count("\n")
    note = _note(results, [group for group, *_ in rows], width)
    foot = 0.72 + 0.14 * len(note)
    size = (width, head + foot - 0.8 + 3.2 * len(rows))
    figure = Figure(figsize=size)
    axes = figure.subplots(len(rows), len(columns), sharey="row", squeeze=False)
    edges = {"left": 0.8 / size[0], "right": 1 - 1.35 / size[0], "top": 1 - head / size[1], "bottom": foot / size[1]}
    figure.subplots_adjust(**edges, hspace=0.66, wspace=0.42)
    for i, (group, title, label, value) in enumerate(rows):
        for j, (bottleneck, variants) in enumerate(columns.items()):
            _panel(axes[i, j], results, group, variants, value)
            axes[i, j].set_title(bottleneck, weight="normal")
            axes[i, j].set_ylabel(label if j == 0 else "")
        top = axes[i, 0].get_position().y1 + 0.32 / size[1]
        figure.text(edges["left"], top, title, weight="bold", fontsize=10, va="bottom")
    for axis_row, (group, _, _, value) in zip(axes, rows, strict=True):
        for axis, variants in zip(axis_row, columns.values(), strict=True):
            _finish(axis, results, group, variants, value)
    figure.text(edges["left"], 0.1 / size[1], "\n".join(note), fontsize=7.5, color=style.MUTED, va="bottom")
    style.stamp(figure, results)
    return figure


def _note(results: Results, groups: list[Group], width: float) -> list[str]:
    """What the marks mean, in lines that fit a figure of `width` inches."""
    most = max(groups, key=lambda group: group.n_subjects)
    who = people(results, most).replace("listeners", "simulated listeners")
    text = f"Mean over {who}; median over channels of the mean over pieces. "
    text += "Bars: 95\u00a0% intervals (bootstrap over subjects). Thin: each subject. "
    text += group_tables.ceiling_short(results.tested)
    return textwrap.wrap(text + _key(results), int(16.5 * (width - 0.9)))


def _key(results: Results) -> str:
    tested = results.tested
    if tested is None:
        return ""
    claimed = any(condition.claimed for condition in tested.conditions)
    how = "Ringed: claimed" if claimed else "No level is claimed"
    return f"{how} (both tests, corrected, p ≤ {tested.alpha:g})."


def _bar(mean: float | None, se: float | None, interval: Interval, subjects: Mapping[str, float | None]) -> Bar:
    """A result without an interval has the standard error in its place."""
    if mean is not None and interval is None and se is not None:
        interval = mean - se, mean + se
    low, high = interval or (mean, mean)
    return Bar(mean, low, high, subjects)


def _delta_r(condition: Condition) -> Bar:
    return _bar(condition.delta_r_mean, condition.delta_r_se, condition.delta_r_ci, condition.by_subject)


def _excess(condition: Condition) -> Bar:
    own = condition.excess_by_subject
    return _bar(condition.excess_delta_r_mean, condition.excess_delta_r_se, condition.excess_delta_r_ci, own)


def _points(group: Group, variant: str, value: Value) -> list[Point]:
    """In order of level, where there is a mean."""
    rows: list[Point] = []
    for condition in sorted((c for c in group.conditions if c.variant == variant), key=lambda c: c.noise_level):
        bar = value(condition)
        if bar.mean is not None:
            rows.append((condition.noise_level, bar.mean, bar, condition))
    return rows


def _panel(axes: Axes, results: Results, group: Group, variants: list[str], value: Value) -> None:
    looks = style.looks(results)
    for i, variant in enumerate(variants):
        points, look = _points(group, variant, value), looks[variant]
        if not points:
            continue
        shift = 0.005 * (i - (len(variants) - 1) / 2)
        levels, means = [p[0] + shift for p in points], [p[1] for p in points]
        _subjects(axes, levels, points, look.colour)
        ends = [(p[2].low or 0.0, p[2].high or 0.0) for p in points]
        axes.vlines(levels, [low for low, _ in ends], [high for _, high in ends], color=look.colour, linewidth=1.3)
        axes.plot(levels, means, color=look.colour, marker=look.marker, markeredgecolor="white", markeredgewidth=0.7)
        claimed = [(x, y) for x, y, p in zip(levels, means, points, strict=True) if p[3].claimed and group.tested]
        if claimed:
            ring: dict[str, Any] = {"facecolors": "none", "edgecolors": style.INK, "linewidths": 1.2, "zorder": 5}
            axes.scatter([x for x, _ in claimed], [y for _, y in claimed], s=95, **ring)


def _subjects(axes: Axes, levels: list[float], points: list[Point], colour: str) -> None:
    """One thin line for each subject, broken where it has no value."""
    for name in dict.fromkeys(name for *_, bar, _ in points for name in bar.subjects):
        values = [bar.subjects.get(name) for *_, bar, _ in points]
        heights = [float("nan") if value is None else value for value in values]
        axes.plot(levels, heights, color=colour, linewidth=0.5, alpha=0.28, zorder=1)


def _finish(axes: Axes, results: Results, group: Group, variants: list[str], value: Value) -> None:
    levels = [condition.noise_level for condition in group.conditions]
    style.noise_axis(axes, levels, any(results.degenerate(variant, level) for variant in variants for level in levels))
    style.grid(axes)
    style.thousandths(axes)
    looks = style.looks(results)
    ends = [(variant, _points(group, variant, value)) for variant in variants]
    style.label_ends(axes, [(p[-1][0], p[-1][1], style.arm(results, v), looks[v].colour) for v, p in ends if p])
