"""Ways of cleaning that a study may choose: order of steps, neighbours, references, gaps, eyes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.contract import TaskError
from tasks.eeg.config import PreprocessingConfig
from tasks.eeg.montage import biosemi_64
from tasks.eeg.preprocessing import Clean, clean, clean_all
from tasks.eeg.quality import gaps, quality
from tasks.eeg.trials import Sensors, Trial

RATE = 128
CAP = biosemi_64()
CZ, FP1, OZ = (CAP.names.index(name) for name in ("Cz", "Fp1", "Oz"))


def config(**keys: Any) -> PreprocessingConfig:
    return PreprocessingConfig(saturated_share=None, **keys)


def cleaned(trials: list[Any], keys: PreprocessingConfig, reference: Any = None) -> list[Clean]:
    found, _ = clean_all(trials, CAP, keys, reference)
    assert all(isinstance(part, Clean) for part in found)
    return found  # type: ignore[return-value]


def trial(data: np.ndarray, start: int = RATE, duration_s: float = 20.0) -> Trial:
    return Trial("1", "piece", 0, data, None, RATE, start, duration_s)


def field(seed: int = 0) -> np.ndarray:
    """22 s of six sources that wax and wane, spread smoothly over the cap, and a little noise of each channel."""
    assert CAP.positions is not None
    random = np.random.default_rng(seed)
    n = RATE * 22
    sources = random.laplace(size=(6, n)) * np.exp(random.normal(size=(6, n // RATE))).repeat(RATE, axis=1)
    centres = CAP.positions[[5, 17, 30, 40, 52, 60]]
    weights = np.exp(-((np.linalg.norm(CAP.positions[:, None] - centres[None], axis=2) / 0.11) ** 2))
    return weights @ sources + 0.1 * random.normal(size=(64, n))


def test_keys_that_say_nothing_new_are_not_signed() -> None:
    assert set(config().signed()) == {"band_hz", "sample_rate_hz", "reference", "bad_channel_std_ratio"}
    asked = config(order=4, bad_channels={"per": "subject"}, ica={"eog": ["Fp1"]}, reference=["T7", "T8"])
    assert PreprocessingConfig.of_signed(asked.signed()) == asked


@pytest.mark.parametrize("hertz", [0.7, 3.0, 10.0])
@pytest.mark.parametrize("filters", ["before_resampling", "around_resampling"])
def test_both_orders_of_steps_have_the_gain_of_order_four_and_no_phase(filters: str, hertz: float) -> None:
    t = (np.arange(RATE * 62) - 131) / RATE
    wave = np.sin(2 * np.pi * hertz * t + 0.3)
    keys = config(order=4, filters=filters)
    pair = trial(np.stack([wave, wave]), start=131, duration_s=60.0)
    found = clean(pair, Sensors(("a", "b"), None), keys, None).data[:, 0]
    gain = 1 / (1 + (1 / hertz) ** 8) / (1 + (hertz / 8) ** 8)
    expected = gain * np.sin(2 * np.pi * hertz * np.arange(found.size) / 64 + 0.3)
    inner = slice(64 * 10, -64 * 10)
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.01)


def test_a_channel_is_compared_with_its_neighbours() -> None:
    """Amplitudes that fall thirtyfold from front to back are no fault; a channel three times its neighbours' is one."""
    assert CAP.positions is not None
    data = np.random.default_rng(0).normal(size=(64, RATE * 22))
    data *= 30 ** -((CAP.positions[:, 1].max() - CAP.positions[:, 1]) / np.ptp(CAP.positions[:, 1]))[:, None]
    data[OZ] *= 4
    against_all = clean(trial(data), CAP, config(), None).bads
    assert "Oz" not in against_all
    assert len(against_all) > 3
    found = clean(trial(data), CAP, config(bad_channels={"against": "neighbours"}), None)
    assert found.why == {"Oz": "noisy"}
    with pytest.raises(TaskError, match="neighbours is unknown"):
        clean(trial(data), Sensors(CAP.names, None), config(bad_channels={"against": "neighbours"}), None)


