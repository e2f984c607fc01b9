"""The nested choice of a noise level: by hand, and corrected for what choosing earns by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.eeg.choice import Scores, chosen, judged
from tasks.eeg.maxima import sign_flips

Array = np.ndarray[Any, Any]


def arm(values: Array, name: str = "tanh") -> Scores:
    pieces = tuple(f"piece{number}" for number in range(values.shape[1]))
    return Scores(name, 1, pieces, tuple(0.1 * number for number in range(values.shape[2])), values)


def test_a_level_is_chosen_without_the_piece_it_is_judged_on() -> None:
    """Level 1 has its whole lead on piece 0: there the others choose level 0."""
    values = np.array([[[1.0, 9.0], [1.0, 0.0], [1.0, 0.0]]])
    scores, levels = chosen(values, np.ones((1, 1)))
    assert levels.tolist() == [[0, 1, 1]]
    assert scores[0] == pytest.approx((1.0 + 0.0 + 0.0) / 3)


def test_scores_equal_a_loop_with_pieces_missing() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(5, 4, 3))
    values[1, 2] = values[4, 0] = np.nan
    signs = sign_flips(5)
    scores, levels = chosen(values, signs)
    for flip in (0, 7, 31):
        signed = values * signs[flip][:, None, None]
        means = np.array([[np.nanmean(signed[:, p, level]) for level in range(3)] for p in range(4)])
        total = 0.0
        for piece in range(4):
            best = int(np.argmax(np.delete(means, piece, axis=0).mean(axis=0)))
            assert levels[flip, piece] == best
            total += means[piece, best]
        assert scores[flip] == pytest.approx(total / 4)


def test_a_level_that_is_best_wins_everywhere() -> None:
    random = np.random.default_rng(1)
    values = 0.001 * random.normal(size=(8, 6, 4))
    values[:, :, 2] += 0.004
    [row] = judged([arm(values)], 0.05)
    assert row["wins"] == {"0.0": 0, "0.1": 0, "0.2": 6, repr(0.1 * 3): 0}
    assert row["excess_delta_r"] == pytest.approx(values[:, :, 2].mean())
    assert row["by_subject"] == pytest.approx(values[:, :, 2].mean(axis=1))
    assert row["p"] == 1 / 2**8
    low, high = row["ci"]
    assert low < row["excess_delta_r"] < high


def test_the_test_keeps_its_level_although_pieces_share_their_fits() -> None:
    """Gains as cross-validation makes them: piece p earns w_p times the sum of the others' w.

    The plain score is above 0 far too often; the test is not, since every flip chooses anew.
    """
    rejected, above = 0, []
    for number in range(200):
        random = np.random.default_rng(number)
        w = random.normal(size=(6, 8, 6))
        gains = w * (w.sum(axis=1, keepdims=True) - w)
        [row] = judged([arm(gains)], 0.05)
        rejected += row["p"] <= 0.05
        above.append(row["excess_delta_r"])
    assert np.mean(above) > 2 * np.std(above) / len(above) ** 0.5, "what choosing earns where there is nothing"
    assert rejected <= 18, "of 200 at .05; more than 18 has a probability below .01"


def test_arms_are_corrected_together_and_few_subjects_are_not_tested() -> None:
    random = np.random.default_rng(2)
    values = random.normal(0.5, 1.0, size=(7, 5, 3))
    [alone] = judged([arm(values)], 0.05)
    together = judged([arm(values), arm(random.normal(size=(7, 5, 3)), "none")], 0.05)
    assert together[0]["p"] >= alone["p"]
    [few] = judged([arm(values[:4])], 0.05)
    assert few["p"] is None
    assert few["n_subjects"] == 4
    assert judged([], 0.05) == []
