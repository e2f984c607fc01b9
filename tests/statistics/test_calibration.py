"""False positives of the group's tests, quick: the cells that matter most; `make calibrate` has all of them.

In null data EEG follows acoustics and noise, IC follows acoustics and chance. The two known-bad cases are the suite's
own controls: without them a test that never rejects would pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparisons import CASES, conditions_data, group_result
from fits import fit
from made import offered, p_values
from null_data import GENERATORS, data_set
from rates import ASKED, STEPS, Cell, holm, judge, n_asked, rate_interval, role
from scipy.stats import binom

from tasks.eeg.nulls import CALIBRATED

Array = np.ndarray[Any, Any]
QUICK = {
    "flux": 60,
    "onset values": 60,
    "flux at onsets": 50,
    "onsets unmodelled": 60,
    "compressive, modelled": 60,
    "shared activity": 60,
    "unequal lengths": 60,
    "gaps": 30,
    "step modelled": 30,
    "levels, nothing": 6,
    "levels, one signal": 12,
    "levels, shared activity": 6,
    "arms, equal": 4,
    "maps, nothing": 6,
    "groups, equal": 5,
    "groups, shared activity": 5,
    "levels, different": 3,
    "arms, different": 2,
    "maps, different": 2,
    "groups, different": 2,
}
"""Data sets of each."""

N_CONTROLS = 30


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    found = {name: p_values(name, offered(name), range(count)) for name, count in QUICK.items()}
    found["compressive, linear model"] = p_values("compressive, linear model", ("residual_shift",), range(N_CONTROLS))
    popular = p_values("onsets unmodelled", ("circular_shift",), range(N_CONTROLS))
    found["onsets unmodelled"] |= {key: p for key, p in popular.items() if key[0] == "circular_shift"}
    return judge(found)


def test_every_test_keeps_its_level(cells: list[Cell]) -> None:
    kept = [cell for cell in cells if cell.role == "kept"]
    single = [name for name in QUICK if name in GENERATORS and name != "onsets unmodelled"]
    assert {(cell.generator, cell.null) for cell in kept} >= {
        *((name, "residual_shift") for name in single),
        ("onset values", "onset_values"),
        ("flux at onsets", "onset_values"),
        ("onsets unmodelled", "onset_values"),
    }
    assert {cell.test for cell in kept} >= {
        *("levels subjects", "levels pieces", "levels claimed", "ends pieces", "arms subjects", "arms claimed"),
        *("intermediate", "choice", "clusters", "groups stimuli", "groups subjects", "groups claimed"),
    }
    assert [cell for cell in kept if not cell.ok] == []
    assert sum(cell.rejections for cell in kept if cell.test in STEPS) > 0, "a test that never rejects proves nothing"


def test_known_bad_cases_reject_more_than_half(cells: list[Cell]) -> None:
    broken = [cell for cell in cells if cell.role == "broken"]
    assert {(cell.generator, cell.null, cell.test) for cell in broken} == {
        (*case, test)
        for case in (("compressive, linear model", "residual_shift"), ("onsets unmodelled", "circular_shift"))
        for test in ("stimuli", "subjects")
    }
    assert [cell for cell in broken if cell.rate <= 0.5] == []


def test_comparisons_find_what_is_there(cells: list[Cell]) -> None:
    there = [cell for cell in cells if cell.role == "found"]
    assert {cell.test for cell in there} == {
        *("levels subjects", "levels pieces", "levels claimed", "ends subjects", "ends pieces", "ends claimed"),
        *("intermediate", "best claimed", "choice", "arms subjects", "arms pieces", "arms claimed", "clusters"),
        *("groups stimuli", "groups subjects", "groups claimed"),
    }
    assert [cell for cell in there if not cell.ok] == []


def test_errors_that_suit_these_stimuli_are_no_claim(cells: list[Cell]) -> None:
    """Levels follow one signal: sign-flips over subjects alone call their errors a difference, in a quarter of them."""
    counted = {cell.test: cell.rejections for cell in cells if cell.generator == "levels, one signal"}
    assert counted["levels subjects"] > 1 >= counted["levels claimed"]


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
    assert not made_up(np.ones(40), generator="maps, different", test="clusters").ok, "a test that sees nothing"
    assert judge({"maps, different": {("residual_shift", "arms pieces"): np.ones(40)}}) == [], (
        "what isn't asked is no cell"
    )


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
        assert not np.array_equal(one.regressors[0].values[piece], other.regressors[0].values[piece])
        assert (len(one.eeg), len(one.eeg[0][2])) == (made.n_subjects, made.n_trials)
        assert tuple(len(values) for values in one.reduced.values()) == made.lengths
        assert role(name, "phase_scramble", "stimuli") == "described"


def test_conditions_differ_and_gain_alike_where_they_must() -> None:
    """Every level's IC is another series, and adds as much as any other, to most listeners and on average."""
    data = conditions_data("levels, equal", 0)
    assert len({regressor.values["a"].tobytes() for regressor in data.regressors}) == 6
    fitted = [fit(conditions_data("levels, equal", number), ("residual_shift",), number) for number in range(6)]
    excess = np.array([(own.gain - own.null["residual_shift"].mean(axis=1)).mean(axis=2) for own in fitted])
    by_level = excess.mean(axis=(0, 1))
    assert by_level.min() > 0.02
    assert np.ptp(by_level) < 4 * excess.std() / np.sqrt(excess.shape[0] * excess.shape[1])
    result = group_result("levels, equal", fitted[0])
    assert {row["family"]: row["n_contrasts"] for row in result["contrasts"]} == {"levels": 15, "intermediate": 2}


def test_everything_that_is_asked_is_known() -> None:
    assert set(ASKED) == set(CASES)
    assert (n_asked("levels, different", 1000), n_asked("levels, equal", 1000), n_asked("flux", 1000)) == (
        200,
        1000,
        1000,
    )


def test_all_subjects_get_the_same_permutations() -> None:
    """A listener heard twice under two names has the same null distribution, bit for bit."""
    data = data_set("flux", 0)
    data.eeg[1] = data.eeg[0]
    fitted = fit(data, ("residual_shift",), 0)
    gain, null = fitted.gain, fitted.null["residual_shift"]
    np.testing.assert_array_equal(null[0], null[1])
    np.testing.assert_array_equal(gain[0], gain[1])
    assert np.abs(null[0] - null[2]).max() > 1e-6
