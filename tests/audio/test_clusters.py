from collections import Counter

import numpy as np
import pytest

from tasks.audio.clusters import melodic_clusters, related, split_clusters
from tasks.audio.config import SplitConfig


def walk(seed: int, n: int = 50) -> list[int]:
    return (60 + np.cumsum(np.random.default_rng(seed).integers(-9, 10, size=n))).tolist()


def test_a_transposed_tune_is_in_the_cluster_of_the_original() -> None:
    tune = walk(1)
    assert melodic_clusters([tune, walk(2), [p + 5 for p in tune]], 6, 0.3) == [0, 1, 0]


def test_relation_is_the_shared_part_of_the_smaller_set() -> None:
    tune, other = walk(1, 47), walk(2, 100)  # 41 n-grams of 6 intervals
    quoting = [*other, *tune[:19]]  # 13 of them quoted: 0.317 of the smaller set
    assert melodic_clusters([tune, quoting], 6, 0.3) == [0, 0]
    assert melodic_clusters([tune, quoting], 6, 0.33) == [0, 1]
    assert melodic_clusters([quoting, tune], 6, 0.3) == [0, 0]


def test_an_overlap_of_exactly_the_threshold_relates() -> None:
    tune = walk(1, 16)  # 10 n-grams
    quoting = [*walk(2, 100), *tune[:9]]  # 3 of them
    assert melodic_clusters([tune, quoting], 6, 0.3) == [0, 0]


def test_relations_chain() -> None:
    a, b = walk(1), walk(2)
    assert melodic_clusters([a, b, walk(3), a + b], 6, 0.9) == [0, 0, 1, 0]


def test_tunes_too_short_for_an_ngram_have_a_cluster_which_only_their_copies_share() -> None:
    short = [60, 62, 64]
    assert melodic_clusters([short, [65], [62, 64, 66], [60, 62, 65], [], [*short, *walk(1)]], 6, 0.3) == [
        0,
        1,
        0,
        2,
        1,
        3,
    ]


def test_related_gives_both_orders_and_no_tune_with_itself() -> None:
    assert related([walk(1), walk(2), walk(1)], 6, 0.3).tolist() == [[0, 2], [2, 0]]
    assert related([walk(1)], 6, 0.3).shape == (0, 2)
    assert related([], 6, 0.3).shape == (0, 2)


def test_no_split_parts_a_cluster_and_shares_are_met() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        clusters = rng.integers(0, 200, size=371).tolist()
        names = [f"n{i}" for i in range(371)]
        splits = split_clusters(names, clusters, SplitConfig(), seed)
        assert all(
            len({s for s, c in zip(splits, clusters, strict=True) if c == cluster}) == 1 for cluster in set(clusters)
        )
        counts = Counter(splits)
        assert abs(counts["train"] - 222.6) <= 1
        assert abs(counts["dev"] - 74.2) <= 1


def test_the_split_depends_on_the_seed_and_not_on_the_order() -> None:
    names = [f"n{i}" for i in range(30)]
    first = split_clusters(names, range(30), SplitConfig(), 1)
    assert first != split_clusters(names, range(30), SplitConfig(), 2)
    backwards = split_clusters(names[::-1], range(30), SplitConfig(), 1)
    assert backwards[::-1] == first


@pytest.mark.parametrize(
    ("n", "expected"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (5, (3, 1, 1)), (10, (6, 2, 2))]
)
def test_few_clusters_leave_no_split_empty_when_there_are_three(n: int, expected: tuple[int, ...]) -> None:
    counts = Counter(split_clusters([f"n{i}" for i in range(n)], range(n), SplitConfig(), 0))
    assert tuple(counts[split] for split in ("train", "dev", "test")) == expected


def test_one_huge_cluster_goes_to_train() -> None:
    splits = split_clusters([f"n{i}" for i in range(12)], [0] * 9 + [1, 2, 3], SplitConfig(), 0)
    assert splits[:9] == ["train"] * 9
    assert set(splits[9:]) == {"dev", "test"}