def test_per_subject_a_channel_deviates_in_all_trials_or_in_none() -> None:
    trials = [trial(field(seed)) for seed in range(3)]
    trials[0].data[CZ, : 5 * RATE] *= 30
    trials[1].data[FP1] = 0.0
    trials[2].data[OZ] *= 3.8
    assert [part.why for part in cleaned(trials, config())] == [{"Cz": "noisy"}, {"Fp1": "flat"}, {"Oz": "noisy"}]
    per_subject = config(bad_channels={"per": "subject"})
    found = cleaned(trials, per_subject)
    assert [part.why for part in found] == [{"Cz": "noisy"}, {"Cz": "noisy", "Fp1": "flat"}, {"Cz": "noisy"}]
    marked = replace(trials[0], bad_spans=((0.0, 5.0, "BAD_move"),))
    assert [part.why for part in cleaned([marked, *trials[1:]], per_subject)] == [{}, {"Fp1": "flat"}, {}]


@pytest.mark.parametrize("per", ["trial", "subject"])
def test_what_is_marked_bad_makes_no_channel_bad(per: str) -> None:
    """An artefact in one channel within a marked span, which the models leave out, costs the channel nothing."""
    data = field()
    data[CZ, RATE * 4 : RATE * 6] += 300 * np.random.default_rng(0).normal(size=2 * RATE)
    keys = config(bad_channels={"per": per})
    assert cleaned([trial(data)], keys)[0].bads == ("Cz",)
    assert cleaned([replace(trial(data), bad_spans=((2.0, 6.0, "BAD_move"),))], keys)[0].bads == ()


def test_a_cut_of_nothing_is_no_sample() -> None:
    """.29 s at 100 Hz are 29 samples; as a float they are 28.999..."""
    short = Trial("1", "piece", 0, np.random.default_rng(0).normal(size=(64, 58)), None, 200.0, 0, 0.29)
    [row] = quality([short], {short.key: clean(short, CAP, config(sample_rate_hz=100), "average")}, [], 100)
    assert (row["cut_samples"], row["kept_s"]) == (0, 0.29)


def test_references() -> None:
    data = field()
    plain = clean(trial(data), CAP, config(), None).data
    np.testing.assert_array_equal(clean(trial(data), CAP, config(), "none").data, plain)
    named = clean(trial(data), CAP, config(), ("Cz", "Fp1")).data
    np.testing.assert_allclose(named, plain - plain[:, [FP1, CZ]].mean(axis=1, keepdims=True), atol=1e-12)
    with pytest.raises(TaskError, match=r"preprocessing\.reference: there is no channel M1; allowed are Fp1, AF7"):
        clean(trial(data), CAP, config(), ("Cz", "M1"))
    assert CZ not in config(reference=["Cz"]).kept(CAP.names)
    assert config(channels=["Cz", "Fp1"]).kept(CAP.names) == [FP1, CZ]
    with pytest.raises(ValidationError, match="nothing is left of Cz"):
        config(channels=["Cz"], reference=["Cz"])
    with pytest.raises(ValidationError, match="allowed are average, mastoids, none, or a list of channels"):
        config(reference="linked")
    foreign = config(channels=["E1"], reference=["E2", "Cz"], ica={"n_components": 99, "eog": ["E3"]})
    assert foreign.among(CAP.names) == config(reference=["Cz"], ica={"n_components": 64})
    with pytest.raises(TaskError, match=r"preprocessing\.channels: there is no channel XX"):
        clean(trial(data), CAP, config(channels=["Cz", "XX"]), None)


def test_short_gaps_are_bridged_and_long_ones_cost_the_channel_its_trial() -> None:
    whole = field()
    data = whole.copy()
    data[CZ, 1000:1006] = np.nan
    data[FP1, 1000:1050] = np.nan
    strict = clean(trial(data), CAP, config(), None)
    assert strict.why == {"Fp1": "not numbers", "Cz": "not numbers"}
    assert strict.not_numbers == {"Fp1": 50, "Cz": 6}
    bridged = clean(trial(data), CAP, config(gap_max_s=0.05), None)
    assert bridged.why == {"Fp1": "not numbers"}
    assert bridged.bridged == ("Cz",)
    truth = clean(trial(whole), CAP, config(), None).data[:, CZ]
    assert np.abs(bridged.data[:, CZ] - truth).max() < 0.2 * truth.std()


