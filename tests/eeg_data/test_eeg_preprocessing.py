"""Cleaning one trial: gains and phases against theory, exact time, bad channels, references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.contract import TaskError
from tasks.eeg.bad_channels import saturated
from tasks.eeg.config import PreprocessingConfig
from tasks.eeg.filtering import band_pass, resample_from
from tasks.eeg.montage import biosemi_64, positions_for
from tasks.eeg.preprocessing import clean
from tasks.eeg.quality import gaps
from tasks.eeg.trials import Sensors, Trial

CONFIG = PreprocessingConfig()
PAIR = Sensors(("a", "b"), None)


def trial(data: np.ndarray, rate: float = 512, start: int = 512, duration_s: float = 20.0, **more: object) -> Trial:
    return Trial("1", "piece", 0, data, more.get("mastoids"), rate, start, duration_s)  # type: ignore[arg-type]


def smooth_field(seed: int = 0, n_samples: int = 512 * 22) -> np.ndarray:
    """64 channels whose values vary smoothly over the head."""
    random = np.random.default_rng(seed)
    sources = band_pass(random.normal(size=(6, n_samples)), 512, (1.0, 8.0))
    positions = biosemi_64().positions
    centres = positions[[5, 17, 30, 40, 52, 60]]
    weights = np.exp(-(np.linalg.norm(positions[:, None] - centres[None], axis=2) ** 2) / (2 * 0.08**2))
    return weights @ sources


@pytest.mark.parametrize("hertz", [0.25, 1.0, 3.0, 8.0, 20.0])
def test_band_pass_has_the_butterworth_gain_and_no_phase(hertz: float) -> None:
    t = np.arange(512 * 60) / 512
    wave = np.sin(2 * np.pi * hertz * t)
    found = band_pass(wave[None], 512, (1.0, 8.0))[0]
    # order 2 forwards and backwards: the squared magnitudes of a high-pass at 1 Hz and a low-pass at 8 Hz
    gain = 1 / (1 + (1 / hertz) ** 4) / (1 + (hertz / 8) ** 4)
    inner = slice(512 * 10, -512 * 10)
    np.testing.assert_allclose(found[inner], gain * wave[inner], atol=0.02)


@pytest.mark.parametrize(("rate", "start"), [(512.0, 512), (512.0, 515), (128.0, 128), (500.0, 501), (64.0, 7)])
def test_resampling_keeps_the_stimulus_at_sample_zero(rate: float, start: int) -> None:
    t = (np.arange(int(rate * 20)) - start) / rate
    found = resample_from(np.sin(2 * np.pi * 3 * t)[None], start, rate, 64)[0]
    expected = np.sin(2 * np.pi * 3 * np.arange(found.size) / 64)
    np.testing.assert_allclose(found[70:-70], expected[70:-70], atol=2e-3)


def test_rates_that_cannot_be_brought_exactly_are_refused() -> None:
    with pytest.raises(TaskError, match="below"):
        resample_from(np.zeros((1, 100)), 0, 32.0, 64)
    with pytest.raises(TaskError, match="exactly"):
        resample_from(np.zeros((1, 100)), 0, 511.937, 64)


def test_a_drift_leaves_no_edge_at_the_start() -> None:
    random = np.random.default_rng(0)
    data = random.normal(size=(2, 512 * 22)) + np.linspace(2e5, 2.02e5, 512 * 22)
    found = clean(trial(data), PAIR, CONFIG, None).data
    assert np.abs(found[:64]).max() < 4 * found[320:960].std()


def test_length_is_that_of_the_stimulus() -> None:
    found = clean(trial(np.random.default_rng(0).normal(size=(2, 512 * 25)), duration_s=20.01), PAIR, CONFIG, None)
    assert found.data.shape == (1280, 2)


def test_eeg_a_little_short_is_kept_and_much_too_short_is_not() -> None:
    data = np.random.default_rng(0).normal(size=(2, 512 + 512 * 10 - 26))
    assert clean(trial(data, duration_s=10.0), PAIR, CONFIG, None).data.shape == (636, 2)
    with pytest.raises(TaskError, match=r"0\.55 s before piece"):
        clean(trial(data, duration_s=10.5), PAIR, CONFIG, None)


@pytest.mark.parametrize("fault", ["flat", "nan", "loud", "quiet", "saturated"])
def test_bad_channels_are_found_and_interpolated(fault: str) -> None:
    data = smooth_field() + 0.02 * np.random.default_rng(1).normal(size=(64, 512 * 22))
    truth = clean(trial(data), biosemi_64(), CONFIG, None, repair=False).data
    broken = data.copy()
    place = biosemi_64().names.index("FC1")
    if fault == "flat":
        broken[place] = 7.0
    elif fault == "nan":
        broken[place, 100:110] = np.nan
    elif fault == "loud":
        broken[place] += 20 * np.random.default_rng(2).normal(size=512 * 22)
    elif fault == "saturated":
        broken[place] = np.clip(broken[place], *np.quantile(broken[place], [0.06, 0.94]))
    else:
        broken[place] *= 0.01
    found = clean(trial(broken), biosemi_64(), CONFIG, None)
    assert found.bads == ("FC1",)
    assert np.corrcoef(found.data[:, place], truth[:, place])[0, 1] > 0.97
    others = np.arange(64) != place
    np.testing.assert_allclose(found.data[:, others], truth[:, others], atol=1e-9)


def test_channels_that_the_file_marks_are_bad_however_they_look() -> None:
    data = smooth_field()
    found = clean(replace(trial(data), marked_bads=("Cz", "Oz")), biosemi_64(), CONFIG, None)
    assert found.bads == ("Oz", "Cz")
    assert clean(replace(trial(data), marked_bads=("Cz",)), biosemi_64(), CONFIG, None, repair=False).bads == ()


def test_saturation_is_the_share_of_flat_tops() -> None:
    t = np.arange(1000) / 1000
    wave = np.sin(2 * np.pi * 2 * t)
    coarse = np.round(np.random.default_rng(0).normal(size=1000) * 3)
    found = saturated(np.stack([wave, np.clip(wave, -0.5, 0.5), np.clip(wave, -2, 0.5), coarse, 0 * t, t * np.nan]))
    # a sine is above one half of its height for a third of the time
    np.testing.assert_allclose(found, [0, 2 / 3, 1 / 3, 0, 0, 0], atol=0.01)


def test_saturation_is_not_asked_where_the_key_is_null() -> None:
    data = smooth_field()
    place = biosemi_64().names.index("FC1")
    data[place] = np.clip(data[place], *np.quantile(data[place], [0.06, 0.94]))
    assert clean(trial(data), biosemi_64(), CONFIG, None).bads == ("FC1",)
    asked = CONFIG.model_copy(update={"saturated_share": None})
    assert clean(trial(data), biosemi_64(), asked, None).bads == ()


def test_bad_channels_without_positions_are_handed_back_as_unrepaired() -> None:
    data = np.random.default_rng(0).normal(size=(5, 512 * 22))
    data[3] = 0
    found = clean(trial(data), Sensors(tuple("abcde"), None), CONFIG, "average")
    assert found.bads == found.unrepaired == ("d",)
    np.testing.assert_allclose(found.data[:, [0, 1, 2, 4]].sum(axis=1), 0, atol=1e-9)


def test_hopeless_trials_are_refused() -> None:
    data = np.random.default_rng(0).normal(size=(5, 512 * 22))
    with pytest.raises(TaskError, match="every channel"):
        clean(trial(np.full_like(data, np.nan)), Sensors(tuple("abcde"), None), CONFIG, None)
    data[:3] = 0
    with pytest.raises(TaskError, match="3 of 5 channels"):
        clean(trial(data), Sensors(tuple("abcde"), None), CONFIG, None)


def test_average_reference_sums_to_zero() -> None:
    found = clean(trial(smooth_field()), biosemi_64(), CONFIG, "average")
    np.testing.assert_allclose(found.data.sum(axis=1), 0, atol=1e-9)


def test_mastoids_are_subtracted_and_a_flat_one_is_left_out() -> None:
    data = smooth_field()
    common = band_pass(np.random.default_rng(3).normal(size=(1, data.shape[1])), 512, (1.0, 8.0))
    plain = clean(trial(data), biosemi_64(), CONFIG, None, repair=False).data
    both = trial(data + common, mastoids=np.repeat(common, 2, axis=0))
    np.testing.assert_allclose(clean(both, biosemi_64(), CONFIG, "mastoids", repair=False).data, plain, atol=1e-9)
    one = trial(data + common, mastoids=np.concatenate([np.zeros_like(common), common]))
    cleaned = clean(one, biosemi_64(), CONFIG, "mastoids", repair=False)
    np.testing.assert_allclose(cleaned.data, plain, atol=1e-9)
    [told] = gaps([one], {one.key: cleaned})
    assert str(told) == "trial 1 (piece): the reference is one-sided: one of the mastoids is flat or not numbers"
    assert clean(both, biosemi_64(), CONFIG, "mastoids", repair=False).one_sided is None
    with pytest.raises(TaskError, match="average"):
        clean(trial(data), biosemi_64(), CONFIG, "mastoids")
    with pytest.raises(TaskError, match="both mastoid"):
        clean(trial(data, mastoids=np.zeros((2, data.shape[1]))), biosemi_64(), CONFIG, "mastoids")


def test_names_of_the_cap_are_known_in_both_forms() -> None:
    cap = biosemi_64()
    np.testing.assert_array_equal(positions_for(("Cz", "fp1")), cap.positions[[cap.names.index("Cz"), 0]])
    np.testing.assert_array_equal(positions_for(("A1", "B32")), cap.positions[[0, 63]])
    assert positions_for(("Cz", "EXG1")) is None


def test_one_channel_cannot_be_its_own_reference() -> None:
    one = trial(np.random.default_rng(0).normal(size=(1, 512 * 22)))
    with pytest.raises(TaskError, match="one channel less its own average is nothing"):
        clean(one, Sensors(("a",), None), CONFIG, "average")
