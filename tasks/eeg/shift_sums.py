"""Sums of a regressor whose residual is shifted around its ends, without a look at the series for each shift.

One Fourier transform per piece and column gives the sums at all circular shifts. A lag is a further shift, up to a few
samples at the ends, where the lagged residual leaves the piece instead of coming round: those are added and taken away
one by one. So the cost of a shift depends on the number of lags, not on the length of the recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, next_fast_len, rfft

from tasks.eeg import masks
from tasks.eeg.lags import Design, Ints, lagged_rows
from tasks.eeg.masks import Spans
from tasks.eeg.sufficient import Layout, Part, RegressorSums, ResponseSums
from tasks.eeg.toeplitz import Windows, along_diagonals, pairs, windows_of, within

Floats = npt.NDArray[np.float64]

COLUMNS = 8
"""Columns are transformed so many at a time. A subject's are never mixed with another's."""


@dataclass(frozen=True)
class Shifted:
    """K versions of a regressor in one recording: `fit`, plus `residual` shifted around the samples `first` to
    ``first + M - 1``, which alone have the regressor.

    Attributes
    ----------
    fit : ndarray, shape (T,)
        0 where there is no regressor.
    residual : ndarray, shape (M,)
    first : int
    shifts : ndarray of int64, shape (K,)
        Version k has ``residual[(i - shifts[k]) % M]`` at sample ``first + i``.
    """

    fit: Floats
    residual: Floats
    first: int
    shifts: Ints

    def series(self) -> Floats:
        """The versions themselves, shape (K, T)."""
        size = self.residual.size
        rolled = self.residual[(np.arange(size) - self.shifts[:, None]) % size]
        values = np.tile(self.fit, (self.shifts.size, 1))
        values[:, self.first : self.first + size] += rolled
        return values

    def at(self, times: Ints, with_fit: bool = True) -> Floats:
        """The versions at some samples of any shape, shape (K, ...), 0 beyond the ends; or their residuals."""
        where, whole = times - self.first, self.fit.size
        shifts = self.shifts.reshape(-1, *(1 for _ in where.shape))
        values: Floats = self.residual[(where - shifts) % self.residual.size]
        values *= (where >= 0) & (where < self.residual.size)
        if with_fit:
            values += np.where((times >= 0) & (times < whole), self.fit[np.clip(times, 0, whole - 1)], 0.0)
        return values

    @property
    def count(self) -> int:
        """K."""
        return self.shifts.size

    @property
    def stretches(self) -> tuple[Shifted, ...]:
        return (self,)


@dataclass(frozen=True)
class Stretches:
    """K versions of a regressor with gaps in one recording: every stretch between gaps is shifted within itself.

    Attributes
    ----------
    stretches : tuple of Shifted
        Each with the `fit` of its own stretch, or of one that stays as it is, and 0 elsewhere; together the regressor.
    missing : Spans
        The gaps. Rows with a lagged copy of theirs must be masked; no other row has copies of two stretches.
    """

    stretches: tuple[Shifted, ...]
    missing: Spans

    def series(self) -> Floats:
        """The versions themselves, shape (K, T)."""
        total: Floats = np.add.reduce([own.series() for own in self.stretches])
        return total

    @property
    def count(self) -> int:
        """K."""
        return self.stretches[0].count


Versions = Mapping[str, Shifted | Stretches]


def shift_sums(
    layout: Layout,
    design: Design,
    versions: Versions,
    lags: Ints,
    responses: Sequence[ResponseSums],
) -> tuple[RegressorSums, list[Floats]]:
    """What `regressor_sums` makes of the versions' series, within rounding.

    No bit of a version's sums depends on the other versions or subjects in the call.

    Parameters
    ----------
    layout : Layout
    design : mapping of recording to ndarray, shape (T, P)
    versions : mapping of recording to Shifted or Stretches
        K of each recording.
    lags : ndarray of int64, shape (L,)
        Rising by one.
    responses : sequence of ResponseSums
        Subjects of this layout.

    Returns
    -------
    RegressorSums
    list of ndarray, shape (N, K * L, C)
        One per subject.
    """
    count, n_lags = next(iter(versions.values())).count, lags.size
    n_pieces, n_columns = len(layout.pieces), next(iter(design.values())).shape[1]
    reduced = np.zeros((n_pieces, count * n_lags, n_columns))
    products = np.zeros((n_pieces, count, n_lags, n_lags))
    totals = np.zeros((n_pieces, count * n_lags))
    sums = RegressorSums(reduced, products, totals)
    crosses = [np.zeros((n_pieces, count * n_lags, response.totals.shape[1])) for response in responses]
    for piece, parts in enumerate(layout.parts):
        for index, part in enumerate(parts):
            _need_masks(versions[part.recording], lags, part)
            heard = [response.series[piece][index] for response in responses]
            into = [cross[piece] for cross in crosses]
            for own in versions[part.recording].stretches:
                if _beyond(own, lags, part).size > n_lags:
                    columns = masks.silenced(design[part.recording][: part.n_samples], part.masked)
                    _add_slowly(sums, piece, part, own, lags, columns, into, heard)
                else:
                    _add(sums, piece, part, own, lags, windows_of(design[part.recording], part.n_samples), into, heard)
    return sums, crosses


def _need_masks(own: Shifted | Stretches, lags: Ints, part: Part) -> None:
    """Stretches are summed one by one, which is right only where no row that counts has copies of two."""
    if isinstance(own, Stretches):
        rows = masks.touched(own.missing, lags, part.n_samples)
        if masks.merged((*rows, *part.masked), part.n_samples) != part.masked:
            raise ValueError(f"{part.recording}: rows that its gaps reach into aren't masked")


def _add_slowly(
    sums: RegressorSums,
    piece: int,
    part: Part,
    own: Shifted,
    lags: Ints,
    columns: Floats,
    into: Sequence[Floats],
    heard: Sequence[Floats],
) -> None:
    """One version at a time from its series: for parts that end long before the regressor does."""
    n_lags = lags.size
    for k, series in enumerate(own.series()):
        rows = lagged_rows(series[None], lags, part.n_samples, part.masked)
        at = slice(k * n_lags, (k + 1) * n_lags)
        sums.reduced[piece, at] += part.n_trials * (rows @ columns)
        sums.products[piece, k] += part.n_trials * (rows @ rows.T)
        sums.totals[piece, at] += part.n_trials * rows.sum(axis=1)
        for cross, values in zip(into, heard, strict=True):
            cross[at] += rows @ values


def _beyond(own: Shifted, lags: Ints, part: Part) -> Ints:
    """Samples outside the part at which every lagged copy is still within the regressor."""
    first, last = own.first + int(lags[-1]), own.first + own.residual.size + int(lags[0])
    return np.concatenate([np.arange(first, min(0, last)), np.arange(max(part.n_samples, first), last)])


def _add(
    sums: RegressorSums,
    piece: int,
    part: Part,
    own: Shifted,
    lags: Ints,
    design: Windows,
    into: Sequence[Floats],
    heard: Sequence[Floats],
) -> None:
    fit = Windows(own.fit[:, None], lags, part.n_samples)
    correlate = _Correlation(own, lags, part.n_samples)
    ones = masks.silenced(np.ones((part.n_samples, 1)), part.masked)
    for of, values, times in (
        (sums.totals[piece, :, None], ones, part.n_trials),
        *((cross, values, 1) for cross, values in zip(into, heard, strict=True)),
    ):
        against = correlate(values)
        against += fit.times(values)[:, 0]
        against *= times
        of += against.reshape(of.shape)
    reduced = against_copies(own, lags, design, masked=part.masked)
    sums.reduced[piece] += part.n_trials * reduced.reshape(sums.reduced[piece].shape)
    mixed = against_copies(own, lags, fit, with_fit=False, masked=part.masked)[..., 0]
    among = pairs(fit, fit, part.masked)[:, 0, :, 0]
    sums.products[piece] += part.n_trials * (among + mixed + mixed.swapaxes(1, 2) + _residual_products(own, lags, part))


def against_copies(
    own: Shifted, lags: Ints, right: Windows, with_fit: bool = True, masked: Iterable[tuple[int, int]] = ()
) -> Floats:
    """Sums of the versions, or of their residuals, times lagged copies of other series, shape (K, L, M, G).

    Only the first copies are transformed: the others follow along the diagonals. `masked` samples don't count.
    """
    wide = np.arange(int(lags[0]) - right.lags.size + 1, int(lags[-1]) + 1)
    column = _Correlation(own, wide, right.n_samples)(right.first)
    if with_fit:
        column += Windows(own.fit[:, None], wide, right.n_samples).times(right.first)[:, 0]
    enters, leaves = own.at(-1 - wide, with_fit), own.at(right.n_samples - 1 - wide, with_fit)
    result = along_diagonals(column, enters, leaves, right)
    rows = within(masked)
    if rows.size:
        gone = own.at(rows - lags[:, None], with_fit) @ right.rows(rows).reshape(rows.size, -1)
        result -= gone.reshape(result.shape)
    return result


class _Correlation:
    """Sums over time of the lagged, shifted residual times columns."""

    def __init__(self, own: Shifted, lags: Ints, n_samples: int) -> None:
        size, before, after = own.residual.size, min(int(lags[0]), 0), max(int(lags[-1]), 0)
        self._first, self._size, self._n_samples = own.first, size, n_samples
        self._length = size if next_fast_len(size, real=True) == size else next_fast_len(2 * size - 1, real=True)
        self._spectrum = np.conj(rfft(own.residual, self._length))
        self._at = (own.shifts[:, None] + lags) % size
        edges = np.concatenate([np.arange(before, after), np.arange(size + before, size + after)])
        self._edges = edges[(edges + own.first >= 0) & (edges + own.first < n_samples)]
        behind = self._edges - lags[:, None]
        sign = ((behind >= 0) & (behind < size)) * 1.0 - ((self._edges >= 0) & (self._edges < size))
        self._weights = sign * own.residual[(behind - own.shifts[:, None, None]) % size]

    def __call__(self, columns: Floats) -> Floats:
        """Shape (K, L, Q) of `columns` (n_samples, Q)."""
        result: Floats = self._weights @ columns[self._edges + self._first]
        for start in range(0, columns.shape[1], COLUMNS):
            chosen = slice(start, start + COLUMNS)
            result[:, :, chosen] += self._around(columns[:, chosen])[self._at]
        return result

    def _around(self, columns: Floats) -> Floats:
        """Sums at every circular shift, shape (M, Q)."""
        own = np.zeros((columns.shape[1], self._size))
        last = min(self._n_samples, self._first + self._size)
        own[:, : last - self._first] = columns[self._first : last].T
        found = irfft(rfft(own, self._length) * self._spectrum, self._length)
        around = found[:, : self._size]
        if self._length > self._size:
            around[:, 1:] += found[:, self._length - self._size + 1 :]
        return np.ascontiguousarray(around.T)


def _residual_products(own: Shifted, lags: Ints, part: Part) -> Floats:
    """Sums over time of pairs of lagged copies of the shifted residual, shape (K, L, L).

    Around a whole turn they depend on the difference of the lags alone. What a turn has too much and too little lies
    where one of the copies is beyond an end of the residual, or the part has ended. Masked rows are taken away after.
    """
    residual, size, n_lags = own.residual, own.residual.size, lags.size
    around = np.array([residual @ np.roll(residual, -lag) for lag in range(n_lags)])
    turn = around[np.abs(lags[:, None] - lags)]
    first, last = int(lags[0]), int(lags[-1])
    head = own.first + np.arange(first, last)
    rest = np.concatenate([own.first + size + np.arange(first, last), _beyond(own, lags, part)])
    times = np.concatenate([head, rest])
    values, inside = _lagged_residual(own, lags, times)
    kept = values * (inside & (times >= 0) & (times < part.n_samples))
    gone = values[:, :, head.size :]
    products: Floats = turn + kept @ kept.swapaxes(1, 2) - gone @ gone.swapaxes(1, 2)
    if part.masked:
        values, inside = _lagged_residual(own, lags, masks.indices(part.masked))
        values *= inside
        products -= values @ values.swapaxes(1, 2)
    return products


def _lagged_residual(own: Shifted, lags: Ints, times: Ints) -> tuple[Floats, masks.Flags]:
    """The shifted residual's lagged copies at some times, come round, (K, L, n); and where they needn't, (L, n)."""
    where = times - own.first - lags[:, None]
    values = own.residual[(where - own.shifts[:, None, None]) % own.residual.size]
    return values, (where >= 0) & (where < own.residual.size)
