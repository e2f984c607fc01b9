"""Nested leave-one-piece-out ridge regression from sufficient statistics, for many versions of one regressor at once.

Nothing is ever predicted: the correlation of a held-out piece follows from its own centred sums. A version of the
regressor (a permutation) only adds the Schur complement of its L columns to the reduced block. The model trained
without pieces i and j serves as the inner test of j within the outer fold i, and of i within j.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.eeg.folds import Fold, Folds, Heard, Rotated, gains_of, in_precision, without
from tasks.eeg.sufficient import RegressorSums, ResponseSums

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FLAT = 1e-18
"""A prediction whose variance is below this share of the response's is constant: its correlation is 0."""

SMALL = 7
"""Matrices of this size are left to LAPACK."""

TOGETHER = 20
"""Fits of so many versions and lambdas are made at once: few enough for the processor's cache."""


@dataclass(frozen=True)
class Scores:
    """Held-out correlations of K versions.

    Attributes
    ----------
    r : ndarray, shape (K, N, C)
    chosen : ndarray of int64, shape (K, N, 1) or (K, N, C)
        Index of the lambda that the inner folds of each outer fold chose, for all channels or for each.
    kernel : ndarray, shape (K, L, C)
        Weights of the regressor's lags, mean over the outer folds; L = 0 where they weren't asked for.
    """

    r: Floats
    chosen: Ints
    kernel: Floats


def _correlation(covariance: Floats, variance: Floats, square: Floats) -> Floats:
    """r from centred sums; a constant prediction and a flat channel have r = 0."""
    usable = (variance > FLAT * square) & (square > 0)
    scale = np.sqrt(np.where(usable, variance * square, 1.0))
    return np.clip(np.where(usable, covariance / scale, 0.0), -1.0, 1.0)


def _choose(inner: Floats) -> Ints:
    """First lambda with the best mean; `inner` is (lambdas, K, N outer, N inner, choosers), 0 where outer is inner."""
    return np.asarray(inner.sum(axis=3).argmax(axis=0), dtype=np.int64)


def reduced_scores(folds: Folds, heard: Heard, per_channel: bool = False) -> Scores:
    """Nested scores of the reduced model alone (K = 1, L = 0).

    The inner folds' criterion is the mean of r over the inner test pieces and, unless each channel chooses for itself
    (`per_channel`), over the subject's channels.
    """
    n_pieces, n_channels, n_lambdas = folds.n_pieces, heard.sums.totals.shape[1], len(folds.lambdas)
    inner = np.zeros((n_lambdas, 1, n_pieces, n_pieces, n_channels if per_channel else 1))
    outer = np.zeros((n_lambdas, 1, n_pieces, n_channels))
    for fold, rotated in zip(folds.folds, heard.folds, strict=True):
        for test, piece in enumerate(fold.held):
            r = _correlation(*rotated.base[test], rotated.squares[test])
            if len(fold.held) == 1:
                outer[:, 0, piece] = r
            else:
                inner[:, 0, fold.held[1 - test], piece] = _pooled(r, per_channel)
    chosen = _choose(inner)
    r = np.take_along_axis(outer, chosen[None], axis=0)[0]
    return Scores(r, chosen, np.zeros((1, 0, n_channels)))


@dataclass(frozen=True)
class _Regressor:
    """K versions of the regressor in the basis of one fold."""

    train: Floats
    tests: tuple[Floats, ...]
    train_products: Floats
    test_products: tuple[Floats, ...]


