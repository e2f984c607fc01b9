"""Training sets of nested leave-one-piece-out, diagonalised once, and a subject's EEG in their bases.

The reduced block of the normal equations doesn't change between subjects and versions of the regressor. In the
eigenbasis of its training set every lambda is a division.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from tasks.contract import TaskError
from tasks.eeg.choosing import OWN, Choosing
from tasks.eeg.sufficient import ReducedSums, ResponseSums

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STACKED = 2**16
"""Training sets are worked on together while their reduced blocks have fewer numbers than this: few enough for the
processor's cache. It depends on the reduced model alone, so no bit depends on who is fitted."""


@dataclass(frozen=True)
class Stack:
    """J training sets, each all pieces but `held`, in the eigenbasis of its centred reduced block.

    Attributes
    ----------
    held : ndarray of int64, shape (J, 1) or (J, 2)
        One piece (outer fold) or two (inner fold of either).
    weights : ndarray, shape (J,)
        What lambda is multiplied with: the number of training samples.
    n_samples : ndarray, shape (J,)
        Training samples.
    totals : ndarray, shape (J, P)
        Sums of the training columns, not rotated.
    vectors, values : ndarray, shape (J, P, P) and (J, P)
    tests : tuple of ndarray, shape (J, P, P)
        Centred products of the held-out pieces, rotated.
    dtype : dtype
        Precision of the scores.
    """

    held: Ints
    weights: Floats
    n_samples: Floats
    totals: Floats
    vectors: Floats
    values: Floats
    tests: tuple[Floats, ...]
    dtype: npt.DTypeLike

    @property
    def outer(self) -> bool:
        return len(self.held[0]) == 1

    def part(self, chosen: slice) -> Stack:
        """Some of the training sets."""
        return Stack(
            self.held[chosen],
            self.weights[chosen],
            self.n_samples[chosen],
            self.totals[chosen],
            self.vectors[chosen],
            self.values[chosen],
            tuple(test[chosen] for test in self.tests),
            self.dtype,
        )

    def gains(self, lambdas: Sequence[float]) -> Floats:
        """Inverse of the reduced block's eigenvalues with each ridge on them, shape (J, lambdas, P)."""
        ridges = np.array(lambdas) * self.weights[:, None]
        return np.asarray(1 / (self.values[:, None] + ridges[:, :, None]), dtype=self.dtype)

    def rotated(self, columns: Floats) -> Floats:
        """Reduced columns (J, P, Q) in the bases."""
        return np.asarray(self.vectors.swapaxes(1, 2) @ columns.astype(self.vectors.dtype), dtype=self.dtype)


@dataclass(frozen=True)
class Folds:
    """All training sets of a layout, and the lambdas among which the inner folds choose."""

    sums: ReducedSums
    lambdas: tuple[float, ...]
    choosing: Choosing
    stacks: tuple[Stack, ...]

    @property
    def n_pieces(self) -> int:
        return self.sums.n_samples.size


