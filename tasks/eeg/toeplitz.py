"""Sums over time of products of lagged copies, without a product for every pair of lags.

A pair of copies one lag further on has the same sum, but for what comes in at the start and goes out at the end. So of
a block of L x M lags only one row and one column are summed over time, and the others follow along the diagonals, as in
the covariance method of linear prediction (Makhoul 1975, doi 10.1109/PROC.1975.9792). Nothing is left out: within
rounding the sums are those of the lagged design itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tasks.eeg.lags import Lagged

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCK = 480
"""Lagged copies are written out for so many samples at a time: few enough for the processor's cache."""

FEW = 4
"""Pairs of series that are correlated one by one rather than as a product of matrices."""


class Windows:
    """Lagged copies of a series at its first samples, ready to be multiplied with other series.

    Parameters
    ----------
    values : ndarray, shape (T, F)
    lags : ndarray of int64, shape (L,)
        In samples, rising by one.
    n_samples : int
        At most T. Copies are lagged before they are cut: at negative lags the last reach into what follows.
    """

    def __init__(self, values: Floats, lags: Ints, n_samples: int) -> None:
        self.values, self.lags, self.n_samples = values, lags, n_samples
        last = int(lags[-1])
        self._padded = np.zeros((n_samples + lags.size - 1, values.shape[1]))
        start, stop = max(0, -last), min(len(values), n_samples - int(lags[0]))
        if start < stop:
            self._padded[start + last : stop + last] = values[start:stop]
        self.first = self._padded[lags.size - 1 :]
        """The copy at the first lag, shape (n_samples, F)."""

    def rows(self, times: Ints) -> Floats:
        """Lagged copies at some samples, those beyond an end included, shape (len(times), L, F)."""
        where = np.asarray(times)[:, None] - self.lags
        inside = (where >= 0) & (where < len(self.values))
        found: Floats = np.where(inside[:, :, None], self.values[np.where(inside, where, 0)], 0.0)
        return found

    def times(self, other: Floats) -> Floats:
        """Sums over time of every copy times every column of `other` (n_samples, C), shape (L, F, C)."""
        n_lags, n_features, n_columns = self.lags.size, self.values.shape[1], other.shape[1]
        if n_features * n_columns <= FEW:
            series = [(left, right) for left in self._padded.T for right in other.T]
            found = np.array([np.correlate(left, right, "valid") for left, right in series])
            return np.ascontiguousarray(found.T[::-1]).reshape(n_lags, n_features, n_columns)
        size = self._padded.itemsize
        shape, strides = (self.n_samples, n_lags * n_features), (n_features * size, size)
        windows = np.lib.stride_tricks.as_strided(self._padded, shape, strides, writeable=False)
        total = np.zeros((shape[1], n_columns))
        for start in range(0, self.n_samples, BLOCK):
            rows = slice(start, start + BLOCK)
            total += np.ascontiguousarray(windows[rows]).T @ other[rows]
        return total.reshape(n_lags, n_features, n_columns)[::-1]


def pairs(left: Windows, right: Windows, masked: Iterable[tuple[int, int]] = ()) -> Floats:
    """Sums over time of pairs of lagged copies of two series with equally many samples.

    Parameters
    ----------
    left, right : Windows
        Of F and G series at L and M lags.
    masked : iterable of (int, int)
        Samples from the first to before the second of each pair don't count.

    Returns
    -------
    ndarray, shape (L, F, M, G)
    """
    at_ends = np.array([-1, left.n_samples - 1])
    (mine_in, mine_out), (other_in, other_out) = left.rows(at_ends), right.rows(at_ends)
    change = np.multiply.outer(mine_in, other_in) - np.multiply.outer(mine_out, other_out)
    result: Floats = np.empty_like(change)
    across = right.times(left.first)
    result[0] = across.transpose(2, 0, 1)
    if left.lags.size > 1:
        result[:, :, 0] = across if left is right else left.times(right.first)
    for lag in range(1, left.lags.size):
        np.add(result[lag - 1, :, :-1], change[lag - 1, :, :-1], out=result[lag, :, 1:])
    rows = within(masked)
    if rows.size:
        gone = left.rows(rows).reshape(rows.size, -1).T @ right.rows(rows).reshape(rows.size, -1)
        result -= gone.reshape(result.shape)
    return result


def along_diagonals(column: Floats, enters: Floats, leaves: Floats, right: Windows) -> Floats:
    """Sums of pairs of lagged copies, of K series and `right`, from those against its first copy alone.

    Parameters
    ----------
    column : ndarray, shape (K, L + M - 1, G)
        At L lags, and at as many before them as `right` has after its first one.
    enters, leaves : ndarray, shape (K, L + M - 1)
        The same copies just before the first sample, and at the last one.
    right : Windows
        G series at M lags.

    Returns
    -------
    ndarray, shape (K, L, M, G)
    """
    count, width, n_series = column.shape
    n_other = right.lags.size
    other_in, other_out = right.rows(np.array([-1, right.n_samples - 1]))
    result = np.empty((count, width - n_other + 1, n_other, n_series))
    for lag in range(n_other):
        result[:, :, lag] = column[:, n_other - 1 - lag :]
        column = column[:, :-1] + enters[:, lag:-1, None] * other_in[lag] - leaves[:, lag:-1, None] * other_out[lag]
    return result


def sums_over_time(windows: Windows, masked: Iterable[tuple[int, int]] = ()) -> Floats:
    """Sums over time of every lagged copy, shape (L, F), without the masked samples."""
    enters, leaves = windows.rows(np.array([-1, windows.n_samples - 1]))
    steps = np.concatenate([windows.first.sum(axis=0)[None], (enters - leaves)[:-1]])
    kept: Floats = np.cumsum(steps, axis=0)
    rows = within(masked)
    return kept - windows.rows(rows).sum(axis=0) if rows.size else kept


def windows_of(design: Floats | Lagged, n_samples: int) -> Windows:
    """The first samples of a lagged design; of one whose columns aren't known to be copies, its columns at lag 0."""
    if isinstance(design, Lagged):
        return Windows(design.values, design.lags, n_samples)
    return Windows(design, np.array([0]), n_samples)


def within(spans: Iterable[tuple[int, int]]) -> Ints:
    """The samples of some spans, each from the first to before the second."""
    return np.concatenate([np.arange(*span) for span in spans] or [np.arange(0)])
