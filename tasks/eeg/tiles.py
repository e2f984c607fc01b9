"""Permutations in tiles of one size, so that no bit of a fit depends on the block or the batch it is computed in.

How a matrix product rounds depends on its shape. A permutation therefore always has the same place in a tile of the
same shape; the others of its tile are fitted with it, wanted or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tasks.eeg.sufficient import RegressorSums

Floats = npt.NDArray[np.float64]

TILE = 20
"""Permutations of a tile."""


def whole_tiles(numbers: range) -> range:
    """`numbers`, and those that complete the first and the last tile."""
    return range(numbers.start - numbers.start % TILE, -(-numbers.stop // TILE) * TILE)


def tiles(sums: RegressorSums, crosses: Sequence[Floats], n_lags: int) -> Iterator[tuple[RegressorSums, list[Floats]]]:
    """The sums of `TILE` versions after the other."""
    for start in range(0, sums.products.shape[1], TILE):
        rows = slice(start * n_lags, (start + TILE) * n_lags)
        own = RegressorSums(sums.reduced[:, rows], sums.products[:, start : start + TILE], sums.totals[:, rows])
        yield own, [cross[:, rows] for cross in crosses]