def _rotate_regressor(folds: Folds, fold: Fold, regressor: RegressorSums) -> _Regressor:
    sums = folds.sums
    count, n_lags = regressor.products.shape[1:3]
    totals = without(regressor.totals, fold.held)
    train = without(regressor.reduced, fold.held) - np.outer(totals, fold.totals / fold.n_samples)
    by_version = totals.reshape(count, n_lags)
    products = without(regressor.products, fold.held) - by_version[:, :, None] * by_version[:, None, :] / fold.n_samples
    tests, test_products = [], []
    for i in fold.held:
        own, n = regressor.totals[i], sums.n_samples[i]
        rotated = (regressor.reduced[i] - np.outer(own, sums.totals[i] / n)) @ fold.vectors
        tests.append(in_precision(fold.held, rotated))
        own = own.reshape(count, n_lags)
        centred = regressor.products[i] - own[:, :, None] * own[:, None, :] / n
        test_products.append(in_precision(fold.held, centred))
    train, products = in_precision(fold.held, train @ fold.vectors), in_precision(fold.held, products)
    return _Regressor(train, tuple(tests), products, tuple(test_products))


@dataclass(frozen=True)
class _Schur:
    """What some lambdas make of the regressor: `inverse` (lambdas, K, L, L) of the Schur complement, and for each
    held-out piece the regressor's part that the reduced columns leave over (against the reduced columns, and among
    itself)."""

    inverse: Floats
    left_over: tuple[Floats, ...]
    left_over_products: tuple[Floats, ...]


def _eliminate(fold: Fold, regressor: _Regressor, lambdas: Sequence[float]) -> _Schur:
    count, n_lags = regressor.train_products.shape[:2]
    shape = (len(lambdas), count, n_lags, -1)
    weights = np.array(lambdas)[:, None, None, None] * fold.weight
    ridge = in_precision(fold.held, weights * np.eye(n_lags))
    explained = regressor.train * gains_of(fold, lambdas)[:, None]
    versions = explained.reshape(shape)
    schur = regressor.train_products - versions @ regressor.train.reshape(shape[1:]).swapaxes(1, 2)
    left_over: list[Floats] = []
    products: list[Floats] = []
    for test, own in enumerate(regressor.tests):
        left: Floats = own - explained @ fold.tests[test]
        half: Floats = versions @ (0.5 * (own + left)).reshape(shape).swapaxes(2, 3)
        left_over.append(left)
        products.append(regressor.test_products[test] - half - half.swapaxes(2, 3))
    return _Schur(_inverse(schur + ridge), tuple(left_over), tuple(products))


def _inverse(matrices: Floats) -> Floats:
    """Of symmetric positive definite matrices (..., L, L), by halves: for many small ones faster than LAPACK's."""
    size = matrices.shape[-1]
    if size <= SMALL:
        return np.asarray(np.linalg.inv(matrices), dtype=matrices.dtype)
    half = size // 2
    beside = matrices[..., :half, half:]
    first = _inverse(matrices[..., :half, :half])
    across = first @ beside
    last = _inverse(matrices[..., half:, half:] - beside.swapaxes(-1, -2) @ across)
    corner = across @ last
    result = np.empty_like(matrices)
    result[..., :half, :half] = first + corner @ across.swapaxes(-1, -2)
    result[..., :half, half:] = -corner
    result[..., half:, :half] = -corner.swapaxes(-1, -2)
    result[..., half:, half:] = last
    return result


def _cross(folds: Folds, fold: Fold, regressor: RegressorSums, response: ResponseSums, cross: Floats) -> list[Floats]:
    """The regressor against the EEG, centred: of the training set, then of each held-out piece, shape (K * L, C)."""
    totals, heard = without(regressor.totals, fold.held), without(response.totals, fold.held)
    result = [without(cross, fold.held) - np.outer(totals, heard / fold.n_samples)]
    for i in fold.held:
        result.append(cross[i] - np.outer(regressor.totals[i], response.totals[i] / folds.sums.n_samples[i]))
    return [in_precision(fold.held, part) for part in result]


