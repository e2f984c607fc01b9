"""Acoustic features: their time base, and what each responds to."""

from __future__ import annotations

import json

import numpy as np
import pytest
from eeg_material import DURATIONS_S, MakeCell, notes_of
from safetensors.numpy import load_file

from tasks.contract import Artefact, Context
from tasks.eeg.features import derivative, detected_onsets, envelope, mel_weights, n_eeg_samples, run, spectrogram

RATE = 44_100


@pytest.mark.parametrize("rate", [50, 64, 100])
def test_clicks_stay_on_their_samples_to_the_end(rate: int) -> None:
    audio = np.zeros(RATE * 30)
    audio[RATE::RATE] = 1.0
    for feature in (envelope(audio, rate), spectrogram(audio, rate).sum(axis=1)):
        assert feature.shape == (30 * rate,)
        for second in (1, 15, 29):
            window = feature[second * rate - 5 : second * rate + 6]
            assert int(np.argmax(window)) == 5


def test_length_follows_from_exact_sample_counts() -> None:
    assert n_eeg_samples(44_100, 64) == 64
    assert n_eeg_samples(44_099, 64) == 63
    assert n_eeg_samples(150 * 44_100 + 689, 64) == 9600
    assert spectrogram(np.zeros(50_000), 64).shape == (72, 8)
    assert envelope(np.zeros(50_000), 64).shape == (72,)
    assert envelope(np.zeros(10), 64).shape == (0,)


def test_envelope_is_the_magnitude_of_the_modulation() -> None:
    t = np.arange(RATE * 4) / RATE
    modulation = 1 + 0.5 * np.cos(2 * np.pi * 3 * t)
    found = envelope(0.2 * modulation * np.sin(2 * np.pi * 1000 * t), 64)
    inner = slice(32, -32)
    np.testing.assert_allclose(
        found[inner], 0.2 * (1 + 0.5 * np.cos(2 * np.pi * 3 * np.arange(256) / 64))[inner], atol=2e-3
    )


def test_spectrogram_is_a_power_law_of_magnitude() -> None:
    noise = np.random.default_rng(0).normal(size=RATE)
    np.testing.assert_allclose(spectrogram(8 * noise, 64), 8**0.3 * spectrogram(noise, 64), rtol=1e-10)


def test_tones_fall_in_rising_bands_and_high_ones_in_none() -> None:
    t = np.arange(RATE) / RATE
    loudest = [
        int(np.argmax(spectrogram(np.sin(2 * np.pi * hz * t), 64)[10:-10].mean(axis=0)))
        for hz in (200, 700, 1800, 4000, 6000)
    ]
    assert loudest == sorted(loudest)
    assert len(set(loudest)) == 5
    beyond = spectrogram(np.sin(2 * np.pi * 12_000 * t), 64)[10:-10]
    assert beyond.max() < 0.05 * spectrogram(np.sin(2 * np.pi * 700 * t), 64).max()


def test_mel_filters_cover_the_range_without_gaps() -> None:
    weights = mel_weights(2048)
    hertz = np.arange(1025) * RATE / 2048
    inner = (hertz > 280) & (hertz < 5800)
    np.testing.assert_allclose(weights[inner].sum(axis=1), 1.0)
    assert weights[hertz > 8000].sum() == 0


def test_derivative_keeps_rises_only() -> None:
    np.testing.assert_array_equal(derivative(np.array([[1.0], [3.0], [2.0], [2.5]])), [[0], [2], [0], [0.5]])


def test_detected_onsets_are_the_sharp_rises() -> None:
    rises = np.full((64, 8), 0.01)
    rises[[10, 30, 33, 50]] = 1.0
    rises[[11]] = 0.4
    assert np.flatnonzero(detected_onsets(rises, 64)).tolist() == [10, 30, 50] or np.flatnonzero(
        detected_onsets(rises, 64)
    ).tolist() == [10, 33, 50]
    assert detected_onsets(np.zeros((64, 8)), 64).sum() == 0


def test_stage_writes_every_feature_of_every_stimulus(corpus: Artefact, make_cell: MakeCell) -> None:
    cell = make_cell("a", "features", {"sample_rate_hz": 64}, corpus=corpus)
    other = make_cell("b", "features", {"sample_rate_hz": 128}, corpus=corpus)
    alone = make_cell("c", "features", {"sample_rate_hz": 128}, corpus=corpus)
    results = [*run([cell, other], Context()), *run([alone], Context())]
    assert [result.failure for result in results] == [None, None, None]
    arrays = load_file(cell.out_dir / "features.safetensors")
    table = json.loads((cell.out_dir / "features.json").read_text())
    for name, seconds in DURATIONS_S.items():
        n = int(seconds * RATE) * 64 // RATE
        assert table["recordings"][name]["n_samples"] == n
        shapes = {"spectrogram": (n, 8), "derivative": (n, 8), "onsets": (n, 1), "envelope": (n, 1)}
        assert {key: arrays[f"{name}/{key}"].shape for key in shapes} == shapes
        assert arrays[f"{name}/onsets"].sum() == len(notes_of(name))
        first = round(notes_of(name)[0][0] * 64)
        assert arrays[f"{name}/onsets"][first, 0] == 1
        assert all(np.isfinite(arrays[f"{name}/{key}"]).all() for key in shapes)
    assert results[0].metrics["n_recordings"] == 3
    for file in ("features.safetensors", "features.json"):
        assert (other.out_dir / file).read_bytes() == (alone.out_dir / file).read_bytes()


def test_unknown_notes_get_detected_onsets(silent_corpus: Artefact, make_cell: MakeCell) -> None:
    cell = make_cell("a", "features", {"sample_rate_hz": 64}, corpus=silent_corpus)
    list(run([cell], Context()))
    found = np.flatnonzero(load_file(cell.out_dir / "features.safetensors")["audio1/onsets"])
    onsets = np.array([note[0] * 64 for note in notes_of("audio1")])
    hit = [np.abs(found - onset).min() <= 2 for onset in onsets]
    assert np.mean(hit) > 0.7
