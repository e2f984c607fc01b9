"""Clusters of channels: neighbours only, corrected over conditions, and a reason where there are none."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import t as student

from tasks.eeg.clusters import NoNeighbours, clusters, neighbours
from tasks.eeg.montage import biosemi_64


def line(n: int) -> sparse.csr_array:
    """Channels in a row, each a neighbour of the next."""
    return sparse.csr_array(np.eye(n, k=1) + np.eye(n, k=-1))


def test_neighbours_on_a_real_cap() -> None:
    cap = biosemi_64()
    assert cap.positions is not None
    found = neighbours(cap.names, cap.positions.tolist()).toarray()
    place = cap.names.index
    assert found[place("Cz"), place("C1")]
    assert found[place("Cz"), place("FCz")]
    assert not found[place("Cz"), place("Oz")]
    assert (found == found.T).all()


@pytest.mark.parametrize(
    ("positions", "why"),
    [
        (None, "have no positions"),
        ([[0.0, 0.0, 0.1]] * 3, "3 channels are too few"),
        ([[0.0, 0.0, 0.01 * place] for place in range(6)], "lie on a line"),
        ([[0.0, 0.01 * min(place, 4), 0.1 * (place == 1)] for place in range(6)], "coincide"),
    ],
)
def test_no_neighbours_says_why(positions: list[list[float]] | None, why: str) -> None:
    names = [f"E{number}" for number in range(len(positions or range(6)))]
    with pytest.raises(NoNeighbours, match=why):
        neighbours(names, positions)


def mass(t: np.ndarray, threshold: float) -> float:
    """The largest mass of neighbours in a row above the threshold, by hand."""
    best = run = 0.0
    for row in t:
        run = 0.0
        for value in row:
            run = run + value if value > threshold else 0.0
            best = max(best, run)
    return best


def test_p_equals_a_loop_over_flips() -> None:
    random = np.random.default_rng(0)
    excess = random.normal(size=(6, 2, 8))
    excess[:, 1, 2:5] += 1.3
    found = clusters(excess, line(8))

    def t_of(values: np.ndarray) -> np.ndarray:
        return values.mean(axis=0) / (values.std(axis=0, ddof=1) / 6**0.5)

    threshold = float(student.isf(0.05, 5))
    maxima = [mass(t_of(excess * np.array(s)[:, None, None]), threshold) for s in product((1, -1), repeat=6)]
    assert len(found) == 2
    for row in found:
        places = row["channels"]
        assert places == list(range(places[0], places[-1] + 1)), "neighbours in a row"
        assert row["mass"] == pytest.approx(t_of(excess)[row["condition"], places].sum())
        assert row["p"] == pytest.approx(np.mean(np.array(maxima) >= row["mass"] - 1e-9))
    best = found[0]
    assert best["condition"] == 1
    assert set(best["channels"]) == {2, 3}


def test_all_flips_of_few_subjects_reach_the_smallest_p() -> None:
    excess = 1 + 0.1 * np.random.default_rng(4).normal(size=(5, 1, 6))
    [row] = clusters(excess, line(6))
    assert row["channels"] == list(range(6))
    assert row["p"] == 1 / 2**5


def test_many_subjects_get_drawn_flips() -> None:
    excess = np.random.default_rng(4).normal(size=(14, 1, 6))
    excess[:, 0, 2:5] += 1.5
    best = clusters(excess, line(6))[0]
    assert best["p"] == pytest.approx(1 / 4096)
    assert clusters(excess, line(6))[0] == best


def test_conditions_are_no_neighbours() -> None:
    """An effect at the last channel of one condition and the first of the next makes two clusters."""
    excess = 0.1 * np.random.default_rng(1).normal(size=(8, 2, 5))
    excess[:, 0, 4] += 1.0
    excess[:, 1, 0] += 1.0
    strong = [(row["condition"], row["channels"]) for row in clusters(excess, line(5)) if row["mass"] > 10]
    assert sorted(strong) == [(0, [4]), (1, [0])]


def test_values_without_spread_and_effects_below_zero_make_no_cluster() -> None:
    assert clusters(np.zeros((6, 1, 5)), line(5)) == []
    assert clusters(np.full((6, 1, 5), 0.5), line(5)) == []
    assert clusters(-1 - np.random.default_rng(2).random(size=(6, 1, 5)), line(5)) == []
