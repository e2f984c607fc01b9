"""How every figure of a study looks: colours safe for colour-blind readers, direct labels, stamps, equal bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from orchestrator.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, FAINT, RED = "#1a1a1a", "#5f6368", "#d9dbde", "#b3261e"
# Okabe and Ito's palette by family: no latent noise grey, noise for the decoder blue, for the encoder too orange.
FAMILIES = {
    "none": ("#4d4d4d", "#8c8c8c"),
    "decoder": ("#56b4e9", "#0072b2", "#0b3c6f"),
    "encoder+decoder": ("#d55e00", "#e69f00", "#8f3200"),
}
OTHERS = ("#009e73", "#cc79a7", "#8a7a00")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h")
SIMULATED = "SIMULATED: recovers a planted response; says nothing about brains"
EXPLORATORY = "EXPLORATORY: chosen on held-out EEG"
RED_STAMP = "RED: the canaries failed; nothing here may be relied upon"

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.hashsalt": "orchestrator",
    "axes.formatter.use_mathtext": True,
}


@dataclass(frozen=True)
class Look:
    """Colour and marker of one arm: the same in every panel and figure."""

    colour: str
    marker: str


@contextmanager
def applied() -> Iterator[None]:
    """Draw in this style, whatever the user's matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a PNG (Agg: no display is needed) whose bytes depend on the figure alone."""
    FigureCanvasAgg(figure)
    figure.savefig(path, metadata={"Software": None})


def facets(results: Results, variants: Sequence[str]) -> dict[str, list[str]]:
    """Variants by bottleneck: one column of panels each."""
    found: dict[str, list[str]] = {}
    for variant in results.variants:
        if variant in variants:
            found.setdefault(results.bottlenecks.get(variant, ""), []).append(variant)
    return found


def arm(results: Results, variant: str) -> str:
    """A variant's name without its bottleneck, which the panel's title says."""
    bottleneck = results.bottlenecks.get(variant, "")
    return variant.removeprefix(bottleneck).strip() or variant


def looks(results: Results) -> Mapping[str, Look]:
    """Each variant's look; variants that differ in the bottleneck alone share it."""
    shared: dict[str, Look] = {}
    used: dict[str, int] = {}
    for variant in results.variants:
        name = arm(results, variant)
        if name not in shared:
            noise = results.arms.get(variant, {}).get("latent_noise", {})
            family = str(noise.get("applied_to", "")) if isinstance(noise, Mapping) else ""
            colours, place = FAMILIES.get(family, OTHERS), used.get(family, 0)
            used[family] = place + 1
            shared[name] = Look(colours[place % len(colours)], MARKERS[len(shared) % len(MARKERS)])
    return {variant: shared[arm(results, variant)] for variant in results.variants}


def stamp(figure: Figure, results: Results) -> None:
    """Say at the top of an EEG figure what it must not be taken for."""
    for i, text in enumerate(_stamps(results)):
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#fdecea", "edgecolor": RED, "linewidth": 0.9}
        y = 1 - (0.1 + 0.28 * i) / figure.get_size_inches()[1]
        figure.text(0.995, y, text, ha="right", va="top", fontsize=8.5, color=RED, weight="bold", bbox=box)


def _stamps(results: Results) -> list[str]:
    red = results.canaries is not None and results.canaries.verdict != "green"
    return [text for text, on in ((SIMULATED, results.simulated), (RED_STAMP, red)) if on]


def stamp_height(results: Results) -> float:
    """Inches that the stamps take at the top of a figure."""
    return 0.3 * len(_stamps(results)) + 0.1


def mark_exploratory(figure: Figure, results: Results) -> None:
    """A small stamp in the corner of every figure of an exploratory study."""
    if results.exploratory:
        figure.text(0.995, 0.005, EXPLORATORY, ha="right", va="bottom", fontsize=7, color=RED, weight="bold")


def grid(axes: Axes) -> None:
    """Faint horizontal lines, and a zero line where zero is in view."""
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    low, high = axes.get_ylim()
    if low <= 0 <= high:
        axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], gap: float = 0.062) -> None:
    """Write each line's name beside its last point (x, y, text, colour), moved apart so that none overlap."""
    if not ends:
        return
    to_axes = axes.transData + axes.transAxes.inverted()
    rows = sorted(((to_axes.transform((x, y))[1], y, x, text, colour) for x, y, text, colour in ends))
    places = _apart([row[0] for row in rows], gap)
    for place, (_, y, x, text, colour) in zip(places, rows, strict=True):
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(1.025, place),
            textcoords="axes fraction",
            color=colour,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "alpha": 0.55,
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )


def _apart(wanted: list[float], gap: float) -> list[float]:
    """Sorted positions at least `gap` apart and as near as blocks of them can stay to those wanted."""
    blocks: list[list[float]] = []  # [centre, size]
    for place in wanted:
        blocks.append([place, 1])
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < gap * (blocks[-1][1] + blocks[-2][1]) / 2:
            last, before = blocks.pop(), blocks.pop()
            size = last[1] + before[1]
            blocks.append([(last[0] * last[1] + before[0] * before[1]) / size, size])
    places: list[float] = []
    for centre, size in blocks:
        places.extend(centre + gap * (i - (size - 1) / 2) for i in range(int(size)))
    return places


def thousandths(axes: Axes) -> None:
    """Tick labels in units of 0.001; the axis label says so."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{1000 * value:.3g}".replace("-", "−")))


def noise_axis(axes: Axes, levels: Sequence[float], degenerate: bool = False) -> None:
    """The axis that every figure over noise levels shares: s from 0 (clean) to 1 (all noise).

    Clean latents behind a layer norm lie on a sphere: where that is shown, s = 0 is marked degenerate.
    """
    ticks = sorted(set(levels))
    names = [f"{level:g}" + ("\ndegenerate" if degenerate and level == 0 else "") for level in ticks]
    span = (ticks[-1] - ticks[0]) or 1
    axes.set_xlabel("noise level s  (0 = clean, 1 = all noise)")
    axes.set_xticks(ticks, names)
    axes.set_xlim(ticks[0] - 0.06 * span, ticks[-1] + 0.06 * span)
    if degenerate:
        axes.axvspan(-0.03 * span, 0.03 * span, facecolor="#eeeef0", edgecolor="none", zorder=0)
