"""Features and IC on the EEG's time base."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_world import FRAME_S, RATE, World

from tasks.alignment import note_ic
from tasks.contract import TaskError
from tasks.eeg import masks
from tasks.eeg.regressors import driver_regressor, ic_regressor, read_reduced, standardised, whole_ic


def test_reduced_models_have_their_features() -> None:
    world = World(n_pieces=2, seconds=10)
    features = world.feature_artefact()
    assert read_reduced(features, "acoustic_plus", RATE)["piece0"].shape == (320, 17)
    assert read_reduced(features, "envelope", RATE)["piece0"].shape == (320, 1)
    with pytest.raises(TaskError, match="32 Hz"):
        read_reduced(features, "envelope", 64)


def test_one_mean_and_one_scale_for_all_pieces() -> None:
    first, second = np.array([[0.0, 5.0], [2.0, 5.0]]), np.array([[4.0, 5.0], [6.0, 5.0]])
    scaled = standardised({"a": first, "b": second})
    np.testing.assert_allclose(scaled["a"][:, 0], [-3 / 5**0.5, -1 / 5**0.5])
    assert not scaled["b"][:, 1].any(), "a constant feature becomes 0"


def test_hold_is_z_scored_where_present_and_zero_elsewhere() -> None:
    world = World(n_pieces=2, seconds=10, form="hold")
    regressor = ic_regressor(world.ic_series(0.0), dict.fromkeys(world.pieces, 320), world.notes, "hold", RATE)
    present = np.concatenate([regressor.present[piece] for piece in world.pieces])
    values = np.concatenate([regressor.values[piece] for piece in world.pieces])
    assert values[present].mean() == pytest.approx(0, abs=1e-12)
    assert values[present].std() == pytest.approx(1)
    assert not values[~present].any()
    assert not regressor.present["piece0"][: int(FRAME_S * RATE)].any(), "the first frame has no IC"


def test_what_is_present_is_the_same_for_every_level() -> None:
    """Whether or not a level has a value in the first frame; another that it lacks is a gap."""
    world = World(n_pieces=2, seconds=10, form="hold")
    values = world.ic(0.9)
    values["piece0"][0] = 123.0
    whole = whole_ic(world.surprisal_artefact(0.9, values))
    other = whole_ic(world.surprisal_artefact(0.0))
    for piece in world.pieces:
        assert np.array_equal(np.isnan(whole[piece].values), np.isnan(other[piece].values))
        np.testing.assert_array_equal(whole[piece].values[1:], values[piece][1:])
    lengths, frames = dict.fromkeys(world.pieces, world.n_samples), np.arange(world.n_samples) / RATE / FRAME_S
    present = ic_regressor(whole, lengths, world.notes, world.form, RATE).present
    for lost in (1, 50, 105):
        values["piece1"][lost] = np.inf
        regressor = ic_regressor(
            whole_ic(world.surprisal_artefact(0.9, values)), lengths, world.notes, world.form, RATE
        )
        gap = masks.indices(regressor.missing["piece1"])
        np.testing.assert_array_equal(frames[gap].astype(int) == lost, True)
        assert gap.size in (2, 3)
        assert regressor.missing.keys() == {"piece1"}
        assert not regressor.present["piece1"][gap].any()
        filled = regressor.present["piece1"].copy()
        filled[gap] = True
        np.testing.assert_array_equal(filled, present["piece1"])
        assert np.isfinite(regressor.values["piece1"]).all()
        values["piece1"][lost] = 100.0


def test_onsets_whose_ic_has_a_lost_frame_are_missing() -> None:
    world = World(n_pieces=2, seconds=10)
    onsets = [note[0] for note in world.notes["piece1"]]
    values = world.ic(0.9)
    first, some = int(onsets[0] / FRAME_S), int(onsets[7] / FRAME_S)
    values["piece1"][[some, some + 1]] = np.nan
    lengths = dict.fromkeys(world.pieces, world.n_samples)
    regressor = ic_regressor(whole_ic(world.surprisal_artefact(0.9, values)), lengths, world.notes, "onset", RATE)
    lost = [onset for onset in onsets if some - 1 <= int(onset / FRAME_S) <= some + 1]
    assert first < some - 1
    expected = sorted({int(onset * RATE + 0.5) for onset in lost})
    np.testing.assert_array_equal(masks.indices(regressor.missing["piece1"]), expected)
    np.testing.assert_array_equal(np.flatnonzero(~regressor.present["piece1"]), expected)


def test_the_true_driver_has_the_form_of_onset_ic() -> None:
    world = World(n_pieces=2, seconds=10)
    lengths = dict.fromkeys(world.pieces, world.n_samples)
    bits = {
        piece: note_ic(series, world.notes[piece], "onset_and_next") for piece, series in world.ic_series(0).items()
    }
    driver = driver_regressor(bits, lengths, world.notes, RATE)
    onset = ic_regressor(world.ic_series(0), lengths, world.notes, "onset", RATE)
    for piece in world.pieces:
        assert np.array_equal(driver.values[piece], onset.values[piece])
        assert np.array_equal(driver.present[piece], onset.present[piece])
    with pytest.raises(TaskError, match=r"piece1: pitch surprisal of 3 notes, and the stimulus has \d+"):
        driver_regressor({**bits, "piece1": np.arange(3.0)}, lengths, world.notes, RATE)
    with pytest.raises(TaskError, match=r"pitch surprisal is constant \(2 bits"):
        driver_regressor({key: np.full(len(own), 2.0) for key, own in bits.items()}, lengths, world.notes, RATE)


def test_onset_impulses_follow_the_notes() -> None:
    world = World(n_pieces=2, seconds=10)
    values = world.standard_ic(0.0)["piece1"]
    pulses = world.features["piece1/onsets"][:, 0] > 0
    background = values[~pulses]
    assert np.ptp(background) < 1e-12, "between notes the regressor has one value, its offset"
    assert np.abs(values[pulses] - background[0]).mean() > 0.5