def test_quality_counts_what_is_cut_marked_and_bridged() -> None:
    data = field()[:, : 21 * RATE - 7]
    data[CZ, 1000:1003] = np.nan
    data[OZ, 1000:1100] = np.nan
    heard = replace(trial(data), bad_spans=((1.0, 3.0, "BAD_a"), (2.0, 3.5, "BAD_b")))
    done = {heard.key: clean(heard, CAP, config(gap_max_s=0.05), None)}
    (row,) = quality([heard], done, [], 64)
    assert (row["heard_s"], row["kept_s"], row["cut_samples"], row["marked_s"]) == (20.0, round(1276 / 64, 3), 4, 2.5)
    assert (row["bad"], row["bridged"], row["interpolated"]) == ({"Oz": "not numbers"}, ["Cz"], round(1 / 64, 4))
    assert [str(part) for part in gaps([heard], done)] == [
        "trial 1 (piece): channel Oz: 100 samples are not numbers; in this trial the channel is interpolated from the "
        "others",
        "trial 1 (piece): channel Cz: 3 samples are not numbers; bridged by straight lines",
    ]


def with_blinks(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brain, the same with blinks, and the blinks' course."""
    assert CAP.positions is not None
    random = np.random.default_rng(seed)
    brain = field(seed)
    course = np.zeros(brain.shape[1])
    course[random.choice(course.size - 200, 12, replace=False) + 100] = 1.0
    course = np.convolve(course, np.hanning(50), "same")
    eyes = np.array([[-0.03, 0.09, -0.01], [0.03, 0.09, -0.01]])
    near = np.linalg.norm(CAP.positions[:, None] - eyes[None], axis=2).min(axis=1)
    return brain, brain + np.outer(20 * brain.std() * np.exp(-((near / 0.04) ** 2)), course), course


@pytest.mark.parametrize(("method", "recorded"), [("infomax", True), ("fastica", False)])
def test_blinks_are_taken_out_and_the_rest_stays(method: str, recorded: bool) -> None:
    made = [with_blinks(seed) for seed in range(2)]
    trials = [trial(data) for _, data, _ in made]
    if recorded:
        trials = [
            replace(part, eog=np.stack([course, 0 * course]), eog_names=("VEOG", "HEOG"))
            for part, (_, _, course) in zip(trials, made, strict=True)
        ]
    keys = config(ica={"method": method, "n_components": 7})
    found, told = clean_all(trials, CAP, keys, None)
    assert told is not None
    assert {part["eog"] for part in told["removed"]} <= ({"VEOG"} if recorded else {"Fp1", "Fpz", "Fp2", "AF7", "AF8"})
    assert 1 <= len(told["removed"]) <= 2
    assert all(abs(part["r"]) > 0.7 for part in told["removed"])
    assert told["converged"] or method == "infomax", "of seven components infomax turns the last few for ever"
    for part, (brain, data, _) in zip(found, made, strict=True):
        truth = clean(trial(brain), CAP, config(), None).data
        before = clean(trial(data), CAP, config(bad_channel_std_ratio=99), None).data
        assert isinstance(part, Clean)
        assert np.corrcoef(before[:, FP1], truth[:, FP1])[0, 1] < 0.5
        assert np.corrcoef(part.data[:, FP1], truth[:, FP1])[0, 1] > 0.9
        assert np.corrcoef(part.data[:, CZ], truth[:, CZ])[0, 1] > 0.98


def test_without_eyes_in_the_data_ica_changes_nothing_and_says_what_it_needs() -> None:
    plain = clean(trial(field()), CAP, config(), "average").data
    keys = config(ica={"n_components": 4, "eog": ["Oz"], "threshold": 0.999})
    found, told = clean_all([trial(field())], CAP, keys, "average")
    assert told is not None
    assert told["removed"] == []
    assert isinstance(found[0], Clean)
    np.testing.assert_array_equal(found[0].data, plain)
    few = Sensors(("a", "b", "c"), None)
    with pytest.raises(TaskError, match="no EOG was recorded, and none of Fp1"):
        clean_all([trial(field()[:3])], few, config(ica={}), None)
    with pytest.raises(TaskError, match="9 components from 3 independent channels; allowed are 2 to 3"):
        clean_all([trial(field()[:3])], few, config(ica={"eog": ["a"], "n_components": 9}), None)
