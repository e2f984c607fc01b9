"""Spearman correlation of note-aligned IC with pitch surprisal over noise levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from orchestrator.report.figures import style
from orchestrator.report.results import Results, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASELINE = "baseline_interval_spearman"


def draw(results: Results) -> Figure | None:
    """One panel per bottleneck: mean and standard error over pieces, and the baseline that needs no model."""
    scores = [score for score in results.pitch if score.metrics.get("spearman_mean") is not None]
    if not scores:
        return None
    columns = style.facets(results, tuple({score.variant for score in scores}))
    size = (1.7 + 4.2 * len(columns), 3.9)
    figure = Figure(figsize=size)
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.75 / size[0], right=1 - 1.4 / size[0], top=1 - 0.45 / size[1], bottom=0.85 / size[1], wspace=0.42
    )
    for axis, variants in zip(axes[0], columns.values(), strict=True):
        _lines(axis, results, scores, variants)
    for axis, (bottleneck, variants) in zip(axes[0], columns.items(), strict=True):
        axis.set_title(bottleneck)
        _finish(axis, results, scores, variants)
    axes[0, 0].set_ylabel("Spearman ρ with pitch surprisal")
    pieces = max(int(score.metrics.get("n_pieces") or 0) for score in scores)
    note = f"Mean ± SE over {pieces} pieces; IC at note onsets against symbolic pitch surprisal, first notes left out."
    figure.text(0.75 / size[0], 0.1 / size[1], note, fontsize=7.5, color=style.MUTED, va="bottom")
    return figure


def _of(scores: list[Score], variant: str) -> list[tuple[float, float, float]]:
    rows = [
        (float(s.x), float(s.metrics["spearman_mean"]), s.metrics.get("spearman_se"))
        for s in scores
        if s.variant == variant
    ]
    return [(level, mean, float(error or 0.0)) for level, mean, error in sorted(rows, key=lambda row: row[0])]


def _lines(axes: Axes, results: Results, scores: list[Score], variants: list[str]) -> None:
    looks = style.looks(results)
    for i, variant in enumerate(variants):
        points, look = _of(scores, variant), looks[variant]
        shift = 0.005 * (i - (len(variants) - 1) / 2)
        levels, means, errors = [p[0] + shift for p in points], [p[1] for p in points], [p[2] for p in points]
        axes.errorbar(levels, means, errors, color=look.colour, linewidth=0, elinewidth=1, alpha=0.6)
        axes.plot(levels, means, color=look.colour, marker=look.marker, markeredgecolor="white", markeredgewidth=0.7)
    baseline = next((s.metrics[BASELINE] for s in scores if s.metrics.get(BASELINE) is not None), None)
    if baseline is not None:
        axes.axhline(float(baseline), color=style.MUTED, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)


def _finish(axes: Axes, results: Results, scores: list[Score], variants: list[str]) -> None:
    levels = [float(score.x) for score in scores]
    style.noise_axis(axes, levels, any(results.degenerate(variant, level) for variant in variants for level in levels))
    style.grid(axes)
    looks = style.looks(results)
    lines = [(variant, _of(scores, variant)) for variant in variants]
    ends = [(p[-1][0], p[-1][1], style.arm(results, v), looks[v].colour) for v, p in lines if p]
    baseline = next((s.metrics[BASELINE] for s in scores if s.metrics.get(BASELINE) is not None), None)
    if baseline is not None:
        ends.append((max(levels), float(baseline), "|interval| alone", style.MUTED))
    style.label_ends(axes, ends)
