"""Viewpoints: what a pitch model sees of a melody, and which pitches each of the things it may see next stands for.

The names are IDyOM's: ``cpitch`` is the chromatic pitch (MIDI number), ``cpint`` the interval from the note before in
semitones, ``cpintfref`` that from the tonic in semitones modulo 12 (the scale degree); ``x`` links two. Given the note
before and the tonic each of the three viewpoints has one value per pitch, so predictions map back onto pitches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Viewpoint = Literal["cpitch", "cpint", "cpintfref x cpint"]
Value = int | tuple[int, int]

# Krumhansl & Kessler (1982): how well each degree of the chromatic scale fits a major and a minor key.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


def value(viewpoint: Viewpoint, pitch: int, before: int | None, tonic: int) -> Value | None:
    """What the viewpoint shows of a note.

    Parameters
    ----------
    viewpoint : {"cpitch", "cpint", "cpintfref x cpint"}
    pitch, before : int
        MIDI pitches of the note and of the one before; None for the first note.
    tonic : int
        Pitch class of the tonic, 0 (C) to 11.

    Returns
    -------
    int, tuple of (scale degree, interval), or None
        None where the viewpoint is undefined: an interval on the first note.
    """
    if viewpoint == "cpitch":
        return pitch
    if before is None:
        return None
    interval = pitch - before
    return interval if viewpoint == "cpint" else ((pitch - tonic) % 12, interval)


def tonic_of(pitches: Sequence[int], durations: Sequence[float] | None = None) -> int:
    """The tonic of the key, major or minor, that a melody fits best (Krumhansl & Schmuckler's method).

    Parameters
    ----------
    pitches : sequence of int
        MIDI pitches.
    durations : sequence of float, optional
        How long each lasts, in any unit; equally long by default.

    Returns
    -------
    int
        Pitch class, 0 (C) to 11: of the 24 key profiles that which correlates best with the time given to each pitch
        class. A melody that fits all alike (no notes, or all pitch classes equally) gets 0.
    """
    heard = np.zeros(12)
    np.add.at(heard, np.array(pitches, dtype=np.int64) % 12, 1.0 if durations is None else np.asarray(durations))
    if np.ptp(heard) == 0:
        return 0
    keys = np.array([np.roll(profile, tonic) for profile in (MAJOR, MINOR) for tonic in range(12)])
    fits = [float(np.corrcoef(heard, key)[0, 1]) for key in keys]
    return int(np.argmax(fits)) % 12
