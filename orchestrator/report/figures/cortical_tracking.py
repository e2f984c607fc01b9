"""Delta r and excess delta r over noise levels, mean and standard error over subjects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from orchestrator.report.figures import style
from orchestrator.report.results import Condition, Group, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Callable[[Condition], tuple[float | None, float | None]]


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
    head = style.stamp_height(results) + 0.6
    size = (1.9 + 4.2 * len(columns), head + 0.2 + 3.2 * len(rows))
    figure = Figure(figsize=size)
    axes = figure.subplots(len(rows), len(columns), sharey="row", squeeze=False)
    edges = {"left": 0.8 / size[0], "right": 1 - 1.35 / size[0], "top": 1 - head / size[1], "bottom": 1.0 / size[1]}
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
    subjects = max(group.n_subjects for group, *_ in rows)
    who = "simulated listeners" if results.simulated else "subjects"
    note = f"Mean ± SE over {subjects} {who}; median over channels of the mean over pieces."
    figure.text(0.8 / size[0], 0.1 / size[1], note + _key(results), fontsize=7.5, color=style.MUTED, va="bottom")
    style.stamp(figure, results)
    return figure


def _key(results: Results) -> str:
    tested = results.tested
    if tested is None:
        return ""
    claimed = any(condition.claimed for condition in tested.conditions)
    how = "Ringed: claimed" if claimed else "No level is claimed"
    return f"\n{how} (both tests, corrected, p ≤ {tested.alpha:g})."


def _delta_r(condition: Condition) -> tuple[float | None, float | None]:
    return condition.delta_r_mean, condition.delta_r_se


def _excess(condition: Condition) -> tuple[float | None, float | None]:
    return condition.excess_delta_r_mean, condition.excess_delta_r_se


def _points(group: Group, variant: str, value: Value) -> list[tuple[float, float, float, Condition]]:
    """(level, mean, standard error, condition) in order of level, where there is a mean."""
    rows = []
    for condition in sorted((c for c in group.conditions if c.variant == variant), key=lambda c: c.noise_level):
        mean, error = value(condition)
        if mean is not None:
            rows.append((condition.noise_level, mean, error or 0.0, condition))
    return rows


def _panel(axes: Axes, results: Results, group: Group, variants: list[str], value: Value) -> None:
    looks = style.looks(results)
    for i, variant in enumerate(variants):
        points, look = _points(group, variant, value), looks[variant]
        if not points:
            continue
        shift = 0.005 * (i - (len(variants) - 1) / 2)
        levels, means, errors = [p[0] + shift for p in points], [p[1] for p in points], [p[2] for p in points]
        axes.errorbar(levels, means, errors, color=look.colour, linewidth=0, elinewidth=1, capsize=0, alpha=0.6)
        axes.plot(levels, means, color=look.colour, marker=look.marker, markeredgecolor="white", markeredgewidth=0.7)
        claimed = [(x, y) for x, y, p in zip(levels, means, points, strict=True) if p[3].claimed and group.tested]
        if claimed:
            ring: dict[str, Any] = {"facecolors": "none", "edgecolors": style.INK, "linewidths": 1.2, "zorder": 5}
            axes.scatter([x for x, _ in claimed], [y for _, y in claimed], s=95, **ring)


def _finish(axes: Axes, results: Results, group: Group, variants: list[str], value: Value) -> None:
    levels = [condition.noise_level for condition in group.conditions]
    style.noise_axis(axes, levels, any(results.degenerate(variant, level) for variant in variants for level in levels))
    style.grid(axes)
    style.thousandths(axes)
    looks = style.looks(results)
    ends = [(variant, _points(group, variant, value)) for variant in variants]
    style.label_ends(axes, [(p[-1][0], p[-1][1], style.arm(results, v), looks[v].colour) for v, p in ends if p])
