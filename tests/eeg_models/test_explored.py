"""What the group shows without claiming it: finds under a false discovery rate, and kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up_group import Study, made_up

from tasks.eeg import fdr
from tasks.eeg.kernels import band


def test_finds_equal_the_step_up_rule() -> None:
    """Benjamini and Hochberg: the largest k with p_(k) <= k alpha / m, and all tests up to it."""
    random = np.random.default_rng(0)
    null = random.normal(size=(6, 999, 4, 20))
    gain = random.normal(size=(6, 4, 20))
    gain[:, 1, :6] += 2.5
    found = fdr.explored(gain, null, 0.1)
    p = np.array(found["p"])
    expected = (1 + (null.mean(axis=0) >= gain.mean(axis=0)).sum(axis=0)) / 1000
    assert np.array_equal(p, expected)
    ranked = np.sort(p.ravel())
    reached = [k for k in range(1, 81) if ranked[k - 1] <= k * 0.1 / 80]
    assert found["n_found"] == max(reached) >= 6
    assert ((np.array(found["q"]) <= 0.1) == (p <= ranked[max(reached) - 1])).all()
    assert (found["n_tests"], found["needed"]) == (80, 1)
    assert fdr.explored(gain, null[:, :99], 0.05)["needed"] == 16


def test_a_find_is_no_claim(tmp_path: Path) -> None:
    """Four subjects: nothing is claimed, and the exploration is called one."""
    _, group = Study(*made_up(4, 0.01, 199)).run(tmp_path)
    assert group["exploratory"]["exploratory"] is True
    assert group["exploratory"]["n_found"] >= 1
    assert group["conditions"][1]["q_exploratory_by_channel"][1] == pytest.approx(0.03)
    assert not any(condition["claimed"] for condition in group["conditions"])
    assert group["verdict"].startswith("Nothing is claimed")


def test_the_bands_cover_the_mean() -> None:
    """95 % of intervals over 30 subjects hold the mean that they are drawn from, lag by lag."""
    random = np.random.default_rng(1)
    covered = []
    for _ in range(20):
        ends = band(random.normal(size=(30, 20)), 1000)
        assert ends is not None
        covered.append((ends[0] <= 0) & (ends[1] >= 0))
    assert 0.88 <= np.mean(covered) <= 0.98
    assert band(np.zeros((1, 20))) is None


def test_kernels_are_of_the_best_channels_first(tmp_path: Path) -> None:
    gain, null = made_up(6, 0.006)
    study = Study(gain, null)
    study.kernel = np.array([[0.0, 1.0, 0.0], [0.5, 2.0, 0.0]])
    study.lags_s = np.array([0.0, 0.1])
    _, group = study.run(tmp_path)
    found = group["kernels"]
    assert found["channels"][0] == "Cz"
    assert found["lags_s"] == [0.0, 0.1]
    [curve, *_] = found["conditions"][1]["curves"]
    assert curve == {"mean": pytest.approx([1.0, 2.0]), "low": pytest.approx([1.0, 2.0]), "high": pytest.approx([1, 2])}
