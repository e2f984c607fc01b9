"""False positives of the group's tests, quick: the cells that matter most; `make calibrate` has all of them.

In null data EEG follows acoustics and noise, IC follows acoustics and chance. The two known-bad cases are the suite's
own controls: without them a test that never rejects would pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from null_data import GENERATORS, data_set
from rates import Cell, gains, holm, judge, offered, p_values, rate_interval, role
from scipy.stats import binom

from tasks.eeg.nulls import CALIBRATED

Array = np.ndarray[Any, Any]
QUICK = ("flux", "onset values", "onsets unmodelled", "compressive, modelled", "shared activity", "unequal lengths")
N_DATA_SETS, N_CONTROLS = 120, 30


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    found = {name: p_values(name, offered(name), range(N_DATA_SETS)) for name in QUICK}
    found["compressive, linear model"] = p_values("compressive, linear model", ("residual_shift",), range(N_CONTROLS))
    popular = p_values("onsets unmodelled", ("circular_shift",), range(N_CONTROLS))
    found["onsets unmodelled"] |= {key: p for key, p in popular.items() if key[0] == "circular_shift"}
    return judge(found)


def test_every_test_keeps_its_level(cells: list[Cell]) -> None:
    kept = [cell for cell in cells if cell.role == "kept"]
    assert {(cell.generator, cell.null) for cell in kept} >= {
        *((name, "residual_shift") for name in QUICK if name != "onsets unmodelled"),
        ("onset values", "onset_values"),
        ("onsets unmodelled", "onset_values"),
    }
    assert [cell for cell in kept if not cell.ok] == []
    assert sum(cell.rejections for cell in kept if cell.test != "both") > 0, "a test that never rejects proves nothing"


def test_known_bad_cases_reject_more_than_half(cells: list[Cell]) -> None:
    broken = [cell for cell in cells if cell.role == "broken"]
    assert {(cell.generator, cell.null, cell.test) for cell in broken} == {
        (*case, test)
        for case in (("compressive, linear model", "residual_shift"), ("onsets unmodelled", "circular_shift"))
        for test in ("stimuli", "subjects")
    }
    assert [cell for cell in broken if cell.rate <= 0.5] == []


def test_raw_delta_r_hardly_ever_rejects(cells: list[Cell]) -> None:
    """It is negative on average where IC adds nothing: a test of it is blind, which is why excess delta_r is tested."""
    raw = [cell for cell in cells if cell.null not in CALIBRATED and cell.generator in ("flux", "unequal lengths")]
    assert raw
    assert all(cell.rate < 0.05 for cell in raw)


def made_up(p: Array, generator: str = "flux", test: str = "stimuli") -> Cell:
    cells = judge({generator: {("residual_shift", test): p}})
    assert len(cells) == 1
    return cells[0]


def test_the_judge_sees_what_is_wrong() -> None:
    even = np.tile(np.arange(1, 41) / 40, 25)
    good = made_up(even)
    assert (good.ok, good.rejections, good.count) == (True, 50, 1000)
    assert not made_up(np.where(np.arange(1000) < 80, 0.025, even)).ok, "too many false positives"
    assert made_up(np.where(np.arange(1000) < 80, 0.025, even), test="subjects", generator="shared activity").ok
    shifted = made_up(np.maximum(np.floor(even * 40 - 4) / 40, 3 / 40))
    assert (shifted.rejections, shifted.ok) == (0, False), "no false positive at .05, and yet p comes too often small"
    careful = made_up(np.ones(1000))
    assert (careful.ok, careful.conservative, careful.rate) == (True, True, 0.0)
    assert not made_up(np.ones(40), generator="compressive, linear model").ok, "a control that keeps its level"


def test_bounds_and_adjustment_by_hand() -> None:
    low, high = rate_interval(12, 100)
    assert binom.sf(11, 100, low) == pytest.approx(0.01)
    assert binom.cdf(12, 100, high) == pytest.approx(0.01)
    assert (rate_interval(0, 50)[0], rate_interval(50, 50)[1]) == (0.0, 1.0)
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])


def test_data_sets_are_published_by_their_seeds() -> None:
    for name, made in GENERATORS.items():
        one, again, other = data_set(name, 3), data_set(name, 3), data_set(name, 4)
        piece = "c"
        np.testing.assert_array_equal(one.eeg[-1][2][-1], again.eeg[-1][2][-1])
        assert not np.array_equal(one.regressor.values[piece], other.regressor.values[piece])
        assert (len(one.eeg), len(one.eeg[0][2])) == (made.n_subjects, made.n_trials)
        assert tuple(len(values) for values in one.reduced.values()) == made.lengths
        assert role(name, "phase_scramble", "stimuli") == "described"


def test_all_subjects_get_the_same_permutations() -> None:
    """A listener heard twice under two names has the same null distribution, bit for bit."""
    data = data_set("flux", 0)
    data.eeg[1] = data.eeg[0]
    gain, null = gains(data, ("residual_shift",), 0)["residual_shift"]
    np.testing.assert_array_equal(null[0], null[1])
    np.testing.assert_array_equal(gain[0], gain[1])
    assert np.abs(null[0] - null[2]).max() > 1e-6
