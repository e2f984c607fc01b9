"""Where electrodes sit: the BioSemi montage of 64 channels, for simulated listeners and files without locations."""

from __future__ import annotations

from functools import lru_cache

import mne
import numpy as np

from tasks.eeg.trials import Floats, Sensors

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
