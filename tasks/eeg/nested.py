"""Nested leave-one-piece-out ridge regression from sufficient statistics, for many versions of one regressor at once.

Nothing is ever predicted: the correlation of a held-out piece follows from its own centred sums. A version of the
regressor (a permutation) only adds the Schur complement of its L columns to the reduced block. The model trained
without pieces i and j serves as the inner test of j within the outer fold i, and of i within j.

Subjects share what concerns the stimuli alone and are otherwise fitted one after the other. Stacked as channels, five
of them would be 1.1 to 1.25 times faster (benchmarks/trf_study.py, `stacking_gain`), and bits would depend on the
company.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.eeg.choosing import correlation
from tasks.eeg.elimination import Rows, Schur, against, centre, eliminate, in_bases
from tasks.eeg.folds import Folds, Heard, Rotated, Stack
from tasks.eeg.sufficient import RegressorSums

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TOGETHER = 20
"""Fits of so many versions and lambdas are made at once: few enough for the processor's cache."""

WIDE = 70
"""Training sets are fitted at once as long as they have no more fits than this together."""


@dataclass(frozen=True)
class Scores:
    """Held-out correlations of K versions.

    Attributes
    ----------
    r : ndarray, shape (K, N, C)
    chosen : ndarray of int64, shape (K, N, 1) or (K, N, C)
        Index of the lambda that the inner folds of each outer fold chose, for all channels or for each. Where the
        regressor has M lambdas of its own it is M times the reduced columns' index plus the regressor's.
    kernel : ndarray, shape (K, L, C)
        Weights of the regressor's lags, mean over the outer folds; of the reduced model, weights of its P columns.
        L = 0 where they weren't asked for.
    """

    r: Floats
    chosen: Ints
    kernel: Floats


class _Fits:
    """What is kept of one subject's fits until lambda is chosen: of every lambda, outer r and kernel and inner scores.

    Arrays begin with (lambdas * M, K, N).
    """

    def __init__(self, folds: Folds, heard: Heard, n_lambdas: int, count: int, n_rows: int) -> None:
        self._folds, n_channels = folds, heard.sums.totals.shape[1]
        shape = (n_lambdas, count, folds.n_pieces)
        self._inner = np.zeros((*shape, folds.n_pieces, n_channels if folds.choosing.per_channel else 1))
        self._outer = np.zeros((*shape, n_channels))
        self._kernels = np.zeros((*shape, n_rows, n_channels))

    def put(self, stack: Stack, rotated: Rotated, which: slice, moments: Sequence[tuple[Floats, Floats]]) -> None:
        """Covariance and variance (J, lambdas * M, K, C) of each held-out piece's predictions."""
        for test, (piece, (covariance, variance)) in enumerate(zip(stack.held.T, moments, strict=True)):
            square = rotated.squares[test][:, None, None]
            if stack.outer:
                self._outer[which, :, piece] = np.moveaxis(correlation(covariance, variance, square), 0, 2)
            else:
                n_samples = self._folds.sums.n_samples[piece][:, None, None, None]
                score = self._folds.choosing.score(covariance, variance, square, n_samples)
                self._inner[which, :, stack.held[:, 1 - test], piece] = np.moveaxis(score, 0, 2)

    def keep(self, stack: Stack, which: slice, kernel: Floats) -> None:
        """Kernels (J, lambdas * M, K, L, C) of outer folds."""
        self._kernels[which, :, stack.held[:, 0]] = np.moveaxis(kernel, 0, 2)

    def scores(self, given: Ints | None = None) -> Scores:
        """At the first lambda with the best mean over the inner test pieces, or at a given one."""
        best = self._inner.sum(axis=3).argmax(axis=0)
        chosen = best if given is None else np.broadcast_to(given, (len(best), *given.shape[1:]))
        r = np.take_along_axis(self._outer, chosen[None], axis=0)[0]
        kernel = np.take_along_axis(self._kernels, chosen[None, :, :, None], axis=0)[0].mean(axis=1)
        return Scores(r, np.asarray(chosen, dtype=np.int64), kernel)


def reduced_scores(folds: Folds, heard: Heard, keep_kernel: bool = False) -> Scores:
    """Nested scores of the reduced model alone (K = 1)."""
    every = slice(None)
    n_columns = folds.sums.totals.shape[1] if keep_kernel else 0
    fits = _Fits(folds, heard, len(folds.lambdas), 1, n_columns)
    for stack, rotated in zip(folds.stacks, heard.stacks, strict=True):
        fits.put(stack, rotated, every, [(moments[0][:, :, None], moments[1][:, :, None]) for moments in rotated.base])
        if stack.outer and keep_kernel:
            n_channels = heard.sums.totals.shape[1]
            weights = stack.gains(folds.lambdas)[..., None] * rotated.columns[:, None, :, :n_channels]
            fits.keep(stack, every, (stack.vectors[:, None] @ weights)[:, :, None])
    return fits.scores()


