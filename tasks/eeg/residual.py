"""What acoustics leave over of IC, and its circular shifts: the null distribution that a study has by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from tasks.contract import TaskError
from tasks.eeg import masks
from tasks.eeg.lags import lagged
from tasks.eeg.masks import Spans
from tasks.eeg.regressors import Flags, Regressor
from tasks.eeg.shift_sums import Shifted, Stretches
from tasks.eeg.stretches import Stretch, between, stretches
from tasks.eeg.toeplitz import Windows, pairs, sums_over_time
from tasks.seeds import numpy_stream

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

FIT_RIDGE = 1e-6
"""Ridge of the regression of IC on the reduced features, relative to the number of samples: for stability alone."""

ONSETS_PER_COMPONENT = 4
RANK_TOLERANCE = 1e-6
"""Components smaller than this share of the largest are rounding, or too small to be told from it."""

LEAST_LEFT = 1e-3
"""Less of IC than this share of its standard deviation is the ridge's rounding, no part of IC."""


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
        self._products, totals, n = np.zeros((columns, columns)), np.zeros(columns), 0
        for values in reduced.values():
            design = Windows(values, self._lags, len(values))
            self._products += pairs(design, design).reshape(columns, columns)
            totals += sums_over_time(design).ravel()
            n += len(values)
        self._whole = _equations(self._products, totals, n)

    def split(self, regressor: Regressor) -> Split:
        """Fit and residual of `regressor`, whose recordings are those of the reduced features; its gaps don't count."""
        factor, totals, n = self._without(regressor.missing)
        cross, total = np.zeros_like(totals), 0.0
        for key, values in self._reduced.items():
            own = masks.silenced(regressor.values[key], regressor.missing.get(key, ()))
            cross += Windows(values, self._lags, len(values)).times(own[:, None]).ravel()
            total += own.sum()
        weights = cho_solve(factor, cross - totals * (total / n))
        bias = (total - totals @ weights) / n
        fit = {key: lagged(values, self._lags) @ weights + bias for key, values in self._reduced.items()}
        return Split(fit, {key: regressor.values[key] - fit[key] for key in fit}, regressor.present)

    def _without(self, missing: Mapping[str, Spans]) -> tuple[Any, Floats, int]:
        """The equations, the samples `missing` left out."""
        if not missing:
            return self._whole
        products, totals, n = self._products, self._whole[1], self._whole[2]
        for key, spans in missing.items():
            rows = lagged(self._reduced[key], self._lags)[masks.indices(spans)]
            products, totals, n = products - rows.T @ rows, totals - rows.sum(axis=0), n - len(rows)
        return _equations(products, totals, n)


def _equations(products: Floats, totals: Floats, n: int) -> tuple[Any, Floats, int]:
    """Factor of the centred, ridged products; totals; number of samples."""
    centred = products - np.outer(totals, totals) / n
    return cho_factor(centred + FIT_RIDGE * n * np.eye(totals.size)), totals, n


class OnsetExplainer:
    """Regression of IC's impulses on the lagged reduced features, among the onsets of all stimuli alone.

    It says which part of an onset's IC acoustics explain given that a note begins; the regression over all samples
    would also have to explain that there is nothing between onsets, and left over of that is what tells onsets from
    other samples. Lags are those of `Explainer`. The features count by their principal components, the largest first,
    as many as a quarter of the onsets: with as many as onsets they would explain anything. What is no acoustics (one's
    own features, IC without context, the step of the latents) counts first, by its values at the onsets, however little
    of the features' variance it is.

    Parameters
    ----------
    reduced : mapping of recording to ndarray, shape (T, F)
    counts : mapping of recording to ndarray of int64, shape (T,)
        Notes that begin at each sample.
    n_lags : int
        Of the TRF.
    n_beside : int
        So many of the last features are no acoustics.
    """

    def __init__(
        self, reduced: Mapping[str, Floats], counts: Mapping[str, Counts], n_lags: int, n_beside: int = 0
    ) -> None:
        lags = np.arange(-(n_lags - 1), n_lags)
        self._where = {key: np.flatnonzero(own) for key, own in counts.items()}
        rows = np.concatenate([lagged(reduced[key], lags)[where] for key, where in self._where.items()])
        rows -= rows.mean(axis=0)
        most = len(rows) // ONSETS_PER_COMPONENT
        if not n_beside:
            self._basis = _components(rows, most)
            return
        heights = np.concatenate([reduced[key][where, -n_beside:] for key, where in self._where.items()])
        first = _components(heights - heights.mean(axis=0), min(n_beside, most))
        rest = _components(rows - first @ (first.T @ rows), most - first.shape[1])
        self._basis = np.concatenate([first, rest], axis=1)

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


