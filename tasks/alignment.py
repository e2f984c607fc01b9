"""Puts series on other time bases: IC frames onto notes, frames and notes onto the samples of an EEG recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NoteFrames = Literal["onset", "onset_and_next", "maximum"]

FRAME_S = 4096 / 44100
"""Duration of one latent frame in seconds (Music2Latent: 8 hops of 512 samples at 44.1 kHz)."""

TIME_TOLERANCE_S = 1e-9
"""An instant this little before a frame's start counts as that start: times are quotients of integers in floats."""


class FrameSeries(Protocol):
    """One value per latent frame, with the frame's start in seconds of the recording."""

    @property
    def values(self) -> Floats:
        """Shape (T,); NaN where there is none."""
        ...

    @property
    def start_s(self) -> Floats:
        """Shape (T,), rising."""
        ...


def frame_index(series: FrameSeries, times_s: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Index of the frame that contains each instant, -1 where none does.

    Parameters
    ----------
    series : FrameSeries
        T frames of `FRAME_S` seconds each.
    times_s : array_like, shape (n,)
        Instants in seconds of the recording.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    times = np.asarray(times_s, dtype=np.float64)
    starts = np.asarray(series.start_s, dtype=np.float64)
    index = np.searchsorted(starts, times + TIME_TOLERANCE_S, side="right").astype(np.int64) - 1
    if starts.size == 0:
        return np.full(times.shape, -1, dtype=np.int64)
    inside = (index >= 0) & (times + TIME_TOLERANCE_S < starts[np.maximum(index, 0)] + FRAME_S)
    return np.where(inside, index, -1)


def note_ic(series: FrameSeries, notes: Sequence[Sequence[float]], frames: NoteFrames) -> Floats:
    """IC of each note: of the frame that contains its onset, or the mean or maximum of that frame and the next.

    Parameters
    ----------
    series : FrameSeries
        IC of one recording, in any unit.
    notes : sequence of (onset in s, ...)
        Notes of the recording; only the first entry, the onset, is read.
    frames : {"onset", "onset_and_next", "maximum"}
        Which frames a note gets: one, the mean of two, the larger of two.

    Returns
    -------
    ndarray of float64, shape (number of notes,)
        NaN where a frame that the note needs is missing or has no IC.
    """
    onsets = np.array([note[0] for note in notes], dtype=np.float64)
    index = frame_index(series, onsets)
    padded = np.append(np.asarray(series.values, dtype=np.float64), [np.nan])
    here = np.where(index >= 0, padded[index], np.nan)
    if frames == "onset":
        return here
    following = np.where(index >= 0, padded[np.maximum(index + 1, 0)], np.nan)
    return np.maximum(here, following) if frames == "maximum" else (here + following) / 2


def hold(series: FrameSeries, rate: float, n_samples: int) -> Floats:
    """Zero-order hold: sample k, at time ``k / rate``, takes the value of the frame that it lies in.

    Parameters
    ----------
    series : FrameSeries
        IC of one recording.
    rate : float
        Samples per second of the result.
    n_samples : int
        Length of the result.

    Returns
    -------
    ndarray of float64, shape (n_samples,)
        NaN before the first frame, after the last one, and where the series is NaN.
    """
    index = frame_index(series, np.arange(n_samples) / rate)
    padded = np.append(np.asarray(series.values, dtype=np.float64), [np.nan])
    return np.where(index >= 0, padded[index], np.nan)


def impulses(times_s: npt.ArrayLike, values: npt.ArrayLike, rate: float, n_samples: int) -> Floats:
    """Impulses at the sample nearest to each instant; those that meet on one sample add up.

    Parameters
    ----------
    times_s, values : array_like, shape (n,)
        Instants in seconds and the heights of their impulses. A height of NaN puts no impulse: z-score first, and a
        note without a value counts as an average one.
    rate : float
        Samples per second of the result.
    n_samples : int
        Length of the result; instants outside of it are dropped.

    Returns
    -------
    ndarray of float64, shape (n_samples,)
    """
    times = np.asarray(times_s, dtype=np.float64)
    heights = np.asarray(values, dtype=np.float64)
    index = np.floor(times * rate + 0.5).astype(np.int64)
    kept = (index >= 0) & (index < n_samples) & np.isfinite(heights)
    result = np.zeros(n_samples)
    np.add.at(result, index[kept], heights[kept])
    return result
