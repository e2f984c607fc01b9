"""Where electrodes sit: the BioSemi montage of 64 channels, for simulated listeners and files without locations."""

from __future__ import annotations

from functools import lru_cache

import mne
import numpy as np

from tasks.eeg.trials import Floats, Sensors

RADIUS_M = 0.095
MASTOID_POSITIONS = np.array([[-0.068, -0.030, -0.059], [0.068, -0.030, -0.059]])
"""Behind and below the ears on the montage's sphere of 95 mm, in metres (x right, y front, z up); left, right."""


@lru_cache(maxsize=1)
def _biosemi() -> tuple[tuple[str, ...], Floats]:
    positions = mne.channels.make_standard_montage("biosemi64").get_positions()["ch_pos"]
    return tuple(positions), np.array(list(positions.values()), dtype=np.float64)


def biosemi_64() -> Sensors:
    """The 64 channels by their 10-20 names, on a sphere of 95 mm around the origin."""
    names, positions = _biosemi()
    return Sensors(names, positions.copy())


def positions_for(names: tuple[str, ...]) -> Floats | None:
    """Positions in metres of channels known by their 10-20 names (any case), or None if one is unknown.

    The caps' own labels A1-A32, B1-B32 are the same 64 channels in the same order.
    """
    known, positions = _biosemi()
    by_name = {name.lower(): place for place, name in enumerate(known)}
    by_name |= {f"{'ab'[place // 32]}{place % 32 + 1}": place for place in range(64)}
    places = [by_name.get(name.lower()) for name in names]
    if any(place is None for place in places):
        return None
    return np.array([positions[place] for place in places if place is not None])


@lru_cache(maxsize=1)
def _extended() -> dict[str, Floats]:
    found = mne.channels.make_standard_montage("colin27_1005").get_positions()["ch_pos"]
    names = list(found)
    placed = on_sphere(np.array([found[name] for name in names], dtype=np.float64))
    return {name.lower(): position for name, position in zip(names, placed, strict=True)}


def standard_positions(names: tuple[str, ...]) -> Floats | None:
    """As `positions_for`, and where that knows not all of them, by the names of the extended 10-20 system (10-05)."""
    cap = positions_for(names)
    if cap is not None:
        return cap
    known = _extended()
    if any(name.lower() not in known for name in names):
        return None
    return np.array([known[name.lower()] for name in names])


def on_sphere(positions: Floats) -> Floats:
    """Positions moved and scaled so that the sphere that fits them best is one of 95 mm around the origin.

    Parameters
    ----------
    positions : ndarray, shape (C, 3)
        In any unit and around any point (files have them around the middle of the ears).

    Returns
    -------
    ndarray of float64, shape (C, 3)
        In metres. Of fewer than 8 channels, or channels in one plane, only the scale is changed.

    Notes
    -----
    Least squares in ``|p|^2 = 2 c p + (r^2 - |c|^2)``, which is linear in the centre c (Coope 1993).
    """
    centre = np.zeros(3)
    design = np.column_stack([2 * positions, np.ones(len(positions))])
    scale = np.maximum(np.abs(design).max(axis=0), np.finfo(np.float64).tiny)
    if len(positions) >= 8 and np.linalg.cond(design / scale) < 1e3:
        solved = np.linalg.lstsq(design / scale, (positions**2).sum(axis=1), rcond=None)[0] / scale
        centre = solved[:3]
    moved = positions - centre
    return np.asarray(moved * (RADIUS_M / np.median(np.linalg.norm(moved, axis=1))))