def _components(rows: Floats, most: int) -> Floats:
    """Orthonormal columns, the largest principal components of centred rows first, shape (rows, at most `most`)."""
    basis, sizes, _ = np.linalg.svd(rows, full_matrices=False)
    return basis[:, : min(most, int((sizes > RANK_TOLERANCE * sizes.max(initial=0.0)).sum()))]


def check_left(split: Split, regressor: Regressor) -> None:
    """Refuse IC that the reduced model explains wholly: what is left is rounding, and so would be any difference.

    Raises
    ------
    TaskError
        If the residual's standard deviation is below `LEAST_LEFT` of that of IC.
    """
    left = np.concatenate([split.residual[key][present] for key, present in split.present.items()]).std()
    whole = np.concatenate([regressor.values[key][present] for key, present in split.present.items()]).std()
    if left < LEAST_LEFT * whole:
        raise TaskError(
            f"the reduced model explains IC wholly (it leaves over {left / whole:.1e} of its SD), so there is nothing "
            "of IC alone to be tested; see the model's plus, or leave out this noise level"
        )


def shifted(
    split: Split, seed: int, numbers: Sequence[int], n_lags: int, shift_min_s: float, rate: float
) -> dict[str, Floats]:
    """Permuted regressors: the residual shifted around the samples that have IC, plus the fit; 0 elsewhere.

    The shift of permutation k in a recording is drawn from (seed, k, recording) and scaled to where the recording has
    IC: the same for all subjects, channels, variants and, but for gaps, noise levels. Gaps in IC split a recording:
    every stretch between them is shifted by itself (see `stretches`), the next draws of the same stream its shifts.
    Bad segments of a subject's EEG don't: they are rows that aren't looked at, and the shift is one of the stimulus.

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
) -> dict[str, Shifted | Stretches]:
    """The same as `shifted`, not yet as series.

    Raises
    ------
    TaskError
        If a recording offers too few shifts.
    """
    versions: dict[str, Shifted | Stretches] = {}
    for key, residual in split.residual.items():
        found = stretches(split.present[key], n_lags, shift_min_s, rate, key)
        streams = [numpy_stream(seed, "shift", number, key) for number in numbers]
        fit = np.where(split.present[key], split.fit[key], 0.0)
        if len(found) == 1:
            versions[key] = _moved(found[0], fit, residual, streams)
            continue
        moving = [own for own in found if own.n_shifts]
        fits = _fits_of(found, fit, residual)
        parts = tuple(_moved(own, part, residual, streams) for own, part in zip(moving, fits, strict=True))
        versions[key] = Stretches(parts, between(found))
    return versions


def _moved(own: Stretch, fit: Floats, residual: Floats, streams: Sequence[np.random.Generator]) -> Shifted:
    """The shift of one stretch in every permutation, from the next draw of its stream."""
    draws = [stream.random() for stream in streams]
    shifts = np.array([own.smallest + int(own.n_shifts * draw) for draw in draws], dtype=np.int64)
    return Shifted(fit, residual[own.first : own.stop], own.first, shifts)


def _fits_of(found: Sequence[Stretch], fit: Floats, residual: Floats) -> list[Floats]:
    """The fit of each stretch that moves, 0 elsewhere; the first also has all of those that don't."""
    still, fits = np.zeros_like(fit), []
    for own in found:
        rows = slice(own.first, own.stop)
        if own.n_shifts:
            fits.append(np.zeros_like(fit))
            fits[-1][rows] = fit[rows]
        else:
            still[rows] = fit[rows] + residual[rows]
    fits[0] += still
    return fits


def correlation_time_s(split: Split, sample_rate_hz: float) -> float:
    """First lag at which the residual's autocorrelation, all pieces and stretches without a gap pooled, falls to .1.

    Shifts must exceed the lag window by at least this much: see `check_reach`.
    """
    series = [
        split.residual[key][start:stop] for key in split.residual for start, stop in masks.of_flags(split.present[key])
    ]
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