def full_scores(
    folds: Folds,
    regressor: RegressorSums,
    subjects: Sequence[Heard],
    crosses: Sequence[Floats],
    keep_kernel: bool = False,
    given: Sequence[Ints] | None = None,
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
    given : sequence of ndarray of int64, shape (1, N, 1) or (1, N, C), optional
        Lambda of each subject's outer folds, as `Scores.chosen`; nothing is chosen then, and no inner fold is fitted.
    """
    count, n_lags = regressor.products.shape[1:3]
    own_lambdas = folds.choosing.pairs(folds.lambdas)
    n_lambdas, n_own = own_lambdas.shape
    rows_kept = n_lags if keep_kernel else 0
    fits = [_Fits(folds, heard, own_lambdas.size, count, rows_kept) for heard in subjects]
    centred = centre(folds, regressor)
    together = 1 if given is not None else max(1, TOGETHER // (count * n_own))
    wide = max(1, WIDE // (count * own_lambdas.size))
    for number, whole in enumerate(folds.stacks):
        if given is not None and not whole.outer:
            continue
        for first in range(0, len(whole.held), wide):
            chosen = slice(first, first + wide)
            stack = whole.part(chosen)
            rows = in_bases(stack, centred)
            heard = [subject.stacks[number].part(chosen) for subject in subjects]
            with_eeg = [
                against(stack, centred, cross, subject.sums, folds.sums.n_samples)
                for subject, cross in zip(subjects, crosses, strict=True)
            ]
            for start in range(0, n_lambdas, together):
                which = slice(start, start + together)
                wanted = [place for place in range(len(subjects)) if _wants(given, place, stack, start)]
                if not wanted:
                    continue
                schur = eliminate(stack, rows, folds.lambdas[which], own_lambdas[which])
                flat = slice(start * n_own, (start + together) * n_own)
                for place in wanted:
                    kernel, moments = _fit(folds, stack, rows, schur, heard[place], with_eeg[place], which)
                    fits[place].put(stack, heard[place], flat, moments)
                    if stack.outer and keep_kernel:
                        fits[place].keep(stack, flat, kernel)
    return [own.scores(None if given is None else given[place]) for place, own in enumerate(fits)]


def _wants(given: Sequence[Ints] | None, place: int, stack: Stack, number: int) -> bool:
    return given is None or bool((given[place][0, stack.held[:, 0]] == number).any())


def _fit(
    folds: Folds,
    stack: Stack,
    rows: Rows,
    schur: Schur,
    heard: Rotated,
    with_eeg: Floats,
    which: slice,
) -> tuple[Floats, list[tuple[Floats, Floats]]]:
    """Kernels (J, lambdas * M, K, L, C) of the fits at some lambdas, and for each held-out piece covariance and
    variance (J, lambdas * M, K, C) of the predictions."""
    n_sets, n_lambdas, n_own, count, n_lags = schur.inverse.shape[:5]
    n_channels = heard.squares[0].shape[1]
    by_version = (n_sets, n_lambdas, 1, count, n_lags, -1)
    weights = stack.gains(folds.lambdas[which])[..., None] * heard.columns[:, None]
    left = (with_eeg[:, None] - rows.train[:, None] @ weights).reshape(by_version)
    kernel = schur.inverse @ left[..., :n_channels]
    weights = 2 * weights[..., :n_channels]
    moments = []
    for test, base in enumerate(heard.base):
        own = left[..., (1 + test) * n_channels : (2 + test) * n_channels]
        with_rest = schur.left_over_products[test][:, :, None] @ kernel
        with_rest += (schur.left_over[test] @ weights).reshape(by_version)
        covariance, variance = (moment[:, which, None, None] for moment in base)
        covariance = covariance + np.einsum("jpmklc,jpmklc->jpmkc", kernel, own)
        variance = variance + np.einsum("jpmklc,jpmklc->jpmkc", kernel, with_rest)
        flat = (n_sets, n_lambdas * n_own, count, n_channels)
        moments.append((covariance.reshape(flat), variance.reshape(flat)))
    return kernel.reshape(n_sets, n_lambdas * n_own, count, n_lags, n_channels), moments