def full_scores(
    folds: Folds,
    regressor: RegressorSums,
    subjects: Sequence[Heard],
    crosses: Sequence[Floats],
    keep_kernel: bool = False,
    per_channel: bool = False,
) -> list[Scores]:
    """Nested scores of the full model, reduced columns plus the regressor's lags, for K versions and each subject.

    Every version chooses its own lambda in every outer fold, as `reduced_scores` does. All work on a subject has the
    shapes of that subject alone, so its bits don't depend on which other subjects are in the call.

    Parameters
    ----------
    folds : Folds
    regressor : RegressorSums
        K versions.
    subjects : sequence of Heard
    crosses : sequence of ndarray, shape (N, K * L, C)
        The regressor against each subject's EEG.
    keep_kernel : bool
        Also return the kernels (K * N * L * C numbers per lambda until one is chosen).
    per_channel : bool
        Each channel chooses its own lambda.
    """
    count, n_lags = regressor.products.shape[1:3]
    shape = (len(folds.lambdas), count, folds.n_pieces)
    channels = [heard.sums.totals.shape[1] for heard in subjects]
    inner = [np.zeros((*shape, folds.n_pieces, n_channels if per_channel else 1)) for n_channels in channels]
    outer = [np.zeros((*shape, n_channels)) for n_channels in channels]
    kept = n_lags if keep_kernel else 0
    kernels = [np.zeros((*shape, kept, n_channels)) for n_channels in channels]
    together = max(1, TOGETHER // count)
    for number, fold in enumerate(folds.folds):
        rotated = _rotate_regressor(folds, fold, regressor)
        products = [
            _cross(folds, fold, regressor, heard.sums, cross) for heard, cross in zip(subjects, crosses, strict=True)
        ]
        for start in range(0, len(folds.lambdas), together):
            which = slice(start, start + together)
            schur = _eliminate(fold, rotated, folds.lambdas[which])
            for subject, heard in enumerate(subjects):
                kernel, scores = _score(folds, fold, rotated, schur, heard.folds[number], products[subject], which)
                if len(fold.held) == 1:
                    outer[subject][which, :, fold.held[0]] = scores[0]
                    kernels[subject][which, :, fold.held[0]] = kernel[:, :, :kept]
                else:
                    first, second = fold.held
                    inner[subject][which, :, second, first] = _pooled(scores[0], per_channel)
                    inner[subject][which, :, first, second] = _pooled(scores[1], per_channel)
    return [_chosen_scores(*arrays) for arrays in zip(inner, outer, kernels, strict=True)]


def _pooled(r: Floats, per_channel: bool) -> Floats:
    return r if per_channel else r.mean(axis=-1, keepdims=True)


def _score(
    folds: Folds,
    fold: Fold,
    regressor: _Regressor,
    schur: _Schur,
    heard: Rotated,
    products: list[Floats],
    which: slice,
) -> tuple[Floats, list[Floats]]:
    """Kernels (lambdas, K, L, C) of the fits at some lambdas, and r (lambdas, K, C) of each held-out piece."""
    shape = (*schur.inverse.shape[:3], -1)
    gains = gains_of(fold, folds.lambdas[which])[:, :, None]
    weights = gains * heard.train
    unexplained = products[0] - regressor.train @ weights
    kernel = schur.inverse @ unexplained.reshape(shape)
    weights *= 2
    scores = []
    for test, (covariance, variance) in enumerate(heard.base):
        with_eeg = (products[1 + test] - regressor.train @ (gains * heard.tests[test])).reshape(shape)
        with_rest = schur.left_over_products[test] @ kernel
        with_rest += (schur.left_over[test] @ weights).reshape(shape)
        more_covariance = covariance[which, None] + np.einsum("pklc,pklc->pkc", kernel, with_eeg)
        more_variance = variance[which, None] + np.einsum("pklc,pklc->pkc", kernel, with_rest)
        scores.append(_correlation(more_covariance, more_variance, heard.squares[test]))
    return kernel, scores


def _chosen_scores(inner: Floats, outer: Floats, kernels: Floats) -> Scores:
    chosen = _choose(inner)
    r = np.take_along_axis(outer, chosen[None], axis=0)[0]
    kernel = np.take_along_axis(kernels, chosen[None, :, :, None], axis=0)[0].mean(axis=1)
    return Scores(r, chosen, kernel)
