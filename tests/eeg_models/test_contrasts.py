"""Contrasts of noise levels and arms: which are asked, and their p-values against loops over flips."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from tasks.eeg.contrasts import asked, intermediate, judged, null_spread, places
from tasks.eeg.maxima import least_subjects, sign_flip_p
from tasks.eeg.table import ArmEntry, ConditionEntry

Array = np.ndarray[Any, Any]
SIX = (0.0, 0.3, 0.4, 0.5, 0.6, 0.9)
CHANNELS = ("Fz", "Cz")


def conditions(variants: tuple[str, ...], levels: tuple[float, ...]) -> list[ConditionEntry]:
    return [ConditionEntry(variant=name, noise_level=level, subjects=()) for name in variants for level in levels]


N_PIECES = 7


def world(n_subjects: int, n_conditions: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Excess over subjects and over pieces without any effect, independent, and a null of the same spread."""
    random = np.random.default_rng(seed)
    null = 0.001 * random.normal(size=(n_subjects, 40, n_conditions, 2))
    excess = 0.001 * random.normal(size=(n_subjects, n_conditions, 2))
    by_piece = 0.001 * random.normal(size=(N_PIECES, n_conditions, 2))
    return excess, by_piece, null - null.mean(axis=1, keepdims=True)


def test_all_pairs_of_levels_and_of_arms_are_asked() -> None:
    listed = conditions(("none", "decoder", "encoder"), (0.0, 0.4))
    found = asked(places(listed, ()), len(listed))
    named = [(c.family, c.first.arm, c.first.levels, c.second.arm, c.second.levels) for c in found]
    assert named == [
        ("levels", "none", (0.4,), "none", (0.0,)),
        ("levels", "decoder", (0.4,), "decoder", (0.0,)),
        ("levels", "encoder", (0.4,), "encoder", (0.0,)),
        *(("arms", "decoder", (level,), "none", (level,)) for level in (0.0, 0.4)),
        *(("arms", "encoder", (level,), "none", (level,)) for level in (0.0, 0.4)),
        *(("arms", "encoder", (level,), "decoder", (level,)) for level in (0.0, 0.4)),
    ]
    assert found[0].weights[0].tolist() == [-1, 1, 0, 0, 0, 0]
    assert found[-1].weights[0].tolist() == [0, 0, 0, -1, 0, 1]


def test_intermediate_is_asked_where_all_its_levels_are() -> None:
    listed = conditions(("tanh",), SIX)
    ends = [c for c in asked(places(listed, ()), 6) if c.family == "intermediate"]
    assert [c.weights[0].tolist() for c in ends] == [
        [-1.0, 0.25, 0.25, 0.25, 0.25, 0.0],
        [0.0, 0.25, 0.25, 0.25, 0.25, -1.0],
    ]
    for lost in SIX:
        fewer = conditions(("tanh",), tuple(level for level in SIX if level != lost))
        assert not [c for c in asked(places(fewer, ()), 5) if c.family == "intermediate"]


def test_seeds_of_two_arms_are_paired() -> None:
    """The second arm lacks seed 2, so the contrast is over the seeds 0 and 1."""
    names = ("a seed=0", "a seed=1", "a seed=2", "b seed=0", "b seed=1")
    arms = [ArmEntry(variant=name, arm=name[0], seed=int(name[-1])) for name in names]
    [contrast] = asked(places(conditions(names, (0.4,)), arms), 5)
    assert {seed: row.tolist() for seed, row in contrast.weights.items()} == {
        0: [-1, 0, 0, 1, 0],
        1: [0, -1, 0, 0, 1],
    }


