"""Where on the head IC adds: each variant's best claimed level, or its best; significant channels, and clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from orchestrator.report.eeg_results import Cluster
from orchestrator.report.figures import style
from orchestrator.report.results import Condition, Group, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, MOST, MOST_CLUSTERS = 4, 8, 2


def draw(results: Results) -> Figure | None:
    """Excess delta r of significant channels on a grey head; a head says so when there are none."""
    group = results.tested
    if group is None or not group.positions or len(group.positions) != len(group.channels):
        return None
    shown = _conditions(results, group)
    if not shown:
        return None
    info = _info(group)
    top = max((value for c in shown for value in _significant(group, c).values()), default=0.0)
    n_rows, n_columns = -(-len(shown) // COLUMNS), min(COLUMNS, len(shown))
    head = style.stamp_height(results) + 0.55
    size = (max(2.5 * n_columns + 1.1, 6.6), 2.85 * n_rows + head + 0.2)
    figure = Figure(figsize=size)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    figure.subplots_adjust(
        left=0.02, right=1 - 0.95 / size[0], top=1 - head / size[1], bottom=0.8 / size[1], hspace=0.45
    )
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, condition in zip(axes.flat, shown, strict=False):
        _head(axis, info, group, condition, top or 1.0)
    if top > 0:
        _colourbar(figure, size, top)
    note = f"Coloured: significant channels (p ≤ {group.alpha:g}, maximum over channels, levels and variants), dotted."
    if any(_clusters(group, condition) for condition in shown):
        note += "\nRings: the cluster extends over these channels (mass, p over subjects); no claim."
    figure.text(0.02, 0.1 / size[1], note, fontsize=7.5, color=style.MUTED, va="bottom")
    style.stamp(figure, results)
    return figure


def _conditions(results: Results, group: Group) -> list[Condition]:
    """Each variant's best claimed level; where nothing at all is claimed, each variant's best level."""
    candidates = [c for c in group.conditions if c.claimed] or list(group.conditions)
    best: dict[str, Condition] = {}
    for condition in candidates:
        mean = condition.excess_delta_r_mean
        before = best.get(condition.variant)
        if mean is not None and (before is None or mean > (before.excess_delta_r_mean or 0.0)):
            best[condition.variant] = condition
    return [best[variant] for variant in results.variants if variant in best][:MOST]


def _significant(group: Group, condition: Condition) -> dict[str, float]:
    values = condition.excess_by_channel or condition.by_channel
    named = dict(zip(group.channels, values, strict=False))
    return {name: float(named[name] or 0.0) for name in condition.significant_channels if name in named}


def _info(group: Group) -> Any:
    import mne

    info = mne.create_info(list(group.channels), 64.0, "eeg", verbose="error")
    places = dict(zip(group.channels, np.asarray(group.positions, float), strict=True))
    info.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"), verbose="error")
    return info


def _head(axes: Axes, info: Any, group: Group, condition: Condition, top: float) -> None:
    import mne

    found = _significant(group, condition)
    values = np.array([max(found.get(name, 0.0), 0.0) for name in group.channels])
    mne.viz.plot_topomap(
        values,
        info,
        axes=axes,
        show=False,
        cmap=_colours(),
        vlim=(0.0, top),
        contours=0,
        sensors=False,
        outlines="head",
        image_interp="linear",
        border=0.0,
        mask=np.ones(len(values), dtype=bool),
        mask_params={"marker": "none", "linestyle": "none"},
    )
    spots = next(xy for line in axes.get_lines() if len(xy := np.asarray(line.get_xydata())) == len(values))
    if found:
        dots = spots[[name in found for name in group.channels]]
        axes.scatter(dots[:, 0], dots[:, 1], s=7, color=style.INK, linewidths=0, zorder=5)
    clusters = _clusters(group, condition)
    for cluster in clusters:
        rings = spots[[name in cluster.channels for name in group.channels]]
        axes.scatter(rings[:, 0], rings[:, 1], s=34, facecolors="none", edgecolors=style.INK, linewidths=0.9, zorder=4)
    axes.set_title(f"{condition.variant}\ns = {condition.noise_level:g}", fontsize=9, loc="center", weight="normal")
    if not found and not clusters:
        axes.text(0.5, 0.5, "none\nsignificant", transform=axes.transAxes, ha="center", va="center", color=style.MUTED)
    lines = [_state(condition, len(found)), *(_extent(cluster) for cluster in clusters)]
    below: dict[str, Any] = {
        "transform": axes.transAxes,
        "ha": "center",
        "va": "top",
        "fontsize": 8,
        "color": style.MUTED,
    }
    axes.text(0.5, -0.04, "\n".join(lines), **below)


def _state(condition: Condition, n: int) -> str:
    state = "claimed" if condition.claimed else "not claimed"
    return f"{state}; {n} channel{'' if n == 1 else 's'}" if n else state


def _clusters(group: Group, condition: Condition) -> list[Cluster]:
    """The clusters of a condition, those of the smallest p first, as many as can be told apart on a map."""
    here = (condition.variant, condition.noise_level)
    return [cluster for cluster in group.clusters if (cluster.variant, cluster.noise_level) == here][:MOST_CLUSTERS]


def _extent(cluster: Cluster) -> str:
    n = len(cluster.channels)
    return f"cluster over {n} channel{'' if n == 1 else 's'}, p = {cluster.p:.2g}"


def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("grey_to_blue", ["#ececee", "#b9cfe4", "#5b9bc8", "#0a5a9c", "#062f5c"])


def _colourbar(figure: Figure, size: tuple[float, float], top: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    place = figure.add_axes((1 - 0.8 / size[0], 0.3, 0.12 / size[0], 0.38))
    bar = figure.colorbar(ScalarMappable(Normalize(0.0, top), _colours()), cax=place)
    bar.outline.set_visible(False)
    bar.set_label("excess Δr (×0.001)", fontsize=8)
    style.thousandths(bar.ax)
    bar.ax.tick_params(labelsize=7.5)
