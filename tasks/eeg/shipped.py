"""The features that a CND data set ships with its stimuli, and whether our audio is aligned with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import signal

from tasks.audio.recording import Recording
from tasks.contract import OpenFile, TaskError
from tasks.eeg.features import envelope
from tasks.eeg.matlab import cells_of, read_mat, scalar
from tasks.eeg.pairing import pair_trials
from tasks.eeg.trials import Floats, Skipped

MAX_LAG_S = 10.0
PART_S, PART_REACH_S = 20.0, 1 / 16
"""Parts of this length are compared by themselves, up to so far from the lag of the whole: less than a short note, so
that in steady music no part is taken for its neighbour by a note."""

MIN_R = 0.2
"""Below this correlation the peak is no evidence that the two are the same music."""


@dataclass(frozen=True)
class Shipped:
    """What ``dataStim.mat`` has.

    Attributes
    ----------
    rate_hz : float
        Samples per second of all features.
    names : tuple of str
        Of the features; those without a name are ``feature 1``, ``feature 2`` ...
    data : tuple of tuple of ndarray
        By feature, by trial; each of shape (samples,) or (samples, columns). Empty where it is no numbers.
    """

    rate_hz: float
    names: tuple[str, ...]
    data: tuple[tuple[Floats, ...], ...]

    @property
    def n_trials(self) -> int:
        return len(self.data[0]) if self.data else 0

    @property
    def envelope(self) -> int:
        """Which feature is the envelope: the first whose name says so, else the first."""
        return next((place for place, name in enumerate(self.names) if "env" in name.lower()), 0)

    def same_as(self) -> list[int]:
        """For each trial the first trial (from 0) with the same envelope: trials that heard the same piece."""
        first: dict[bytes, int] = {}
        series = self.data[self.envelope]
        return [first.setdefault(values.tobytes() or f"none {k}".encode(), k) for k, values in enumerate(series)]


def read_shipped(path: str, open_file: OpenFile) -> Shipped:
    """Read the stimulus file of a CND data set.

    Raises
    ------
    TaskError
        If it isn't one.
    """
    stim = read_mat(path, open_file, "stim")
    rate = scalar(stim, "fs")
    if "data" not in stim or rate is None or not rate > 0:
        raise TaskError(f"{path}: not a CND stimulus file: stim.data or stim.fs (Hz) is missing")
    names = [str(name) for name in cells_of(stim.get("names", ()))]
    rows = _rows(stim["data"], len(names))
    names += [f"feature {k + 1}" for k in range(len(names), len(rows))]
    return Shipped(rate, tuple(names[: len(rows)]), tuple(tuple(_series(cell) for cell in row) for row in rows))


def _rows(data: Any, n_names: int) -> list[list[Any]]:
    """Cells by feature, by trial, whichever way the reader simplified them."""
    if isinstance(data, np.ndarray) and data.dtype == object and data.ndim == 2:
        return [list(row) for row in data]
    cells = cells_of(data)
    if cells and all(isinstance(cell, list) for cell in cells):
        return [list(cell) for cell in cells]
    return [[cell] for cell in cells] if 1 < n_names == len(cells) else [cells]


def _series(value: Any) -> Floats:
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return np.zeros(0)
    return np.squeeze(found) if found.ndim == 2 and 1 in found.shape else found


@dataclass(frozen=True)
class Lag:
    """By how many samples ours is later than the shipped one (below 0: earlier), and the correlation there."""

    samples: int
    r: float


def lag_between(ours: Floats, shipped: Floats, rate_hz: float, around: int = 0, reach_s: float = MAX_LAG_S) -> Lag:
    """Lag of the largest cross-correlation of two envelopes.

    Parameters
    ----------
    ours, shipped : ndarray, shape (n,), (m,)
        Envelopes at the same rate, which may differ in length.
    rate_hz : float
        Their samples per second.
    around : int
        Samples at which the search has its middle.
    reach_s : float
        How far it goes either way; never beyond half of the shorter envelope.

    Returns
    -------
    Lag
        ``r`` is Pearson's, over what overlaps at that lag; 0 for a series that doesn't vary.
    """
    a, b = (np.asarray(values, dtype=np.float64) - np.mean(values) for values in (ours, shipped))
    if min(a.size, b.size) < 2 or not a.std() > 0 or not b.std() > 0:
        return Lag(0, 0.0)
    lags = signal.correlation_lags(a.size, b.size)
    near = (np.abs(lags - around) <= reach_s * rate_hz) & (np.abs(lags) <= min(a.size, b.size) // 2)
    if not near.any():
        return Lag(around, 0.0)
    best = int(lags[near][np.argmax(signal.correlate(a, b, method="fft")[near])])
    a, b = (a[best:], b) if best >= 0 else (a, b[-best:])
    n = min(a.size, b.size)
    if not a[:n].std() > 0 or not b[:n].std() > 0:
        return Lag(best, 0.0)
    return Lag(best, float(np.corrcoef(a[:n], b[:n])[0, 1]))


@dataclass(frozen=True)
class Alignment:
    """One piece against the shipped envelope of its first trial; `parts` are 20 s each, if it has two or more of them.

    `seconds_more` is how much longer our audio is than the shipped envelope.
    """

    trial: int
    recording: str
    whole: Lag
    parts: tuple[Lag, ...]
    seconds_more: float

    def misaligned(self, tolerance_samples: int) -> str | None:
        """Why this piece can't be taken to be aligned, or None."""
        if self.whole.r < MIN_R:
            return f"no common course: r = {self.whole.r:.2f} at best (is it the same piece?)"
        sure = [part.samples for part in self.parts if part.r >= MIN_R / 2]
        if sum(abs(samples - self.whole.samples) > tolerance_samples for samples in sure) >= 2:
            return f"its lag goes from {min(sure)} to {max(sure)} samples from part to part: another tempo"
        if abs(self.whole.samples) > tolerance_samples:
            side = "late" if self.whole.samples > 0 else "early"
            return f"our audio is {abs(self.whole.samples)} samples {side}"
        return None


