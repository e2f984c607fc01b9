"""Training sets of nested leave-one-piece-out, diagonalised once, and a subject's EEG in their bases.

The reduced block of the normal equations doesn't change between subjects and versions of the regressor. In the
eigenbasis of its training set every lambda is a division.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from tasks.contract import TaskError
from tasks.eeg.sufficient import ReducedSums, ResponseSums

Floats = npt.NDArray[np.float64]

INNER_DTYPE = np.float32
"""Precision of the inner folds' scores, which only rank lambdas. Their sums are centred and rotated in double precision
first: r then errs by about 1e-6, less than lambdas worth telling apart differ by."""


@dataclass(frozen=True)
class Fold:
    """One training set, all pieces but `held`, in the eigenbasis of its centred reduced block.

    Attributes
    ----------
    held : tuple of int
        One piece (outer fold) or two (inner fold of either).
    weight : float
        What lambda is multiplied with: the number of training samples.
    n_samples : float
        Training samples.
    totals : ndarray, shape (P,)
        Sums of the training columns, not rotated.
    vectors, values : ndarray, shape (P, P) and (P,)
    tests : tuple of ndarray, shape (P, P)
        Centred products of each held-out piece, rotated.
    """

    held: tuple[int, ...]
    weight: float
    n_samples: float
    totals: Floats
    vectors: Floats
    values: Floats
    tests: tuple[Floats, ...]


@dataclass(frozen=True)
class Folds:
    """All training sets of a layout, and the lambdas among which the inner folds choose."""

    sums: ReducedSums
    lambdas: tuple[float, ...]
    folds: tuple[Fold, ...]

    @property
    def n_pieces(self) -> int:
        return self.sums.n_samples.size


def make_folds(sums: ReducedSums, lambdas: Sequence[float], penalty: Floats | None = None) -> Folds:
    """Diagonalise every training set.

    Parameters
    ----------
    sums : ReducedSums
        Of N pieces.
    lambdas : sequence of float
        Ridge penalties relative to the number of training samples: the normal equations get ``lambda * n`` on their
        diagonal, the bias none. In mTRF-Toolbox's units (Crosse et al. 2016; its covariances are averaged over trials
        and its lambda is multiplied by the sample rate) the same penalty is
        ``lambda_mtrf = lambda * n / (n_trials * sample_rate_hz)``.
    penalty : ndarray, shape (N,), optional
        What each training piece adds to lambda's factor instead of its number of samples.

    Raises
    ------
    TaskError
        If there are too few pieces: 2, or 3 where lambda has to be chosen.
    """
    n_pieces, nested = sums.n_samples.size, len(lambdas) > 1
    if n_pieces < 2 + nested:
        why = "choosing lambda inside the training pieces" if nested else "leave-one-piece-out"
        raise TaskError(
            f"{n_pieces} piece(s) with EEG, features and IC: {why} needs at least {2 + nested}; "
            "add pieces" + (" or give a single lambda" if nested else "")
        )
    weights = sums.n_samples if penalty is None else penalty
    held = [(i,) for i in range(n_pieces)] + (list(combinations(range(n_pieces), 2)) if nested else [])
    return Folds(sums, tuple(lambdas), tuple(_fold(sums, weights, pieces) for pieces in held))


def _fold(sums: ReducedSums, weights: Floats, held: tuple[int, ...]) -> Fold:
    n_samples, totals = float(without(sums.n_samples, held)), without(sums.totals, held)
    values, vectors = np.linalg.eigh(without(sums.products, held) - np.outer(totals, totals) / n_samples)
    tests = []
    for i in held:
        centred = sums.products[i] - np.outer(sums.totals[i], sums.totals[i]) / sums.n_samples[i]
        tests.append(in_precision(held, vectors.T @ centred @ vectors))
    weight = float(without(weights, held))
    return Fold(held, weight, n_samples, totals, vectors, np.maximum(values, 0.0), tuple(tests))


def without(pieces: Floats, held: tuple[int, ...]) -> Floats:
    """Sum over the first axis, the held pieces left out."""
    rest = [i for i in range(len(pieces)) if i not in held]
    total: Floats = pieces[rest[0]].copy()
    for i in rest[1:]:
        total += pieces[i]
    return total


def in_precision(held: tuple[int, ...], values: Floats) -> Floats:
    """Double for outer folds, `INNER_DTYPE` for inner ones."""
    return values if len(held) == 1 else np.asarray(values, dtype=INNER_DTYPE)


@dataclass(frozen=True)
class Rotated:
    """A subject's EEG in the basis of one fold.

    `train` (P, C) is against the training columns, `tests` against each held-out piece, `squares` (C,) their variances;
    `base[test]` holds covariance and variance (lambdas, C) of the reduced model's prediction of a held-out piece.
    """

    train: Floats
    tests: tuple[Floats, ...]
    squares: tuple[Floats, ...]
    base: tuple[tuple[Floats, Floats], ...]


@dataclass(frozen=True)
class Heard:
    """A subject's sums, and what every fold needs of them whatever the regressor."""

    sums: ResponseSums
    folds: tuple[Rotated, ...]


def prepare(folds: Folds, response: ResponseSums) -> Heard:
    """Rotate a subject's sums into the basis of every fold, once for all regressors."""
    return Heard(response, tuple(_rotate_response(folds, fold, response) for fold in folds.folds))


def _rotate_response(folds: Folds, fold: Fold, response: ResponseSums) -> Rotated:
    sums = folds.sums
    train = without(response.products, fold.held)
    train -= np.outer(fold.totals, without(response.totals, fold.held)) / fold.n_samples
    train = in_precision(fold.held, fold.vectors.T @ train)
    tests, squares = [], []
    for i in fold.held:
        product = response.products[i] - np.outer(sums.totals[i], response.totals[i]) / sums.n_samples[i]
        tests.append(in_precision(fold.held, fold.vectors.T @ product))
        squares.append(in_precision(fold.held, response.squares[i] - response.totals[i] ** 2 / sums.n_samples[i]))
    return Rotated(train, tuple(tests), tuple(squares), _base(fold, train, tests, gains_of(fold, folds.lambdas)))


def gains_of(fold: Fold, lambdas: Sequence[float]) -> Floats:
    """Inverse of the reduced block's eigenvalues with each ridge on them, shape (lambdas, P)."""
    return in_precision(fold.held, 1 / (fold.values + np.array(lambdas)[:, None] * fold.weight))


def _base(fold: Fold, train: Floats, tests: Sequence[Floats], gains: Floats) -> tuple[tuple[Floats, Floats], ...]:
    weights = train * gains[:, :, None]
    return tuple(
        ((weights * product).sum(axis=1), (weights * (own @ weights)).sum(axis=1))
        for product, own in zip(tests, fold.tests, strict=True)
    )
