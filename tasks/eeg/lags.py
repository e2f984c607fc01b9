"""Time lags: a window in seconds as whole samples, and series beside their lagged copies."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tasks.eeg.masks import Spans

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def lag_samples(lag_min_s: float, lag_max_s: float, sample_rate_hz: float) -> Ints:
    """Whole-sample lags of a window in seconds.

    Both ends are rounded to the nearest sample (halves upwards), so 0..350 ms at 32 Hz are the 12 lags 0..11.
    mTRF-Toolbox instead takes the floor of the first and the ceiling of the last (0..12 in this example).

    Parameters
    ----------
    lag_min_s, lag_max_s : float
        First and last lag in seconds; a positive lag lets the response follow the stimulus.
    sample_rate_hz : float
        Samples per second.

    Returns
    -------
    ndarray of int64, shape (number of lags,)
        Rising by one.
    """
    first = math.floor(lag_min_s * sample_rate_hz + 0.5)
    last = math.floor(lag_max_s * sample_rate_hz + 0.5)
    return np.arange(first, last + 1, dtype=np.int64)


def lagged(values: Floats, lags: Ints) -> Floats:
    """A series beside its lagged copies, with zeros where a lag reaches beyond the series.

    Parameters
    ----------
    values : ndarray, shape (T, F)
    lags : ndarray of int64, shape (L,)
        In samples; column block i of the result at time t is ``values[t - lags[i]]``.

    Returns
    -------
    ndarray of float64, shape (T, L * F)
        Lag-major: all features of the first lag, then of the next.
    """
    n_samples, n_features = values.shape
    result = np.zeros((n_samples, lags.size * n_features))
    for i, lag in enumerate(lags.tolist()):
        block = result[:, i * n_features : (i + 1) * n_features]
        if abs(lag) < n_samples:
            block[max(lag, 0) : n_samples + min(lag, 0)] = values[max(-lag, 0) : n_samples - max(lag, 0)]
    return result


class Lagged:
    """What `lagged` returns, made only where rows of it are wanted: the whole has L times the size of the series.

    Parameters
    ----------
    values : ndarray, shape (T, F)
    lags : ndarray of int64, shape (L,)
        In samples, rising by one.

    Attributes
    ----------
    shape : tuple of int
        ``(T, L * F)``.
    values, lags
        As given.
    """

    def __init__(self, values: Floats, lags: Ints) -> None:
        n_samples, n_features = values.shape
        self.values, self.lags = values, lags
        self.shape = (n_samples, n_features * lags.size)
        before, after = max(int(lags[-1]), 0), max(-int(lags[0]), 0)
        padded = np.pad(values, ((before, after), (0, 0)))[before - int(lags[-1]) :]
        windows = np.lib.stride_tricks.sliding_window_view(padded, lags.size, axis=0)
        self._windows = windows[:n_samples, :, ::-1].swapaxes(1, 2)

    def __getitem__(self, rows: slice) -> Floats:
        """Rows ``rows.start`` up to ``rows.stop``, a new array."""
        chosen = np.array(self._windows[rows], order="C")
        return chosen.reshape(len(chosen), self.shape[1])


Design = Mapping[str, "Floats | Lagged"]
"""Lagged reduced features by recording, shape (T, P)."""


def lagged_rows(series: Floats, lags: Ints, n_samples: int, masked: Spans = ()) -> Floats:
    """The lagged copies of many series, one per row, cut to their first `n_samples`.

    They are lagged before they are cut: at negative lags the last rows reach into what follows the cut.

    Parameters
    ----------
    series : ndarray, shape (K, T)
    lags : ndarray of int64, shape (L,)
    n_samples : int
        At most T.
    masked : Spans
        Samples that don't count.

    Returns
    -------
    ndarray of float64, shape (K * L, n_samples)
        Row ``k * L + i`` is series k at lag i, zeros beyond the ends of the series and at masked samples.
    """
    count, whole = series.shape
    result = np.zeros((count, lags.size, n_samples))
    for i, lag in enumerate(lags.tolist()):
        first, last = max(lag, 0), min(n_samples, whole + min(lag, 0))
        if first < last:
            result[:, i, first:last] = series[:, first - lag : last - lag]
    for start, stop in masked:
        result[:, :, start:stop] = 0.0
    return result.reshape(count * lags.size, n_samples)