def align(
    shipped: Shipped,
    stimuli: Sequence[Recording],
    table: Mapping[int, str] | None,
    load: Callable[[Recording], npt.NDArray[np.float32]],
) -> tuple[list[Alignment], list[Skipped]]:
    """Compare our envelope of each piece with the shipped one of every trial that heard it (method.md 18.8).

    Parameters
    ----------
    shipped : Shipped
        Its rate must be a whole number.
    stimuli : sequence of Recording
        The recordings, paired with the trials as the study pairs them.
    table : mapping of int to str, or None
        Trial (from 1) to name of the recording.
    load : callable
        Gives a recording's audio, mono at 44.1 kHz.

    Returns
    -------
    alignments : list of Alignment
        One per distinct pair of recording and shipped envelope.
    skipped : list of Skipped
        What has no counterpart.

    Raises
    ------
    TaskError
        If the pairing is unknown, or the rate is no whole number.
    """
    if shipped.rate_hz != round(shipped.rate_hz):
        raise TaskError(f"stim.fs is {shipped.rate_hz:g} Hz: the comparison needs a whole number")
    rate = round(shipped.rate_hz)
    pairs, skipped = pair_trials(shipped.n_trials, stimuli, table)
    same = shipped.same_as()
    ours: dict[str, Floats] = {}
    found: dict[tuple[str, int], Alignment] = {}
    for number, stimulus in sorted(pairs.items()):
        key = stimulus.id, same[number - 1]
        series = shipped.data[shipped.envelope][number - 1]
        if key in found:
            continue
        if series.ndim != 1 or series.size < rate or not np.isfinite(series).all():
            reason = f"its shipped {shipped.names[shipped.envelope]} is no series of at least 1 s of finite numbers"
            skipped.append(Skipped(str(number), reason, stimulus.id))
            continue
        if stimulus.id not in ours:
            ours[stimulus.id] = envelope(load(stimulus), rate)
        found[key] = compared(number, stimulus.id, ours[stimulus.id], series, rate)
    return list(found.values()), skipped


def compared(number: int, name: str, ours: Floats, series: Floats, rate: int) -> Alignment:
    """Lags of our envelope against the shipped one of trial `number`, both of shape (samples,) at `rate` Hz."""
    whole = lag_between(ours, series, rate)
    length = round(PART_S * rate)
    starts = range(0, min(ours.size, series.size) - length + 1, length)
    cut = [slice(start, start + length) for start in starts] if len(starts) > 1 else []
    parts = [lag_between(ours[part], series[part], rate, whole.samples, PART_REACH_S) for part in cut]
    return Alignment(number, name, whole, tuple(parts), (ours.size - series.size) / rate)
