"""A planted effect is claimed where it is large, and its size is what was planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from power import Melody, melodies, notes, planted, trial, walk
from strength import Power, asked_effect, power_of, strong_enough


@pytest.fixture(scope="module")
def material() -> list[Melody]:
    return melodies([walk(number, 30.0) for number in range(4)])


def test_a_large_effect_is_claimed_and_none_is_not(material: list[Melody]) -> None:
    none, large = power_of([trial(material, effect, number, 3, 39) for effect in (0.1, 0.0) for number in (0, 1)])
    assert (none.effect, none.count, large.effect, large.count) == (0.0, 2, 0.1, 2)
    assert (none.claims, large.claims, large.power) == (0, 2, 1.0)
    assert abs(none.excess) < 0.005
    assert 0.06 < large.excess < 0.13


def test_effects_share_noise_and_ic(material: list[Melody]) -> None:
    one, other = (planted(material, effect, 5, 3) for effect in (0.01, 0.02))
    for key, values in one.regressors[0].values.items():
        np.testing.assert_array_equal(values, other.regressors[0].values[key])
        assert set(np.flatnonzero(values != np.median(values))) <= set(np.flatnonzero(one.counts[key]))
    difference = other.eeg[3][1][0] - one.eeg[3][1][0]
    assert 0 < difference.std() < 0.1
    np.testing.assert_allclose(difference, np.tile(difference[:, :1], (1, 3)), atol=1e-12)


def test_melodies_are_random_where_the_real_ones_are_missing(tmp_path: Path) -> None:
    words, tunes = notes(tmp_path)
    assert (words, len(tunes)) == ("ten random melodies", 10)
    assert all(140 < tune[-1][0] + tune[-1][1] <= 150 for tune in tunes)
    assert tunes[0] == notes(tmp_path)[1][0] != tunes[1]


def test_power_must_rise_and_suffice_at_the_effect_that_is_asked() -> None:
    def found(*claims: int, excesses: tuple[float, ...] = (0.0003, 0.0008, 0.0019)) -> list[Power]:
        effects = zip((0.0005, 0.001, 0.002), excesses, claims, strict=True)
        return [Power(effect, excess, 20, n, n, n) for effect, excess, n in effects]

    assert strong_enough(found(2, 10, 16))
    assert not strong_enough(found(2, 10, 15))
    assert not strong_enough(found(11, 10, 20))
    asked = asked_effect(found(2, 10, 16, excesses=(0.0008, 0.0021, 0.0035)))
    assert asked is not None
    assert asked.effect == 0.001
    assert not strong_enough(found(2, 15, 20, excesses=(0.0008, 0.0021, 0.0035)))
    none = found(20, 20, 20, excesses=(0.0002, 0.0008, 0.0014))
    assert asked_effect(none) is None
    assert not strong_enough(none), "no effect is of the size that is asked"
