"""Features and IC on the EEG's time base."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_world import FRAME_S, RATE, World

from tasks.contract import TaskError
from tasks.eeg.regressors import ic_regressor, read_reduced, standardised


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
    world = World(n_pieces=2, seconds=10, form="hold")
    masks = [
        ic_regressor(world.ic_series(level), dict.fromkeys(world.pieces, 320), world.notes, "hold", RATE).present
        for level in (0.0, 0.9)
    ]
    for piece in world.pieces:
        assert np.array_equal(masks[0][piece], masks[1][piece])


def test_onset_impulses_follow_the_notes() -> None:
    world = World(n_pieces=2, seconds=10)
    values = world.standard_ic(0.0)["piece1"]
    pulses = world.features["piece1/onsets"][:, 0] > 0
    background = values[~pulses]
    assert np.ptp(background) < 1e-12, "between notes the regressor has one value, its offset"
    assert np.abs(values[pulses] - background[0]).mean() > 0.5
