"""A picture of where the electrodes sit, seen from above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from tasks.eeg.overview import SubjectFacts

COLUMNS, MOST = 3, 6


def draw(subjects: Sequence[SubjectFacts], out: Path) -> None:
    """Each montage once, with the subjects who have it: names at the angle from the vertex, nose up.

    Raises
    ------
    OSError, ValueError
        If the picture can't be written, or its suffix is no format of pictures.
    """
    montages: dict[tuple[Any, ...], list[SubjectFacts]] = {}
    for facts in subjects:
        assert facts.positions is not None
        key = (facts.channels, tuple(np.round(facts.positions, 3).ravel()))
        montages.setdefault(key, []).append(facts)
    shown = list(montages.values())[:MOST]
    n_columns = min(COLUMNS, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure = Figure(figsize=(6.0 * n_columns, 6.4 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
        axis.set_aspect("equal")
    for axis, group in zip(axes.flat, shown, strict=False):
        _head(axis, group)
    if len(montages) > MOST:
        figure.suptitle(f"{MOST} of {len(montages)} montages")
    figure.savefig(out, dpi=130)


def _head(axis: Any, group: Sequence[SubjectFacts]) -> None:
    first = group[0]
    places = flat(np.asarray(first.positions, dtype=np.float64))
    turn = np.linspace(0, 2 * np.pi, 200)
    axis.plot(np.cos(turn), np.sin(turn), color="#9a9aa0", lw=1)
    axis.plot([-0.1, 0, 0.1], [0.995, 1.12, 0.995], color="#9a9aa0", lw=1)
    bad = np.isin(first.channels, first.bads)
    axis.scatter(*places[~bad].T, s=14, color="#0a5a9c")
    axis.scatter(*places[bad].T, s=26, color="#b3261e", marker="x")
    for name, (x, y) in zip(first.channels, places, strict=True):
        axis.annotate(name, (x, y), (0, 4), textcoords="offset points", ha="center", fontsize=7)
    who = first.name if len(group) == 1 else f"{first.name} and {len(group) - 1} more"
    marked = "; × marked bad" if bad.any() else ""
    axis.set_title(f"{who}: {len(first.channels)} channels{marked}", fontsize=10)


def flat(positions: Any) -> Any:
    """Azimuthal equidistant projection: distance is the angle from the vertex, 1 at the sphere's equator.

    Parameters
    ----------
    positions : ndarray, shape (C, 3)
        x right, y front, z up, around the origin.

    Returns
    -------
    ndarray of float64, shape (C, 2)
        x right, y front.
    """
    radius = np.linalg.norm(positions, axis=1)
    angle = np.arccos(np.clip(positions[:, 2] / radius, -1, 1))
    around = np.arctan2(positions[:, 1], positions[:, 0])
    return np.column_stack([np.cos(around), np.sin(around)]) * (angle / (np.pi / 2))[:, None]
