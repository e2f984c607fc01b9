"""Gaps of IC: frames without a value, and the samples of a regressor that they leave unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tasks.alignment import FrameSeries, hold, impulses, note_ic
from tasks.eeg import masks
from tasks.eeg.masks import Flags, Spans

Floats = npt.NDArray[np.float64]


class Frames:
    """A series with other values on the same frames."""

    def __init__(self, like: FrameSeries, values: Floats) -> None:
        self.values, self.start_s = values, like.start_s


def lost_frames(series: FrameSeries) -> Flags:
    """Frames after the first without a value: the first never has one."""
    lost = ~np.isfinite(series.values)
    lost[:1] = False
    return lost


def missing_samples(
    series: Mapping[str, FrameSeries],
    lengths: Mapping[str, int],
    notes: Mapping[str, Sequence[Sequence[float]] | None],
    form: str,
    rate: int,
) -> dict[str, Spans]:
    """Samples of the regressor that frames without IC leave unknown, by recording that has any.

    With ``hold`` they are those of the frames; with ``onset`` the onsets of notes whose IC would be a mean with such a
    frame. Between onsets the regressor has its value whatever IC is.

    Parameters
    ----------
    series : mapping of recording to frame series
        NaN where there is no IC.
    lengths : mapping of recording to int
        Samples at `rate`; recordings that aren't in `series` are left out.
    notes : mapping of recording to notes (onset in s first), or None where they are unknown
    form : {"hold", "onset"}
    rate : int
        Samples per second of the EEG.
    """
    found = {}
    for key in sorted(lengths.keys() & series.keys()):
        lost = lost_frames(series[key])
        if not lost.any():
            continue
        if form == "hold":
            flags = hold(Frames(series[key], lost.astype(np.float64)), rate, lengths[key]) == 1.0
        else:
            filled = Frames(series[key], np.where(lost, 0.0, series[key].values))
            heard = notes[key] or ()
            own, known = (note_ic(frames, heard, "onset_and_next") for frames in (series[key], filled))
            gone = np.isnan(own) & np.isfinite(known)
            onsets = np.array([note[0] for note in heard])[gone]
            flags = impulses(onsets, np.ones(onsets.size), rate, lengths[key]) > 0
        if flags.any():
            found[key] = masks.of_flags(flags)
    return found