def test_spread_is_that_of_the_weighted_null() -> None:
    *_, null = world(4, 3)
    weights = np.array([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
    for row, contrast in enumerate(weights):
        series = np.einsum("i,sbic->sbc", contrast, null)
        expected = np.sqrt(series.var(axis=1).mean(axis=0))
        np.testing.assert_allclose(null_spread(null, weights)[row], expected)


def test_p_equals_a_loop_over_flips_two_sided_and_one_sided() -> None:
    excess, by_piece, null = world(6, 6, seed=3)
    contrasts = asked(places(conditions(("tanh",), SIX), ()), 6)
    rows = judged(contrasts, excess, by_piece, null, CHANNELS, 0.05)
    for family in ("levels", "intermediate"):
        own = [number for number, contrast in enumerate(contrasts) if contrast.family == family]
        weights = np.array([contrasts[number].weights[0] for number in own])
        spread = np.sqrt(np.einsum("ki,sbic->skbc", weights, null).var(axis=2).mean(axis=0))
        size = np.abs if family == "levels" else np.asarray
        expected = []
        for over in (excess, by_piece):
            values = np.einsum("ki,sic->skc", weights, over)
            signs = product((1, -1), repeat=len(over))
            flips = [np.einsum("s,skc->kc", np.array(own_signs), values) / spread for own_signs in signs]
            maxima = np.array([size(flip).max() for flip in flips])
            expected.append(np.array([[(maxima >= p - 1e-9).mean() for p in row] for row in size(flips[0])]))
        for place, number in enumerate(own):
            both = np.maximum(expected[0][place], expected[1][place])
            assert rows[number]["p_by_channel"] == pytest.approx(both.tolist())
            assert rows[number]["p"] == pytest.approx(both.min())
            assert rows[number]["p_subject"] == pytest.approx(expected[0][place].min())
            assert rows[number]["p_piece"] == pytest.approx(expected[1][place].min())
            assert rows[number]["n_contrasts"] == len(own) == (15 if family == "levels" else 2)


def test_the_mean_is_the_difference_of_the_plotted_means() -> None:
    excess, by_piece, null = world(6, 2)
    [contrast] = asked(places(conditions(("tanh",), (0.0, 0.4)), ()), 2)
    [row] = judged([contrast], excess, by_piece, null, CHANNELS, 0.05)
    bars = np.median(excess, axis=2).mean(axis=0)
    assert row["mean"] == pytest.approx(bars[1] - bars[0])
    low, high = row["ci"]
    assert low < row["mean"] < high
    assert (row["n_subjects"], row["n_pieces"], row["n_seeds"], row["seed_sd"]) == (6, 7, 1, None)


def test_a_level_that_is_lower_is_found_at_its_channel() -> None:
    excess, by_piece, null = world(8, 2)
    excess[:, 1, 1] -= 0.006
    listed = asked(places(conditions(("tanh",), (0.0, 0.4)), ()), 2)

    def judge(effect: float) -> dict[str, Any]:
        pieces = by_piece.copy()
        pieces[:, 1, 1] += effect
        return judged(listed, excess, pieces, null, CHANNELS, 0.05)[0]

    row = judge(-0.006)
    assert (row["higher"], row["lower"], row["claimed"]) == ([], ["Cz"], True)
    assert (row["p_subject"], row["p_piece"]) == (2 / 2**8, 2 / 2**7), "the signs and their opposite"
    assert row["p"] == 2 / 2**7
    row = judge(0.0)
    assert row["p_subject"] <= 0.05 < row["p_piece"] <= row["p"]
    assert (row["lower"], row["claimed"]) == ([], False), "in these pieces alone"
    row = judge(0.006)
    assert row["p"] <= 0.05
    assert (row["higher"], row["lower"], row["claimed"]) == ([], [], False), "where pieces say the opposite"


def seeded(n_seeds: int, effects: tuple[float, ...]) -> dict[str, Any]:
    """Two arms at one level; arm b is better by its own amount in each seed."""
    names = tuple(f"{arm} seed={seed}" for arm in "ab" for seed in range(n_seeds))
    arms = [ArmEntry(variant=name, arm=name[0], seed=int(name[-1])) for name in names]
    excess, by_piece, null = world(8, 2 * n_seeds)
    for seed, effect in enumerate(effects):
        excess[:, n_seeds + seed] += effect
        by_piece[:, n_seeds + seed] += effect
    listed = asked(places(conditions(names, (0.4,)), arms), 2 * n_seeds)
    [row] = judged(listed, excess, by_piece, null, CHANNELS, 0.05)
    return row


def test_arms_are_claimed_from_three_seeds_that_agree() -> None:
    good = seeded(3, (0.004, 0.005, 0.006))
    assert good["claimed"]
    assert good["higher"] == list(CHANNELS)
    assert good["seed_sd"] == pytest.approx(np.std(list(good["by_seed"].values()), ddof=1))
    few = seeded(2, (0.006, 0.006))
    assert few["p"] <= 0.05
    assert not few["claimed"]
    odd = seeded(3, (0.012, 0.012, -0.003))
    assert odd["p"] <= 0.05
    assert odd["by_seed"]["2"] < 0
    assert (odd["higher"], odd["claimed"]) == ([], False)


def test_intermediate_is_best_only_above_both_ends_at_one_channel() -> None:
    listed = conditions(("tanh",), SIX)
    contrasts = asked(places(listed, ()), 6)

    def judge(
        at_clean: float, at_noisy: float, channel: int | None = None, claimed: tuple[str, ...] = CHANNELS
    ) -> dict[str, Any]:
        *both, null = world(8, 6)
        for excess in both:
            excess[:, 1:5] += 0.006
            excess[:, 0] += at_clean
            excess[:, 5] += at_noisy
            if channel is not None:
                excess[:, 0, channel], excess[:, 5, 1 - channel] = excess[:, 1:5, channel].mean(axis=1), 0.02
        [found] = intermediate(judged(contrasts, *both, null, CHANNELS, 0.05), CHANNELS, {"tanh": claimed})
        return found

    both = judge(0.0, 0.0)
    assert both["best"]
    assert both["channels"] == list(CHANNELS)
    assert both["p"] <= 0.05
    assert both["above_clean"] == pytest.approx(0.006, abs=0.001)
    unclaimed = judge(0.0, 0.0, claimed=())
    assert (unclaimed["channels"], unclaimed["best"]) == ([], False), "nothing is claimed at these levels"
    assert judge(0.0, 0.0, claimed=("Cz",))["channels"] == ["Cz"]
    assert not judge(0.006, 0.0)["best"], "not above clean"
    assert not judge(0.0, 0.006)["best"], "not above nearly all noise"
    assert not judge(0.0, 0.0, channel=0)["best"], "above one end at one channel, above the other at another"


def test_too_few_subjects_get_no_p() -> None:
    """Two-sided, five subjects reach 2/32 at best."""
    assert (least_subjects(0.05), least_subjects(0.05, two_sided=True)) == (5, 6)
    assert sign_flip_p(np.full((5, 1), -1.0), np.ones(1), two_sided=True)[0] == 2 / 32
    excess, by_piece, null = world(5, 6)
    listed = asked(places(conditions(("tanh",), SIX), ()), 6)
    rows = judged(listed, excess + 1.0, by_piece, null, CHANNELS, 0.05)
    assert all(row["p_subject"] is row["p"] is None and not row["claimed"] for row in rows if row["family"] == "levels")
    assert all(row["p"] is not None for row in rows if row["family"] == "intermediate")
    excess, by_piece, null = world(8, 6)
    for n_pieces, untested in ((6, set()), (5, {"levels"}), (4, {"levels", "intermediate"})):
        rows = judged(listed, excess, by_piece[:n_pieces], null, CHANNELS, 0.05)
        assert all(row["p_subject"] is not None for row in rows)
        assert {row["family"] for row in rows if row["p_piece"] is row["p"] is None} == untested


def test_flips_in_parts_give_the_same_p(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(0.5, 1.0, size=(7, 5))
    whole = sign_flip_p(values, np.ones(5)), sign_flip_p(values, np.ones(5), two_sided=True)
    monkeypatch.setattr("tasks.eeg.maxima.MOST_AT_ONCE", 50)
    np.testing.assert_array_equal(sign_flip_p(values, np.ones(5)), whole[0])
    np.testing.assert_array_equal(sign_flip_p(values, np.ones(5), two_sided=True), whole[1])


def test_families_keep_their_level_without_any_effect() -> None:
    """Subjects differ much in what IC is worth to them, alike at all levels: pairing takes that out."""
    contrasts = asked(places(conditions(("tanh",), SIX), ()), 6)
    rejected = {(family, p): 0 for family in ("levels", "intermediate") for p in ("p_subject", "p_piece")}
    for number in range(120):
        excess, by_piece, null = world(7, 6, seed=number)
        excess += 0.01 * np.random.default_rng(1000 + number).normal(size=(7, 1, 1))
        rows = judged(contrasts, excess, by_piece, null, CHANNELS, 0.05)
        for family, p in rejected:
            rejected[family, p] += any(row[p] <= 0.05 for row in rows if row["family"] == family)
    assert max(rejected.values()) <= 12, "of 120 at .05; more than 12 has a probability below .01"
    assert min(rejected.values()) >= 1
