"""What survives latent noise: reconstruction over SNR, with each arm's floor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from orchestrator.report.figures import style
from orchestrator.report.results import Results, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {
    "log_spectral_distance": "log-spectral distance (dB)\nlower is better",
    "si_sdr": "SI-SDR (dB)\nhigher is better",
}
"""Metrics in the order of the panels: the primary measure first; SI-SDR is descriptive."""


def draw(results: Results) -> Figure | None:
    """A row per bottleneck, a column per metric; dotted: decoding another recording's latents."""
    metrics = [
        name for name in LABELS if any(s.metrics.get(f"{name}_mean") is not None for s in results.reconstruction)
    ]
    if not metrics:
        return None
    rows = style.facets(results, tuple({score.variant for score in results.reconstruction}))
    size = (1.75 + 3.9 * len(metrics), 0.75 + 2.9 * len(rows))
    figure = Figure(figsize=size)
    axes = figure.subplots(len(rows), len(metrics), sharey="col", sharex=True, squeeze=False)
    figure.subplots_adjust(
        left=0.85 / size[0],
        right=1 - 1.3 / size[0],
        top=1 - 0.35 / size[1],
        bottom=0.85 / size[1],
        hspace=0.24,
        wspace=0.62,
    )
    snrs = sorted({float(score.x) for score in results.reconstruction}, reverse=True)
    for axis_row, variants in zip(axes, rows.values(), strict=True):
        for axis, metric in zip(axis_row, metrics, strict=True):
            _lines(axis, results, variants, metric, snrs)
    for i, (bottleneck, variants) in enumerate(rows.items()):
        for axis, metric in zip(axes[i], metrics, strict=True):
            _finish(axis, results, variants, metric, snrs)
            axis.set_title(bottleneck)
            axis.set_ylabel(LABELS[metric])
            axis.set_xlabel("SNR of the latents (power ratio)" if i == len(rows) - 1 else "")
    excerpts = max(int(score.metrics.get("n_excerpts") or 0) for score in results.reconstruction)
    note = f"Mean ± SE over {excerpts} excerpts. Dotted: the arm's floor, decoding another recording's latents."
    figure.text(0.85 / size[0], 0.1 / size[1], note, fontsize=7.5, color=style.MUTED, va="bottom")
    return figure


def _of(results: Results, variant: str, snrs: list[float]) -> list[tuple[int, Score]]:
    found = [(snrs.index(float(score.x)), score) for score in results.reconstruction if score.variant == variant]
    return sorted(found, key=lambda pair: pair[0])


def _points(results: Results, variant: str, metric: str, snrs: list[float], kind: str) -> list[tuple[int, float]]:
    rows = [(x, score.metrics.get(f"{metric}_{kind}")) for x, score in _of(results, variant, snrs)]
    return [(x, float(value)) for x, value in rows if value is not None and math.isfinite(float(value))]


def _lines(axes: Axes, results: Results, variants: list[str], metric: str, snrs: list[float]) -> None:
    looks = style.looks(results)
    for i, variant in enumerate(variants):
        look, shift = looks[variant], 0.03 * (i - (len(variants) - 1) / 2)
        means = _points(results, variant, metric, snrs, "mean")
        errors = dict(_points(results, variant, metric, snrs, "se"))
        floors = _points(results, variant, metric, snrs, "floor_mean")
        places, values = [x + shift for x, _ in means], [y for _, y in means]
        spread = [errors.get(x, 0.0) for x, _ in means]
        axes.plot(
            [x for x, _ in floors], [y for _, y in floors], color=look.colour, linestyle=":", linewidth=1.1, alpha=0.8
        )
        axes.errorbar(places, values, spread, color=look.colour, linewidth=0, elinewidth=1, alpha=0.6)
        axes.plot(places, values, color=look.colour, marker=look.marker, markeredgecolor="white", markeredgewidth=0.7)


def _finish(axes: Axes, results: Results, variants: list[str], metric: str, snrs: list[float]) -> None:
    axes.set_xticks(range(len(snrs)), ["∞ (clean)" if math.isinf(snr) else f"{snr:g}" for snr in snrs])
    axes.set_xlim(-0.25, len(snrs) - 0.75)
    axes.grid(axis="y", color=style.FAINT, linewidth=0.6)
    axes.tick_params(labelbottom=True)
    looks = style.looks(results)
    lines = [(variant, _points(results, variant, metric, snrs, "mean")) for variant in variants]
    style.label_ends(axes, [(p[-1][0], p[-1][1], style.arm(results, v), looks[v].colour) for v, p in lines if p])
