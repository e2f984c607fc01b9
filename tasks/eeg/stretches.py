"""What is shifted by itself, how far and in how many ways: a whole recording, or what lies between gaps in its IC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tasks.contract import TaskError
from tasks.eeg import masks
from tasks.eeg.masks import Flags, Spans

MIN_SHIFTS = 100
"""Fewer distinct shifts than this in a piece make too coarse a null distribution."""

IN_PLACE_MAX = 0.1
"""At most this share of a piece's IC may lie in stretches between gaps that are too short to be shifted."""


def smallest_shift(n_lags: int, shift_min_s: float, sample_rate_hz: float) -> int:
    """In samples: `shift_min_s`, and no less than the lag window."""
    return max(int(np.ceil(shift_min_s * sample_rate_hz)), n_lags)


def shift_range(n_present: int, n_lags: int, shift_min_s: float, sample_rate_hz: float, piece: str) -> tuple[int, int]:
    """Smallest shift and number of distinct shifts of a piece with IC at `n_present` samples.

    Shifts keep at least ``max(shift_min_s, lag window)`` from 0 both ways around.

    Raises
    ------
    TaskError
        If fewer than 100 are left.
    """
    smallest = smallest_shift(n_lags, shift_min_s, sample_rate_hz)
    n_shifts = n_present - 2 * smallest + 1
    if n_shifts < MIN_SHIFTS:
        raise TaskError(
            f"{piece}: {n_present / sample_rate_hz:.1f} s of IC offer {max(n_shifts, 0)} distinct shifts of at least "
            f"{smallest / sample_rate_hz:.2f} s, and {MIN_SHIFTS} are needed; use longer pieces or a smaller "
            "permutations.shift_min_s"
        )
    return smallest, n_shifts


@dataclass(frozen=True)
class Stretch:
    """Samples `first` to ``stop - 1`` of a recording, without a gap in IC; `n_shifts` is 0 where they stay in place."""

    first: int
    stop: int
    smallest: int
    n_shifts: int


def stretches(present: Flags, n_lags: int, shift_min_s: float, sample_rate_hz: float, piece: str) -> list[Stretch]:
    """What is shifted, each around its own ends: a whole recording, or every stretch between gaps in its IC.

    A stretch with fewer than 100 distinct shifts stays in place, in every permutation. The null hypothesis changes no
    distribution by a shift of the other stretches alone, so the level is kept, and power is lost.

    Raises
    ------
    TaskError
        If there are fewer than 100 distinct shifts, or too much would stay in place.
    """
    spans = masks.of_flags(present)
    if len(spans) < 2:
        n_present = masks.count(spans)
        limits = shift_range(n_present, n_lags, shift_min_s, sample_rate_hz, piece)
        return [Stretch(start, stop, *limits) for start, stop in spans]
    smallest = smallest_shift(n_lags, shift_min_s, sample_rate_hz)
    counts = [stop - start - 2 * smallest + 1 for start, stop in spans]
    found = [
        Stretch(start, stop, smallest, n if n >= MIN_SHIFTS else 0)
        for (start, stop), n in zip(spans, counts, strict=True)
    ]
    still = sum(own.stop - own.first for own in found if not own.n_shifts)
    if still > IN_PLACE_MAX * masks.count(spans):
        raise TaskError(
            f"{piece}: gaps leave {still / sample_rate_hz:.1f} of {masks.count(spans) / sample_rate_hz:.1f} s of IC in "
            f"stretches with fewer than {MIN_SHIFTS} distinct shifts of at least {smallest / sample_rate_hz:.2f} s; "
            f"allowed is a share of {IN_PLACE_MAX:g}; leave the piece or the noise level out, or use a smaller "
            "permutations.shift_min_s"
        )
    return found


def between(found: Sequence[Stretch]) -> Spans:
    """The gaps."""
    return tuple((own.stop, following.first) for own, following in pairwise(found))
