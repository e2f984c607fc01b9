"""What acoustics leave over of IC, and its circular shifts: the null distribution that a study has by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from tasks.contract import TaskError
from tasks.eeg.lags import lagged
from tasks.eeg.regressors import Flags, Regressor
from tasks.eeg.shift_sums import Shifted
from tasks.eeg.toeplitz import Windows, pairs, sums_over_time
from tasks.seeds import numpy_stream

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

FIT_RIDGE = 1e-6
"""Ridge of the regression of IC on the reduced features, relative to the number of samples: for stability alone."""

ONSETS_PER_COMPONENT = 4
RANK_TOLERANCE = 1e-6
"""Components smaller than this share of the largest are rounding, or too small to be told from it."""

MIN_SHIFTS = 100
"""Fewer distinct shifts than this in a piece make too coarse a null distribution."""


@dataclass(frozen=True)
class Split:
    """A regressor as the part that the reduced features explain and the residual, per recording, shape (T,)."""

    fit: Mapping[str, Floats]
    residual: Mapping[str, Floats]
    present: Mapping[str, Flags]


class Explainer:
    """Regression on the lagged reduced features, all stimuli pooled.

    Lags reach from -(L - 1) to L - 1 samples around the window's: those are all the lags that can lie between a lagged
    copy of IC and a lagged feature in the full model, so every such correlation survives the shift.
    """

    def __init__(self, reduced: Mapping[str, Floats], n_lags: int) -> None:
        self._reduced = reduced
        self._lags = np.arange(-(n_lags - 1), n_lags)
        columns = next(iter(reduced.values())).shape[1] * self._lags.size
        products, self._totals, self._n = np.zeros((columns, columns)), np.zeros(columns), 0
        for values in reduced.values():
            design = Windows(values, self._lags, len(values))
            products += pairs(design, design).reshape(columns, columns)
            self._totals += sums_over_time(design).ravel()
            self._n += len(values)
        products -= np.outer(self._totals, self._totals) / self._n
        self._factor = cho_factor(products + FIT_RIDGE * self._n * np.eye(columns))

    def split(self, regressor: Regressor) -> Split:
        """Fit and residual of `regressor`, whose recordings are those of the reduced features."""
        cross, total = np.zeros_like(self._totals), 0.0
        for key, values in self._reduced.items():
            cross += Windows(values, self._lags, len(values)).times(regressor.values[key][:, None]).ravel()
            total += regressor.values[key].sum()
        weights = cho_solve(self._factor, cross - self._totals * (total / self._n))
        bias = (total - self._totals @ weights) / self._n
        fit = {key: lagged(values, self._lags) @ weights + bias for key, values in self._reduced.items()}
        return Split(fit, {key: regressor.values[key] - fit[key] for key in fit}, regressor.present)


class OnsetExplainer:
    """Regression of IC's impulses on the lagged reduced features, among the onsets of all stimuli alone.

    It says which part of an onset's IC acoustics explain given that a note begins; the regression over all samples
    would also have to explain that there is nothing between onsets, and left over of that is what tells onsets from
    other samples. Lags are those of `Explainer`. The features count by their principal components, the largest first,
    as many as a quarter of the onsets: with as many as onsets they would explain anything.

    Parameters
    ----------
    reduced : mapping of recording to ndarray, shape (T, F)
    counts : mapping of recording to ndarray of int64, shape (T,)
        Notes that begin at each sample.
    n_lags : int
        Of the TRF.
    """

    def __init__(self, reduced: Mapping[str, Floats], counts: Mapping[str, Counts], n_lags: int) -> None:
        lags = np.arange(-(n_lags - 1), n_lags)
        self._where = {key: np.flatnonzero(own) for key, own in counts.items()}
        rows = np.concatenate([lagged(reduced[key], lags)[where] for key, where in self._where.items()])
        basis, sizes, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
        kept = min(len(rows) // ONSETS_PER_COMPONENT, int((sizes > RANK_TOLERANCE * sizes.max(initial=0.0)).sum()))
        self._basis = basis[:, :kept]

    def split(self, regressor: Regressor) -> Split:
        """Fit and residual of `regressor`; the residual is 0 between onsets."""
        heights = np.concatenate([regressor.values[key][where] for key, where in self._where.items()])
        mean = heights.mean()
        explained = mean + self._basis @ (self._basis.T @ (heights - mean))
        fit, start = {}, 0
        for key, where in self._where.items():
            fit[key] = regressor.values[key].copy()
            fit[key][where] = explained[start : start + where.size]
            start += where.size
        return Split(fit, {key: regressor.values[key] - fit[key] for key in fit}, regressor.present)


def shift_range(n_present: int, n_lags: int, shift_min_s: float, sample_rate_hz: float, piece: str) -> tuple[int, int]:
    """Smallest shift and number of distinct shifts of a piece with IC at `n_present` samples.

    Shifts keep at least ``max(shift_min_s, lag window)`` from 0 both ways around.

    Raises
    ------
    TaskError
        If fewer than 100 are left.
    """
    smallest = max(int(np.ceil(shift_min_s * sample_rate_hz)), n_lags)
    n_shifts = n_present - 2 * smallest + 1
    if n_shifts < MIN_SHIFTS:
        raise TaskError(
            f"{piece}: {n_present / sample_rate_hz:.1f} s of IC offer {max(n_shifts, 0)} distinct shifts of at least "
            f"{smallest / sample_rate_hz:.2f} s, and {MIN_SHIFTS} are needed; use longer pieces or a smaller "
            "permutations.shift_min_s"
        )
    return smallest, n_shifts


def shifted(
    split: Split, seed: int, numbers: Sequence[int], n_lags: int, shift_min_s: float, rate: float
) -> dict[str, Floats]:
    """Permuted regressors: the residual shifted around the samples that have IC, plus the fit; 0 elsewhere.

    The shift of permutation k in a recording is drawn from (seed, k, recording) and scaled to where the recording has
    IC, which no noise level changes (see `whole_ic`): the same for all subjects, channels, variants and noise levels.

    Parameters
    ----------
    split : Split
    seed : int
    numbers : sequence of int
        The permutations k that are wanted.
    n_lags : int
        Of the TRF.
    shift_min_s, rate : float
        Smallest shift in seconds, samples per second.

    Returns
    -------
    dict of str to ndarray, shape (len(numbers), T)
    """
    return {key: own.series() for key, own in moved(split, seed, numbers, n_lags, shift_min_s, rate).items()}


def moved(
    split: Split, seed: int, numbers: Sequence[int], n_lags: int, shift_min_s: float, rate: float
) -> dict[str, Shifted]:
    """The same as `shifted`, not yet as series.

    Raises
    ------
    TaskError
        If a recording has gaps in its IC.
    """
    versions = {}
    for key, residual in split.residual.items():
        where = np.flatnonzero(split.present[key])
        smallest, n_shifts = shift_range(where.size, n_lags, shift_min_s, rate, key)
        if where[-1] - where[0] >= where.size:
            raise TaskError(f"{key}: IC has gaps, and a shift within a piece needs one without; leave the piece out")
        draws = [numpy_stream(seed, "shift", number, key).random() for number in numbers]
        shifts = np.array([smallest + int(n_shifts * draw) for draw in draws], dtype=np.int64)
        fit = np.where(split.present[key], split.fit[key], 0.0)
        versions[key] = Shifted(fit, residual[where], int(where[0]), shifts)
    return versions


def correlation_time_s(split: Split, sample_rate_hz: float) -> float:
    """First lag at which the residual's autocorrelation, all pieces pooled, falls to .1.

    Shifts must exceed the lag window by at least this much: see `check_reach`.
    """
    series = [split.residual[key][split.present[key]] for key in split.residual]
    power = sum(float(values @ values) for values in series)
    for lag in range(1, max(values.size for values in series)):
        if sum(float(values[:-lag] @ values[lag:]) for values in series if values.size > lag) <= 0.1 * power:
            return lag / sample_rate_hz
    return max(values.size for values in series) / sample_rate_hz


def check_reach(shift_min_s: float, n_lags: int, correlation_s: float, sample_rate_hz: float) -> None:
    """Refuse shifts that leave a shifted residual correlated with itself at some lag of the TRF.

    It is a check and no change of the smallest shift, so that shifts stay the same for all noise levels and variants.

    Raises
    ------
    TaskError
        If the smallest shift is below the lag window plus `correlation_s`.
    """
    window = n_lags / sample_rate_hz
    if max(shift_min_s, window) < window + correlation_s:
        raise TaskError(
            f"permutations.shift_min_s: {shift_min_s:g} s is too short, because what acoustics leave over of IC is "
            f"correlated with itself over {correlation_s:.2f} s and the lag window has {window:.2f} s; allowed is "
            f"{window + correlation_s:.2f} s or more"
        )
