"""Which tunes are variants of one another, and a split into training, development and test that keeps them together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.audio.config import SplitConfig
from tasks.seeds import derive_seed

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def related(melodies: Sequence[Sequence[int]], ngram: int, overlap: float) -> NDArray[np.int64]:
    """Find pairs of melodies that share much of their material in any transposition.

    Two melodies are related when the sets of their interval n-grams share at least `overlap` of the smaller set, or
    when all their intervals are equal (which also relates melodies too short for an n-gram to their copies).

    Parameters
    ----------
    melodies : sequence of sequences of int
        MIDI pitches of each melody.
    ngram : int
        Length of an n-gram in intervals.
    overlap : float
        Share of the smaller set, in (0, 1].

    Returns
    -------
    numpy.ndarray, shape (n_pairs, 2)
        Indices of the related melodies, each pair in both orders.
    """
    intervals = [tuple(b - a for a, b in pairwise(tune)) for tune in melodies]
    grams = [{line[i : i + ngram] for i in range(len(line) - ngram + 1)} for line in intervals]
    shared = _shared(grams).tocoo()
    sizes = np.array([len(found) for found in grams])
    smaller = np.minimum(sizes[shared.row], sizes[shared.col])
    near = shared.data >= overlap * smaller - 1e-9
    pairs = np.column_stack([shared.row[near], shared.col[near]]).astype(np.int64)
    equal = _shared([{line} for line in intervals]).tocoo()
    pairs = np.concatenate([pairs, np.column_stack([equal.row, equal.col]).astype(np.int64)])
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)


def _shared(sets: Sequence[set[tuple[int, ...]]]) -> sparse.csr_matrix:
    """How many elements each pair of sets has in common (a pair with none is left out of the sparse matrix)."""
    columns: dict[tuple[int, ...], int] = {}
    cells = [(row, columns.setdefault(item, len(columns))) for row, found in enumerate(sets) for item in sorted(found)]
    rows, cols = np.array(cells, dtype=np.int64).reshape(-1, 2).T
    shape = (len(sets), len(columns))
    incidence = sparse.csr_matrix((np.ones(len(cells), dtype=np.int64), (rows, cols)), shape=shape)
    return incidence @ incidence.T


def melodic_clusters(melodies: Sequence[Sequence[int]], ngram: int, overlap: float) -> list[int]:
    """Number the families of related melodies: connected components of `related`, in order of first appearance.

    Parameters
    ----------
    melodies : sequence of sequences of int
        MIDI pitches of each melody.
    ngram, overlap
        As in `related`.

    Returns
    -------
    list of int
        The cluster of each melody, from 0. A melody with no relative has a cluster of its own.
    """
    pairs = related(melodies, ngram, overlap)
    shape = (len(melodies), len(melodies))
    graph = sparse.csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=shape)
    _, labels = sparse.csgraph.connected_components(graph, directed=False)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(label), len(numbers)) for label in labels]


def split_clusters(names: Sequence[str], clusters: Sequence[int], shares: SplitConfig, seed: int) -> list[Split]:
    """Give each cluster to one split, so that the shares of names come as close to `shares` as whole clusters allow.

    Larger clusters go first, equal ones in an order drawn from `seed` and their names, each to the split that lacks
    most. With three clusters or more no split is left empty.

    Parameters
    ----------
    names : sequence of str
        Unique names of the tunes or recordings.
    clusters : sequence of int
        The cluster of each name.
    shares : SplitConfig
        The shares of ``train`` and ``dev``; ``test`` gets the rest.
    seed : int
        Seed of the study.

    Returns
    -------
    list of str
        The split of each name. It doesn't depend on the order in which the names were given.
    """
    members: dict[int, list[str]] = {}
    for name, cluster in zip(names, clusters, strict=True):
        members.setdefault(cluster, []).append(name)
    order = sorted(members, key=lambda c: (-len(members[c]), derive_seed("split", seed, min(members[c]))))
    wanted = dict(zip(SPLITS, (shares.train, shares.dev, 1 - shares.train - shares.dev), strict=True))
    given: dict[Split, list[int]] = {split: [] for split in SPLITS}

    def lack(split: Split) -> float:
        return wanted[split] * len(names) - sum(len(members[c]) for c in given[split])

    for cluster in order:
        given[max(SPLITS, key=lack)].append(cluster)
    if len(order) >= len(SPLITS):
        for empty in [split for split in SPLITS if not given[split]]:
            given[empty].append(given[max(SPLITS, key=lambda split: len(given[split]))].pop())
    chosen = {cluster: split for split in SPLITS for cluster in given[split]}
    return [chosen[cluster] for cluster in clusters]
