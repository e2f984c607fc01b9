"""The regressor's part of a fit: its versions in the bases of the training sets, and the reduced columns eliminated.

The full model's normal equations have two blocks. The reduced one is diagonal in the basis of its training set, so
eliminating it leaves an L x L Schur complement per version and lambda.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.eeg.folds import Folds, Stack, without
from tasks.eeg.sufficient import RegressorSums, ResponseSums

Floats = npt.NDArray[np.float64]

SMALL = 7
"""Matrices of this size are left to LAPACK."""


@dataclass(frozen=True)
class Centred:
    """K versions of the regressor: each piece's sums about its means, and all pieces' sums as they are.

    `reduced`, `products` and `totals` are as in `RegressorSums`; `whole` has theirs without the axis of pieces.
    """

    sums: RegressorSums
    reduced: Floats
    products: Floats
    whole: RegressorSums


def centre(folds: Folds, sums: RegressorSums) -> Centred:
    """About the means of each piece."""
    n_samples = folds.sums.n_samples[:, None]
    versions = sums.totals.reshape(sums.products.shape[:3])
    means = versions / n_samples[:, :, None]
    reduced = sums.reduced - sums.totals[:, :, None] * (folds.sums.totals / n_samples)[:, None]
    products = sums.products - versions[:, :, :, None] * means[:, :, None]
    whole = RegressorSums(sums.reduced.sum(axis=0), sums.products.sum(axis=0), sums.totals.sum(axis=0))
    return Centred(sums, reduced, products, whole)


@dataclass(frozen=True)
class Rows:
    """K versions of the regressor in the bases of J training sets.

    Attributes
    ----------
    train : ndarray, shape (J, K * L, P)
        Against the reduced columns of the training sets.
    tests : tuple of ndarray, shape (J, K * L, P)
        Against those of the held-out pieces.
    train_products, test_products : ndarray, shape (J, K, L, L)
        Among its own lags.
    """

    train: Floats
    tests: tuple[Floats, ...]
    train_products: Floats
    test_products: tuple[Floats, ...]


def in_bases(stack: Stack, regressor: Centred) -> Rows:
    """The sums of the training sets and of the held-out pieces, centred and rotated."""
    sums, whole, held = regressor.sums, regressor.whole, stack.held
    count, n_lags = sums.products.shape[1:3]
    totals = without(sums.totals, held, whole.totals)
    means = totals / stack.n_samples[:, None]
    train = without(sums.reduced, held, whole.reduced)
    train -= means[:, :, None] * stack.totals[:, None]
    products = without(sums.products, held, whole.products)
    products -= totals.reshape(-1, count, n_lags, 1) * means.reshape(-1, count, 1, n_lags)
    return Rows(
        _rotated(stack, train),
        tuple(_rotated(stack, regressor.reduced[i]) for i in held.T),
        np.asarray(products, dtype=stack.dtype),
        tuple(np.asarray(regressor.products[i], dtype=stack.dtype) for i in held.T),
    )


def _rotated(stack: Stack, rows: Floats) -> Floats:
    return np.asarray(rows.astype(stack.vectors.dtype, copy=False) @ stack.vectors, dtype=stack.dtype)


def against(stack: Stack, regressor: Centred, cross: Floats, response: ResponseSums, n_samples: Floats) -> Floats:
    """The regressor against one subject's EEG, centred.

    Parameters
    ----------
    stack : Stack
    regressor : Centred
    cross : ndarray, shape (N, K * L, C)
    response : ResponseSums
    n_samples : ndarray, shape (N,)

    Returns
    -------
    ndarray, shape (J, K * L, C times 1 + held-out pieces)
        Of the training sets, then of each held-out piece.
    """
    held, totals = stack.held, regressor.sums.totals
    means = without(response.totals, held) / stack.n_samples[:, None]
    parts = [without(cross, held) - without(totals, held, regressor.whole.totals)[:, :, None] * means[:, None]]
    for i in held.T:
        parts.append(cross[i] - totals[i][:, :, None] * (response.totals[i] / n_samples[i, None])[:, None])
    return np.concatenate(parts, axis=2, dtype=stack.dtype, casting="same_kind")


@dataclass(frozen=True)
class Schur:
    """What some lambdas make of the regressor.

    `inverse` (J, lambdas, M, K, L, L) is that of the Schur complement, with each of the regressor's own M lambdas. For
    each held-out piece there is what the reduced columns leave over of the regressor: against the reduced columns
    (J, lambdas, K * L, P), and among itself (J, lambdas, K, L, L).
    """

    inverse: Floats
    left_over: tuple[Floats, ...]
    left_over_products: tuple[Floats, ...]


def eliminate(stack: Stack, rows: Rows, lambdas: Sequence[float], own_lambdas: Floats) -> Schur:
    """Take the reduced columns out of the normal equations; `own_lambdas` has the shape (lambdas, M)."""
    n_sets, count, n_lags = rows.train_products.shape[:3]
    shape = (n_sets, len(lambdas), count, n_lags, -1)
    explained = rows.train[:, None] * stack.gains(lambdas)[:, :, None]
    versions = explained.reshape(shape)
    schur = versions @ rows.train.reshape(n_sets, 1, count, n_lags, -1).swapaxes(-1, -2)
    np.subtract(rows.train_products[:, None], schur, out=schur)
    left_over: list[Floats] = []
    products: list[Floats] = []
    for test, own in enumerate(rows.tests):
        left: Floats = own[:, None] - explained @ stack.tests[test][:, None]
        half: Floats = versions @ (0.5 * (own[:, None] + left)).reshape(shape).swapaxes(-1, -2)
        left_over.append(left)
        products.append(rows.test_products[test][:, None] - half - half.swapaxes(-1, -2))
    ridges = np.asarray(own_lambdas * stack.weights[:, None, None], dtype=stack.dtype)
    ridged = schur[:, :, None] + ridges[:, :, :, None, None, None] * np.eye(n_lags, dtype=stack.dtype)
    return Schur(inverse(ridged), tuple(left_over), tuple(products))


def inverse(matrices: Floats) -> Floats:
    """Of symmetric positive definite matrices (..., L, L), by halves: for many small ones faster than LAPACK's."""
    size = matrices.shape[-1]
    if size <= SMALL:
        return np.asarray(np.linalg.inv(matrices), dtype=matrices.dtype)
    half = size // 2
    beside = matrices[..., :half, half:]
    first = inverse(matrices[..., :half, :half])
    across = first @ beside
    last = inverse(matrices[..., half:, half:] - beside.swapaxes(-1, -2) @ across)
    corner = across @ last
    result = np.empty_like(matrices)
    result[..., :half, :half] = first + corner @ across.swapaxes(-1, -2)
    result[..., :half, half:] = -corner
    result[..., half:, :half] = -corner.swapaxes(-1, -2)
    result[..., half:, half:] = last
    return result
