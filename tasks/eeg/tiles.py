"""Permutations in tiles of one size, so that no bit of a fit depends on the block or the batch it is computed in.

How a matrix product rounds depends on its shape. A permutation therefore always has the same place in a tile of the
same shape; the others of its tile are fitted with it, wanted or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tasks.contract import Context, Stopped
from tasks.eeg.folds import Folds, Heard
from tasks.eeg.nested import full_scores
from tasks.eeg.sufficient import RegressorSums

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TILE = 10
"""Permutations of a tile."""


def whole_tiles(numbers: range) -> range:
    """`numbers`, and those that complete the first and the last tile."""
    return range(numbers.start - numbers.start % TILE, -(-numbers.stop // TILE) * TILE)


def tiles(sums: RegressorSums, crosses: Sequence[Floats]) -> Iterator[tuple[RegressorSums, list[Floats]]]:
    """The sums of one tile after the other."""
    n_lags = sums.products.shape[2]
    for start in range(0, sums.products.shape[1], TILE):
        rows = slice(start * n_lags, (start + TILE) * n_lags)
        own = RegressorSums(sums.reduced[:, rows], sums.products[:, start : start + TILE], sums.totals[:, rows])
        yield own, [cross[:, rows] for cross in crosses]


def permuted_r(
    folds: Folds,
    sums: RegressorSums,
    crosses: Sequence[Floats],
    heard: Sequence[Heard],
    context: Context,
    given: Sequence[Ints] | None = None,
) -> list[Floats]:
    """r of the full model, shape (K, pieces, channels), for K versions of whole tiles and each subject.

    `given` is as in `full_scores`.

    Raises
    ------
    Stopped
        If the context says so between two tiles.
    """
    found: list[list[Floats]] = [[] for _ in heard]
    for tile, against in tiles(sums, crosses):
        if context.should_stop():
            raise Stopped
        for parts, scores in zip(found, full_scores(folds, tile, heard, against, given=given), strict=True):
            parts.append(scores.r)
    return [np.concatenate(parts) for parts in found]
