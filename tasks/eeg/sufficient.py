"""Sufficient statistics of lagged regression, piece by piece: after these, no fit looks at a time series again.

A piece is the unit of cross-validation. All trials of a piece (its repetitions) add up to one set of sums, so they
can't straddle a split. Three blocks of columns appear throughout: the lagged reduced features (P columns), the lagged
copies of one regressor (L columns), and the EEG channels (C columns).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.eeg import masks
from tasks.eeg.lags import Design, Ints, lagged_rows
from tasks.eeg.masks import Spans
from tasks.eeg.toeplitz import Windows, pairs, sums_over_time, windows_of

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """The first `n_samples` of a recording, heard in `n_trials` trials; the rows `masked` count in none of them."""

    recording: str
    n_samples: int
    n_trials: int
    masked: Spans = ()

    @property
    def n_kept(self) -> int:
        """Samples of one of its trials that count."""
        return self.n_samples - masks.count(self.masked)


@dataclass(frozen=True)
class Layout:
    """Which parts of which recordings make up each piece; subjects with equal layouts share all stimulus-side work."""

    pieces: tuple[str, ...]
    parts: tuple[tuple[Part, ...], ...]

    @property
    def n_samples(self) -> Floats:
        """Samples that count, of all trials of each piece, shape (N,)."""
        return np.array([sum(p.n_kept * p.n_trials for p in parts) for parts in self.parts], dtype=np.float64)

    @property
    def masked(self) -> list[tuple[str, str, Spans]]:
        """Piece, recording and masked rows of each part that has any."""
        named = zip(self.pieces, self.parts, strict=True)
        return [(piece, part.recording, part.masked) for piece, parts in named for part in parts if part.masked]


@dataclass(frozen=True)
class ReducedSums:
    """Sums of the lagged reduced features: `products` (N, P, P), `totals` (N, P), `n_samples` (N,)."""

    products: Floats
    totals: Floats
    n_samples: Floats


@dataclass(frozen=True)
class ResponseSums:
    """One subject's EEG against the lagged reduced features.

    Attributes
    ----------
    products : ndarray, shape (N, P, C)
        Sums over time of feature times EEG.
    totals, squares : ndarray, shape (N, C)
        Sums of the EEG and of its square.
    series : tuple of tuple of ndarray, shape (T, C) each
        Per piece and part, the EEG summed over the trials that share the part; of one trial, the trial itself. 0 in
        masked rows.
    """

    products: Floats
    totals: Floats
    squares: Floats
    series: tuple[tuple[Floats, ...], ...]


@dataclass(frozen=True)
class RegressorSums:
    """Sums of K versions of one lagged regressor.

    Attributes
    ----------
    reduced : ndarray, shape (N, K * L, P)
        Against the lagged reduced features.
    products : ndarray, shape (N, K, L, L)
        Among its own lags.
    totals : ndarray, shape (N, K * L)
    """

    reduced: Floats
    products: Floats
    totals: Floats


def reduced_sums(layout: Layout, design: Design) -> ReducedSums:
    """Sums of each piece of `layout`.

    Parameters
    ----------
    layout : Layout
    design : mapping of recording to ndarray, shape (T, P)
        Lagged reduced features, as long as the recording; parts take their first samples.
    """
    n_columns = next(iter(design.values())).shape[1]
    products = np.zeros((len(layout.pieces), n_columns, n_columns))
    totals = np.zeros((len(layout.pieces), n_columns))
    for piece, parts in enumerate(layout.parts):
        for part in parts:
            columns = windows_of(design[part.recording], part.n_samples)
            products[piece] += part.n_trials * pairs(columns, columns, part.masked).reshape(n_columns, n_columns)
            totals[piece] += part.n_trials * sums_over_time(columns, part.masked).ravel()
    return ReducedSums(products, totals, layout.n_samples)


def response_sums(
    layout: Layout, design: Design, trials: Sequence[Sequence[Sequence[Floats | Singles]]]
) -> ResponseSums:
    """One subject's sums.

    Parameters
    ----------
    layout : Layout
    design : mapping of recording to ndarray, shape (T, P)
    trials : nested sequences of ndarray, shape (T of the part, C)
        ``trials[piece][part]`` lists the trials of that part.
    """
    n_columns = next(iter(design.values())).shape[1]
    n_channels = trials[0][0][0].shape[1]
    products = np.zeros((len(layout.pieces), n_columns, n_channels))
    totals = np.zeros((len(layout.pieces), n_channels))
    squares = np.zeros_like(totals)
    series: list[tuple[Floats, ...]] = []
    for piece, parts in enumerate(layout.parts):
        summed = []
        for part, whole in zip(parts, trials[piece], strict=True):
            heard = [masks.silenced(trial.astype(np.float64), part.masked) for trial in whole]
            total = heard[0] if len(heard) == 1 else np.add.reduce(heard)
            for trial in heard:
                squares[piece] += np.einsum("tc,tc->c", trial, trial)
            columns = windows_of(design[part.recording], part.n_samples)
            products[piece] += columns.times(total).reshape(n_columns, n_channels)
            totals[piece] += np.einsum("tc->c", total)
            summed.append(total)
        series.append(tuple(summed))
    return ResponseSums(products, totals, squares, tuple(series))


def regressor_sums(
    layout: Layout,
    design: Design,
    versions: Mapping[str, Floats],
    lags: Ints,
    responses: Sequence[ResponseSums],
) -> tuple[RegressorSums, list[Floats]]:
    """Sums of K versions of a regressor, and against each subject's EEG.

    Parameters
    ----------
    layout : Layout
    design : mapping of recording to ndarray, shape (T, P)
    versions : mapping of recording to ndarray, shape (K, T)
        As long as the recording; like the design they are lagged before parts take their first samples. Of a single
        version the sums follow along the diagonals (`tasks.eeg.toeplitz`); several are multiplied as one matrix.
    lags : ndarray of int64, shape (L,)
    responses : sequence of ResponseSums
        Subjects of this layout. Each is multiplied on its own, so its bits don't depend on the others.

    Returns
    -------
    RegressorSums
    list of ndarray, shape (N, K * L, C)
        One per subject.
    """
    count, n_lags = next(iter(versions.values())).shape[0], lags.size
    n_pieces, n_columns = len(layout.pieces), next(iter(design.values())).shape[1]
    reduced = np.zeros((n_pieces, count * n_lags, n_columns))
    products = np.zeros((n_pieces, count, n_lags, n_lags))
    totals = np.zeros((n_pieces, count * n_lags))
    crosses = [np.zeros((n_pieces, count * n_lags, response.totals.shape[1])) for response in responses]
    for piece, parts in enumerate(layout.parts):
        for index, part in enumerate(parts):
            if count == 1:
                columns = windows_of(design[part.recording], part.n_samples)
                own = Windows(versions[part.recording].T, lags, part.n_samples)
                reduced[piece] += part.n_trials * pairs(own, columns, part.masked).reshape(n_lags, n_columns)
                products[piece, 0] += part.n_trials * pairs(own, own, part.masked)[:, 0, :, 0]
                totals[piece] += part.n_trials * sums_over_time(own, part.masked)[:, 0]
                for cross, response in zip(crosses, responses, strict=True):
                    cross[piece] += own.times(response.series[piece][index])[:, 0]
                continue
            rows = lagged_rows(versions[part.recording], lags, part.n_samples, part.masked)
            stacked = rows.reshape(count, n_lags, part.n_samples)
            reduced[piece] += part.n_trials * (rows @ design[part.recording][: part.n_samples])
            products[piece] += part.n_trials * (stacked @ stacked.swapaxes(1, 2))
            totals[piece] += part.n_trials * rows.sum(axis=1)
            for cross, response in zip(crosses, responses, strict=True):
                cross[piece] += rows @ response.series[piece][index]
    return RegressorSums(reduced, products, totals), crosses
