"""Means over pieces with intervals that respect what is not independent: tunes of a family, and models of one recipe.

Pieces are drawn by whole clusters of related tunes, and where a setting was trained with several seeds, seeds are drawn
too, independently of the clusters (Owen's pigeonhole bootstrap, 2007): what varies between seeds is then part of the
interval.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tasks.seeds import numpy_stream

Floats = npt.NDArray[np.float64]

N_DRAWS = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over pieces and seeds, and its 95 % percentile interval.

    `low` and `high` are None where there is a single cluster: it says nothing about others.
    """

    mean: float
    low: float | None
    high: float | None
    n_seeds: int
    n_pieces: int
    n_clusters: int


def table(rows: Sequence[Mapping[Hashable, float | None]]) -> tuple[list[Hashable], Floats]:
    """Values of several seeds, side by side.

    Parameters
    ----------
    rows : sequence of mapping of piece to value
        One mapping per seed; a piece may be missing or None.

    Returns
    -------
    pieces : list
        All pieces, in order of first appearance.
    values : ndarray of float64, shape (number of seeds, number of pieces)
        NaN where a seed has no value.
    """
    pieces = list(dict.fromkeys(piece for row in rows for piece in row))
    values = [[row.get(piece) for piece in pieces] for row in rows]
    return pieces, np.array(values, dtype=np.float64).reshape(len(rows), len(pieces))


def bootstrap(values: Floats, clusters: Sequence[Hashable], n_draws: int = N_DRAWS, seed: int = 0) -> Estimate | None:
    """Mean of `values` with a bootstrap over clusters, crossed with one over seeds.

    For the difference of two settings, give their differences piece by piece: they are then paired.

    Parameters
    ----------
    values : ndarray of float64, shape (n_seeds, n_pieces)
        NaN where there is none.
    clusters : sequence of hashable, length n_pieces
        The cluster of each piece.
    n_draws : int
        Bootstrap samples.
    seed : int
        Of the draws, which depend on it and on the numbers of seeds and clusters alone.

    Returns
    -------
    Estimate or None
        None where no value is finite.
    """
    finite: Floats = np.isfinite(values).astype(np.float64)
    seeds, pieces = np.flatnonzero(finite.sum(axis=1)), np.flatnonzero(finite.sum(axis=0))
    if not pieces.size:
        return None
    kept = np.ix_(seeds, pieces)
    of_piece = [clusters[int(piece)] for piece in pieces]
    names = list(dict.fromkeys(of_piece))
    member = np.array([[float(name == cluster) for name in names] for cluster in of_piece])
    sums, counts = np.nan_to_num(values[kept]) @ member, finite[kept] @ member
    low = high = None
    if len(names) > 1:
        low, high = (float(bound) for bound in np.quantile(_draws(sums, counts, n_draws, seed), (0.025, 0.975)))
    return Estimate(float(sums.sum() / counts.sum()), low, high, int(seeds.size), int(pieces.size), len(names))


def _draws(sums: Floats, counts: Floats, n_draws: int, seed: int) -> Floats:
    """Means of bootstrap samples, from sums and counts of shape (n_seeds, n_clusters)."""
    by_seed, by_cluster = _drawn(*sums.shape, n_draws, seed)
    totals, means = (np.einsum("ds,sc,dc->d", by_seed, part, by_cluster, optimize=True) for part in (counts, sums))
    found: Floats = means[totals > 0] / totals[totals > 0]
    return found


@lru_cache(maxsize=8)
def _drawn(n_seeds: int, n_clusters: int, n_draws: int, seed: int) -> tuple[Floats, Floats]:
    """How often each sample has each seed and each cluster: (n_draws, n_seeds) and (n_draws, n_clusters)."""
    random = numpy_stream("cluster bootstrap", seed, n_seeds, n_clusters)
    by_cluster = random.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), n_draws)
    by_seed = random.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), n_draws)
    return by_seed.astype(np.float64), by_cluster.astype(np.float64)