def make_folds(
    sums: ReducedSums, lambdas: Sequence[float], penalty: Floats | None = None, choosing: Choosing = OWN
) -> Folds:
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
    choosing : Choosing
        How lambda is chosen, and in which precision.

    Raises
    ------
    TaskError
        If there are too few pieces: 2, or 3 where lambda has to be chosen.
    """
    n_pieces, nested = sums.n_samples.size, len(lambdas) > 1 or len(choosing.lambdas_ic) > 1
    if n_pieces < 2 + nested:
        why = "choosing lambda inside the training pieces" if nested else "leave-one-piece-out"
        raise TaskError(
            f"{n_pieces} piece(s) with EEG, features and IC: {why} needs at least {2 + nested}; "
            "add pieces" + (" or give a single lambda" if nested else "")
        )
    weights = sums.n_samples if penalty is None else penalty
    own = sums.products - sums.totals[:, :, None] * (sums.totals / sums.n_samples[:, None])[:, None]
    sizes = (1, 2) if nested else (1,)
    together = max(1, STACKED // sums.totals.shape[1] ** 2)
    stacks = [
        _stack(sums, own, weights, np.array(held, dtype=np.int64), choosing)
        for size in sizes
        for held in _runs(list(combinations(range(n_pieces), size)), together)
    ]
    return Folds(sums, tuple(lambdas), choosing, tuple(stacks))


def _runs(held: list[tuple[int, ...]], together: int) -> Iterator[list[tuple[int, ...]]]:
    for start in range(0, len(held), together):
        yield held[start : start + together]


def _stack(sums: ReducedSums, own: Floats, weights: Floats, held: Ints, choosing: Choosing) -> Stack:
    n_samples, totals = without(sums.n_samples, held), without(sums.totals, held)
    products = without(sums.products, held) - totals[:, :, None] * (totals / n_samples[:, None])[:, None]
    values, vectors = np.linalg.eigh(products)
    dtype, rotation = choosing.dtypes(outer=held.shape[1] == 1)
    vectors = np.asarray(vectors, dtype=rotation)
    tests = tuple(np.asarray(vectors.swapaxes(1, 2) @ own[i].astype(rotation) @ vectors, dtype=dtype) for i in held.T)
    return Stack(held, without(weights, held), n_samples, totals, vectors, np.maximum(values, 0.0), tests, dtype)


def without(pieces: Floats, held: Ints, total: Floats | None = None) -> Floats:
    """Sums over the first axis with the held pieces left out, shape (J, ...); `total` is that with none left out."""
    whole = pieces.sum(axis=0) if total is None else total
    rest: Floats = whole - pieces[held[:, 0]]
    for i in held.T[1:]:
        rest -= pieces[i]
    return rest


@dataclass(frozen=True)
class Rotated:
    """A subject's EEG in the bases of a stack.

    `columns` (J, P, C times 1 + held pieces) is against the training columns, then against those of each held-out
    piece; `squares` (J, C) are the held-out pieces' variances; `base` holds for each covariance and variance
    (J, lambdas, C) of the reduced model's prediction.
    """

    columns: Floats
    squares: tuple[Floats, ...]
    base: tuple[tuple[Floats, Floats], ...]

    def part(self, chosen: slice) -> Rotated:
        """Of some of the training sets."""
        base = tuple((covariance[chosen], variance[chosen]) for covariance, variance in self.base)
        return Rotated(self.columns[chosen], tuple(square[chosen] for square in self.squares), base)


@dataclass(frozen=True)
class Heard:
    """A subject's sums, and what every training set needs of them whatever the regressor."""

    sums: ResponseSums
    stacks: tuple[Rotated, ...]


def prepare(folds: Folds, response: ResponseSums) -> Heard:
    """Rotate a subject's sums into the basis of every training set, once for all regressors."""
    reduced, n_samples = folds.sums, folds.sums.n_samples[:, None]
    own = response.products - reduced.totals[:, :, None] * (response.totals / n_samples)[:, None]
    squares = response.squares - response.totals**2 / n_samples
    return Heard(response, tuple(_rotate(folds, stack, response, own, squares) for stack in folds.stacks))


def _rotate(folds: Folds, stack: Stack, response: ResponseSums, own: Floats, squares: Floats) -> Rotated:
    heard = without(response.totals, stack.held) / stack.n_samples[:, None]
    train = without(response.products, stack.held) - stack.totals[:, :, None] * heard[:, None]
    columns = stack.rotated(np.concatenate([train, *(own[i] for i in stack.held.T)], axis=2))
    n_channels = train.shape[2]
    gains = stack.gains(folds.lambdas)
    base = []
    for test, products in enumerate(stack.tests):
        against = columns[:, :, (1 + test) * n_channels : (2 + test) * n_channels]
        covariance = np.empty((len(gains), len(folds.lambdas), n_channels), dtype=stack.dtype)
        variance = np.empty_like(covariance)
        for number in range(len(folds.lambdas)):
            weights = gains[:, number, :, None] * columns[:, :, :n_channels]
            covariance[:, number] = np.einsum("jpc,jpc->jc", weights, against)
            variance[:, number] = np.einsum("jpc,jpc->jc", weights, products @ weights)
        base.append((covariance, variance))
    return Rotated(columns, tuple(np.asarray(squares[i], dtype=stack.dtype) for i in stack.held.T), tuple(base))
