"""p-values by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tasks.eeg.maxima import (
    clopper_pearson,
    exceedances,
    least_subjects,
    p_value,
    sign_flip_p,
    sign_flips,
    studentised,
)


def test_p_counts_the_observed_value() -> None:
    assert float(p_value(0, 99)) == 0.01
    assert float(p_value(4, 99)) == 0.05
    assert float(p_value(99, 99)) == 1.0


def test_exceedances_compare_with_maxima_over_all_tests() -> None:
    observed = np.array([3.0, 1.0])
    null = np.array([[0.0, 2.0], [3.0, 0.0], [0.5, 0.5], [4.0, 0.0]])
    assert exceedances(observed, null).tolist() == [2, 3]


def test_studentised_by_hand() -> None:
    z, permuted = studentised(np.array([4.0, 7.0]), np.array([[0.0, 7.0], [2.0, 7.0]]))
    np.testing.assert_allclose(z, [1.0, 0.0])
    np.testing.assert_allclose(permuted, [[-1.0, 0.0], [0.0, 0.0]])


def test_clopper_pearson_by_hand() -> None:
    low, high = clopper_pearson(0, 100)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / 100))
    low, high = clopper_pearson(100, 100)
    assert low == pytest.approx(0.025 ** (1 / 100))
    assert high == 1.0
    low, high = clopper_pearson(5, 100)
    assert low == pytest.approx(0.01643, abs=1e-5)
    assert high == pytest.approx(0.11283, abs=1e-5)


def test_all_flips_are_enumerated_once() -> None:
    flips = sign_flips(3)
    assert flips.shape == (8, 3)
    assert flips[0].tolist() == [1, 1, 1]
    assert len({tuple(row) for row in flips}) == 8
    drawn = sign_flips(13)
    assert drawn.shape == (10_001, 13)
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert np.array_equal(drawn, sign_flips(13))


def test_sign_flip_of_one_test_by_hand() -> None:
    values = np.array([[1.0], [2.0], [3.0], [-0.5], [4.0]])
    expected = np.mean([np.dot(signs, values[:, 0]) >= values.sum() - 1e-9 for signs in product((1, -1), repeat=5)])
    assert sign_flip_p(values, np.ones(1))[0] == expected == 2 / 32
    assert sign_flip_p(np.abs(values), np.ones(1))[0] == 1 / 32


def test_sign_flip_corrects_over_tests_in_units_of_their_spread() -> None:
    """Against a loop over flips."""
    random = np.random.default_rng(0)
    spread = np.array([0.1, 1.0, 5.0])
    values = spread * random.normal(0.4, 1.0, size=(6, 3))
    maxima = [(np.array(signs) @ (values / spread)).max() for signs in product((1, -1), repeat=6)]
    expected = [(np.array(maxima) >= one - 1e-9).mean() for one in (values / spread).sum(axis=0)]
    np.testing.assert_allclose(sign_flip_p(values, spread), expected)
    np.testing.assert_allclose(sign_flip_p(values * [1, 7, 9], spread * [1, 7, 9]), expected)


def test_six_subjects_find_an_effect_among_hundreds_of_tests() -> None:
    """A ratio like Student's t can't exceed sqrt(6), which chance reaches somewhere among so many tests."""
    found, false = 0, 0
    for number in range(40):
        random = np.random.default_rng(number)
        values = random.normal(size=(6, 600))
        false += sign_flip_p(values, np.ones(600)).min() <= 0.05
        values[:, 7] += 3.0
        found += sign_flip_p(values, np.ones(600))[7] <= 0.05
    assert found >= 36
    assert false <= 5


def test_equal_values_of_all_subjects_reach_the_smallest_p() -> None:
    assert sign_flip_p(np.full((5, 1), 0.002), np.full(1, 0.001))[0] == 1 / 32
    assert sign_flip_p(np.zeros((5, 2)), np.ones(2)).tolist() == [1.0, 1.0]
    assert sign_flip_p(np.ones((5, 2)), np.zeros(2)).tolist() == [1.0, 1.0], "a test without spread finds nothing"


@pytest.mark.parametrize(("alpha", "n"), [(0.5, 5), (0.05, 5), (1 / 32, 5), (0.03, 6), (0.01, 7), (0.001, 10)])
def test_least_subjects_can_reach_alpha(alpha: float, n: int) -> None:
    assert least_subjects(alpha) == n
    assert sign_flip_p(np.ones((n, 1)), np.ones(1))[0] <= alpha
