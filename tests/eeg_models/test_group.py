"""The group's claims: corrected, excess against each subject's own null, and honest in words."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from made_up_group import CHANNELS, Study, made_up

from tasks.eeg.group import run_tests
from tasks.eeg.maxima import sign_flip_p


def test_a_real_effect_is_claimed_where_it_is(tmp_path: Path) -> None:
    result, group = Study(*made_up(8, 0.004)).run(tmp_path)
    weak, strong = group["conditions"]
    assert strong["claimed"]
    assert strong["significant_channels"] == ["Cz"]
    assert strong["p_stimulus"] == 0.01
    assert strong["p_subject"] == 1 / 2**8
    assert strong["p"] == 0.01
    assert not weak["claimed"]
    assert weak["significant_channels"] == []
    assert result.metrics["n_claimed"] == 1
    best = max(group["conditions"], key=lambda condition: condition["excess_delta_r_mean"])
    assert result.metrics["best_noise_level"] == best["noise_level"]
    assert result.metrics["delta_r_best"] == best["delta_r_mean"]
    assert result.metrics["p_min"] == 0.01
    assert group["verdict"].startswith(
        "IC adds to the listed acoustic features in 1 of 2 conditions (8 subjects; best:"
    )


def test_numbers_without_a_test_by_hand(tmp_path: Path) -> None:
    gain, null = made_up(5, 0.0)
    _, group = Study(gain, null).run(tmp_path)
    bars = np.median(gain[:, 0], axis=1)
    first = group["conditions"][0]
    assert first["delta_r_mean"] == pytest.approx(bars.mean())
    assert first["delta_r_se"] == pytest.approx(bars.std(ddof=1) / 5**0.5)
    assert first["by_subject"]["S02"] == pytest.approx(bars[1])
    assert first["by_channel"] == pytest.approx(gain[:, 0].mean(axis=0))
    assert first["delta_r_max_mean"] == pytest.approx(gain[:, 0].max(axis=1).mean())
    assert first["r_reduced_mean"] == pytest.approx(0.05)
    assert first["r_full_mean"] == pytest.approx(0.05 + gain[:, 0].mean())
    excess = np.median(gain[:, 0] - null[:, :, 0].mean(axis=1), axis=1)
    assert first["excess_delta_r_mean"] == pytest.approx(excess.mean())
    assert group["n_permutations"] == 99


def test_both_tests_equal_loops() -> None:
    gain, null = made_up(6, 0.001, 19)
    null[..., 0] *= 3
    tests = run_tests(gain, null, 0.05)
    values = np.concatenate([gain.mean(axis=0)[None], null.mean(axis=0)])
    z = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    for condition in range(2):
        for channel in range(3):
            b = sum(z[1 + k].max() >= z[0, condition, channel] for k in range(19))
            assert tests.exceeding[condition, channel] == b
            assert tests.p_stimulus[condition, channel] == (1 + b) / 20
    assert tests.p_subject is not None
    own = np.array([[null[:, :, i, j].std(axis=1) for j in range(3)] for i in range(2)])
    spread = np.sqrt((own**2).mean(axis=2))
    excess = gain - null.mean(axis=1)
    flips = [np.einsum("s,sij->ij", np.array(signs), excess) / spread for signs in product((1, -1), repeat=6)]
    for place in product(range(2), range(3)):
        expected = np.mean([flip.max() >= flips[0][place] - 1e-9 for flip in flips])
        assert tests.p_subject[place] == pytest.approx(expected)


def test_excess_finds_what_raw_delta_r_hides() -> None:
    """delta_r is below 0 throughout, and above its own null."""
    gain, null = made_up(8, 0.0)
    gain[:, 0, 2] = -0.0005
    assert (gain[:, 0, 2] < 0).all()
    tests = run_tests(gain, null, 0.05)
    assert tests.p_subject is not None
    assert tests.p_subject[0, 2] <= 0.05
    assert sign_flip_p(gain.reshape(8, -1), np.ones(6)).min() > 0.5


def test_six_subjects_reach_a_claim_among_many_channels() -> None:
    """The size of a real study: 4 variants x 6 levels x 64 channels, an effect at a few channels of one condition."""
    random = np.random.default_rng(4)
    null = 0.004 * random.normal(size=(6, 99, 24, 64))
    gain = 0.004 * random.normal(size=(6, 24, 64))
    gain[:, 5, 10:16] += 0.012
    p = run_tests(gain, null, 0.05).p
    assert p is not None
    assert (p[5, 10:16] <= 0.05).sum() >= 4
    assert p[np.arange(24) != 5].min() > 0.05


def test_both_tests_must_agree_on_one_channel(tmp_path: Path) -> None:
    """Each test finds a channel of the condition, and not the same one."""
    gain, null = np.zeros((12, 2, 3)), 0.001 * np.random.default_rng(3).normal(size=(12, 99, 2, 3))
    null -= null.mean(axis=1, keepdims=True)
    gain[:, 1, 0] = [0.003, -0.001] * 6
    gain[:, 1, 2] = 0.0016
    shared = 0.001 * np.random.default_rng(4).normal(size=(1, 99, 2))
    null[..., 2] = shared - shared.mean(axis=1, keepdims=True)
    result, group = Study(gain, null).run(tmp_path)
    condition = group["conditions"][1]
    stimulus, subject = condition["p_stimulus_by_channel"], condition["p_subject_by_channel"]
    assert stimulus[0] <= 0.05 < subject[0]
    assert subject[2] <= 0.05 < stimulus[2]
    assert condition["p_by_channel"] == [max(pair) for pair in zip(stimulus, subject, strict=True)]
    assert condition["p_stimulus"] == min(stimulus)
    assert condition["p_subject"] == min(subject)
    assert condition["p"] == min(condition["p_by_channel"]) > 0.05
    assert not condition["claimed"]
    assert condition["significant_channels"] == []
    assert result.metrics["n_claimed"] == 0


def test_nothing_is_said_first_when_nothing_is_found(tmp_path: Path) -> None:
    result, group = Study(*made_up(6, 0.0)).run(tmp_path, simulated=True)
    assert result.metrics["n_claimed"] == 0
    assert group["verdict"].startswith("Nothing is significant")
    assert group["verdict"].endswith("SIMULATED: says nothing about brains.")


def test_simulated_findings_say_so(tmp_path: Path) -> None:
    _, group = Study(*made_up(8, 0.004)).run(tmp_path, simulated=True)
    assert group["simulated"]
    assert "recovers a planted response; says nothing about brains" in group["verdict"]


def test_fewer_than_five_subjects_are_refused(tmp_path: Path) -> None:
    result, group = Study(*made_up(4, 0.01)).run(tmp_path)
    assert result.failure is None
    strong = group["conditions"][1]
    assert strong["p_stimulus"] == 0.01
    assert strong["p_subject"] is None
    assert strong["p"] is None
    assert strong["p_by_channel"] is None
    assert strong["p_subject_by_channel"] is None
    assert not strong["claimed"]
    assert strong["significant_channels"] == []
    assert "fewer than 5" in group["refused"]
    assert group["verdict"].startswith("Nothing is claimed: 4 complete subject(s)")
    assert result.metrics["p_min"] is None


def test_a_smaller_alpha_needs_more_subjects(tmp_path: Path) -> None:
    _, group = Study(*made_up(6, 0.01, 199)).run(tmp_path, alpha=0.01)
    assert "fewer than 7 can't reach p = 0.01" in group["refused"]
    assert not group["conditions"][1]["claimed"]
    (tmp_path / "7").mkdir()
    _, group = Study(*made_up(7, 0.01, 199)).run(tmp_path / "7", alpha=0.01)
    assert group["conditions"][1]["claimed"]


def test_untested_models_get_no_p_anywhere(tmp_path: Path) -> None:
    result, group = Study(made_up(6, 0.01)[0], None).run(tmp_path)
    assert not group["tested"]
    assert group["verdict"].startswith("Not tested")
    assert not any(key.startswith("p_") or key == "p" or "excess" in key for key in group["conditions"][0])
    assert result.metrics["p_min"] is None
    assert result.metrics["delta_r_best"] == max(c["delta_r_mean"] for c in group["conditions"])


def test_intervals_of_the_plotted_means(tmp_path: Path) -> None:
    """Percentiles of the means of subjects drawn with replacement: about 1.96 standard errors each side."""
    gain, null = made_up(20, 0.002)
    _, group = Study(gain, null).run(tmp_path)
    for condition in group["conditions"]:
        for name in ("delta_r", "excess_delta_r"):
            low, high = condition[f"{name}_ci"]
            mean, se = condition[f"{name}_mean"], condition[f"{name}_se"]
            assert (mean - low) / se == pytest.approx(1.92, abs=0.25)
            assert (high - mean) / se == pytest.approx(1.92, abs=0.25)
        own = list(condition["excess_by_subject"].values())
        assert np.mean(own) == pytest.approx(condition["excess_delta_r_mean"])
    (tmp_path / "one").mkdir()
    _, one = Study(*made_up(1, 0.0)).run(tmp_path / "one")
    assert one["conditions"][0]["delta_r_ci"] is None


def test_the_long_table_has_every_piece_and_channel(tmp_path: Path) -> None:
    names = [CHANNELS] * 5 + [("Pz", "Fz", "Oz")]
    gain, null = made_up(6, 0.0)
    Study(gain, null, names).run(tmp_path)
    rows = list(csv.DictReader((tmp_path / "long.csv").read_text().splitlines()))
    assert len(rows) == 6 * 2 * 4 * 3
    row = next(
        row
        for row in rows
        if (row["subject"], row["piece"], row["channel"], row["noise_level"]) == ("S02", "c", "Pz", "0.4")
    )
    assert (row["model"], row["variant"], row["repetition"]) == ("acoustic_plus/onset", "aligned", "pooled")
    assert row["in_tests"] == "true"
    assert float(row["delta_r"]) == pytest.approx(gain[1, 1, 2])
    assert float(row["r_full"]) - float(row["r_reduced"]) == float(row["delta_r"])
    assert float(row["delta_r_null_mean"]) == pytest.approx(null[1, :, 1, 2].mean())
    outside = [row for row in rows if row["channel"] in ("Cz", "Oz")]
    assert len(outside) == 6 * 2 * 4
    assert all((row["in_tests"], row["delta_r_null_mean"]) == ("false", "") for row in outside)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    study = Study(*made_up(6, 0.002))
    study.run(tmp_path / "a")
    study.run(tmp_path / "b")
    assert (tmp_path / "a/group.json").read_bytes() == (tmp_path / "b/group.json").read_bytes()
