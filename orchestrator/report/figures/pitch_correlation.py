"""Figure 4: correlation of note-aligned IC with pitch surprisal over noise levels, with intervals and baselines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from orchestrator.report.figures import style
from orchestrator.report.pitch_arms import BASELINES, ArmEstimate, arms, estimates
from orchestrator.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = {
    "spearman": "Spearman ρ with pitch surprisal",
    "spearman_partial": "partial Spearman ρ",
}
BASELINE_NAMES = dict(zip(BASELINES, ("|interval| alone", "unigram alone", "repetition alone"), strict=True))
DASHES = dict(zip(BASELINES, ((4, 3), (1, 2), (7, 2, 1, 2)), strict=True))


def draw(results: Results) -> Figure | None:
    """A column per bottleneck, a row per measure: means with 95 % intervals over clusters of tunes (and seeds)."""
    found = estimates(results, tuple(ROWS))
    measures = [measure for measure in ROWS if any(row.measure == measure for row in found)]
    if not measures:
        return None
    first = {row.variants[0] for row in found}
    shown = replace(results, variants=tuple(variant for variant in results.variants if variant in first))
    columns = style.facets(shown, shown.variants)
    size = (1.7 + 4.2 * len(columns), 1.3 + 2.6 * len(measures))
    figure = Figure(figsize=size)
    grid = figure.subplots(len(measures), len(columns), sharey="row", sharex="col", squeeze=False)
    figure.subplots_adjust(
        left=0.75 / size[0],
        right=1 - 1.4 / size[0],
        top=1 - 0.45 / size[1],
        bottom=0.95 / size[1],
        wspace=0.42,
        hspace=0.14,
    )
    for axes_of_row, measure in zip(grid, measures, strict=True):
        rows = [row for row in found if row.measure == measure]
        for axes, variants in zip(axes_of_row, columns.values(), strict=True):
            _lines(axes, shown, [row for row in rows if row.variants[0] in variants])
        for axes, variants in zip(axes_of_row, columns.values(), strict=True):
            _finish(axes, shown, [row for row in rows if row.variants[0] in variants], measure == "spearman")
        axes_of_row[0].set_ylabel(ROWS[measure])
    for axes, bottleneck in zip(grid[0], columns, strict=True):
        axes.set_title(bottleneck)
    for axes in grid[:-1].flat:
        axes.set_xlabel("")
    figure.text(0.75 / size[0], 0.1 / size[1], _note(found), fontsize=7.5, color=style.MUTED, va="bottom")
    return figure


def _note(found: list[ArmEstimate]) -> str:
    most = max(found, key=lambda row: row.estimate.n_pieces).estimate
    seeds = max(row.estimate.n_seeds for row in found)
    drawn = "clusters" if seeds == 1 else f"clusters, and {seeds} seeds"
    partial = any(row.measure == "spearman_partial" for row in found)
    given = (
        "\nPartial: given |interval|, inter-onset interval, level, and the onset's phase in its frame."
        if partial
        else ""
    )
    return (
        f"Mean over {most.n_pieces} pieces in {most.n_clusters} clusters of tunes; bars: 95 % bootstrap over {drawn}. "
        f"First notes left out.{given}"
    )


def _lines(axes: Axes, shown: Results, rows: list[ArmEstimate]) -> None:
    looks = style.looks(shown)
    variants = list(dict.fromkeys(row.variants[0] for row in rows))
    for i, variant in enumerate(variants):
        look, shift = looks[variant], 0.005 * (i - (len(variants) - 1) / 2)
        points = [row for row in rows if row.variants[0] == variant]
        levels, means = [row.noise_level + shift for row in points], [row.estimate.mean for row in points]
        for level, row in zip(levels, points, strict=True):
            if row.estimate.low is not None and row.estimate.high is not None:
                axes.vlines(level, row.estimate.low, row.estimate.high, color=look.colour, linewidth=1, alpha=0.6)
        axes.plot(levels, means, color=look.colour, marker=look.marker, markeredgecolor="white", markeredgewidth=0.7)


def _baselines(shown: Results) -> dict[str, float]:
    """What pitch surprisal shares with what needs no audio."""
    found = {}
    for name in BASELINES:
        values = [score.metrics[name] for score in shown.pitch if score.metrics.get(name) is not None]
        if values:
            found[name] = sum(map(float, values)) / len(values)
    return found


def _finish(axes: Axes, shown: Results, rows: list[ArmEstimate], with_baselines: bool) -> None:
    levels = sorted({row.noise_level for row in rows})
    if not levels:
        return
    variants = list(dict.fromkeys(row.variants[0] for row in rows))
    style.noise_axis(axes, levels, any(shown.degenerate(variant, level) for variant in variants for level in levels))
    style.grid(axes)
    looks = style.looks(shown)
    names = {variants[0]: name for name, variants in arms(shown, shown.variants).items()}
    last = {row.variants[0]: row for row in rows}
    ends = [
        (row.noise_level, row.estimate.mean, _label(shown, variant, names[variant]), looks[variant].colour)
        for variant, row in last.items()
    ]
    for name, value in _baselines(shown).items() if with_baselines else ():
        axes.axhline(value, color=style.MUTED, linewidth=1.0, linestyle=(0, DASHES[name]), zorder=1)
        ends.append((levels[-1], value, BASELINE_NAMES[name], style.MUTED))
    style.label_ends(axes, ends)


def _label(shown: Results, variant: str, arm: str) -> str:
    """An arm's name without its bottleneck, which the panel's title says."""
    return arm.removeprefix(shown.bottlenecks.get(variant, "")).strip() or arm
