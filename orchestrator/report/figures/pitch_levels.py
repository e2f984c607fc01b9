"""Figure 4 by arm: IC against pitch surprisal on test tunes over noise levels, and the level that dev tunes chose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from orchestrator.report.figures import style
from orchestrator.report.pitch_arms import ArmEstimate
from orchestrator.report.pitch_contrasts import PRIMARY
from orchestrator.report.pitch_judgement import REACH, ArmJudgement, Judgement
from orchestrator.report.pitch_tables import BASELINE_NAMES
from orchestrator.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 3.5, 3.0
DASHES = dict(zip(BASELINE_NAMES, ((4, 3), (1, 2), (7, 2, 1, 2)), strict=True))


def draw(results: Results) -> Figure | None:
    """A panel per arm whose level could be chosen; None where there is none."""
    found = results.judgement
    shown = [arm for arm in found.arms if found.at(arm.arm, arm.chosen) is not None] if found is not None else []
    if found is None or not shown:
        return None
    columns = min(COLUMNS, len(shown))
    n_rows = -(-len(shown) // columns)
    size = (0.75 + PANEL_WIDTH * columns + 1.45, 1.6 + PANEL_HEIGHT * n_rows + 1.1 * (n_rows - 1))
    figure = Figure(figsize=size)
    grid = figure.subplots(n_rows, columns, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.75 / size[0],
        right=1 - 1.45 / size[0],
        top=1 - 0.6 / size[1],
        bottom=1.0 / size[1],
        wspace=0.1,
        hspace=1.1 / PANEL_HEIGHT,
    )
    panels = list(grid.flat)
    for axes, arm in zip(panels, shown, strict=False):
        _panel(axes, results, found, arm)
    for axes, arm in zip(panels, shown, strict=False):
        _finish(axes, results, found, arm, last=axes in (*grid[:, -1], panels[len(shown) - 1]))
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel("Spearman ρ with pitch surprisal")
    figure.text(0.75 / size[0], 0.1 / size[1], _note(found), fontsize=7.5, color=style.MUTED, va="bottom")
    return figure


def _note(found: Judgement) -> str:
    most = max(found.test, key=lambda row: row.estimate.n_pieces).estimate
    chosen_on = max((row.estimate.n_pieces for row in found.dev), default=0)
    return (
        f"Test: mean over {most.n_pieces} tunes in {most.n_clusters} clusters; band: 95 % bootstrap over clusters, "
        "crossed with seeds; thin: each seed; dashed: partial Spearman.\n"
        f"Dotted: mean over {chosen_on} dev tunes; its largest value chose the ringed level s*. Differences below "
        f"{REACH:g} are out of reach."
    )


def _points(rows: Sequence[ArmEstimate], arm: str, measure: str) -> list[ArmEstimate]:
    return [row for row in rows if (row.arm, row.measure) == (arm, measure)]


def _panel(axes: Axes, results: Results, found: Judgement, arm: ArmJudgement) -> None:
    colour = style.looks(results)[arm.variants[0]].colour
    rows = _points(found.test, arm.arm, PRIMARY)
    levels = [row.noise_level for row in rows]
    banded = [row for row in rows if row.estimate.low is not None and row.estimate.high is not None]
    if banded:
        bounds = [(row.estimate.low or 0.0, row.estimate.high or 0.0) for row in banded]
        lows, highs = zip(*bounds, strict=True)
        axes.fill_between([row.noise_level for row in banded], lows, highs, color=colour, alpha=0.16, linewidth=0)
    for variant in arm.variants if len(arm.variants) > 1 else ():
        seed = sorted((float(s.x), s.metrics.get("spearman_mean")) for s in results.pitch if s.variant == variant)
        there = [(level, float(mean)) for level, mean in seed if isinstance(mean, int | float)]
        axes.plot([x for x, _ in there], [y for _, y in there], color=colour, linewidth=0.6, alpha=0.6)
    for source, measure, dashes in ((found.test, "spearman_partial", (5, 2)), (found.dev, PRIMARY, (1, 1.5))):
        line = _points(source, arm.arm, measure)
        means = [row.estimate.mean for row in line]
        axes.plot([row.noise_level for row in line], means, color=colour, linewidth=1.1, linestyle=(0, dashes))
    axes.plot(levels, [row.estimate.mean for row in rows], color=colour, marker="o", markersize=4)
    test = found.at(arm.arm, arm.chosen)
    if test is not None and arm.chosen is not None:
        axes.axvline(arm.chosen, color=colour, linewidth=0.7, alpha=0.7, zorder=1)
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": style.INK, "linewidths": 1.3, "zorder": 5}
        axes.scatter([arm.chosen], [test.mean], s=110, **ring)


def _finish(axes: Axes, results: Results, found: Judgement, arm: ArmJudgement, last: bool) -> None:
    levels = [row.noise_level for row in _points(found.test, arm.arm, PRIMARY)]
    degenerate = any(results.degenerate(arm.variants[0], level) for level in levels)
    style.noise_axis(axes, levels, degenerate)
    style.grid(axes)
    said = "intermediate is best" if arm.verdict.claimed else "not claimed" if arm.verdict.judged else "not judged"
    axes.set_title(f"{arm.arm}\ns* = {arm.chosen:g}: {said}", fontsize=9)
    ends = []
    for name, estimate in found.baselines.items():
        axes.axhline(estimate.mean, color=style.MUTED, linewidth=0.9, linestyle=(0, DASHES[name]), zorder=1)
        ends.append((levels[-1], estimate.mean, f"{BASELINE_NAMES[name]} alone", style.MUTED))
    if last:
        style.label_ends(axes, ends)
