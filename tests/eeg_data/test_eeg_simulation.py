"""Simulated listeners: what was planted, how strong, and in what noise."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.alignment import impulses
from tasks.eeg.config import PreprocessingConfig, SimulationConfig
from tasks.eeg.filtering import band_pass
from tasks.eeg.montage import biosemi_64
from tasks.eeg.noise import NOISE_REACH_M, mixing, pink_noise
from tasks.eeg.preprocessing import clean
from tasks.eeg.responses import SOURCES, Kind, kernel, mean_power, plan_component, responses, topography
from tasks.eeg.simulation import Simulation, Stimulus, note_impulses, simulate, z_scored
from tasks.seeds import numpy_stream

RATE = 128
SIMULATION = SimulationConfig()
LOUD_DB = 80.0


def stimuli(n_pieces: int = 3, seconds: int = 30) -> list[Stimulus]:
    """Notes with surprisal, and a smooth envelope that has nothing to do with them."""
    made = []
    for piece in range(n_pieces):
        random = numpy_stream("stimulus", piece)
        onsets = np.cumsum(random.uniform(0.2, 0.6, 200))
        onsets = onsets[onsets < seconds - 0.5]
        z = z_scored([random.gamma(2.0, 1.5, onsets.size)])[0]
        n = seconds * RATE
        swell = np.abs(band_pass(random.normal(size=(1, n)), RATE, (0.5, 6.0))[0])
        drivers = {
            "envelope": swell,
            "onset": impulses(onsets, np.ones(onsets.size), RATE, n),
            "surprisal": note_impulses(onsets, z, RATE, n),
            "ic": note_impulses(onsets, random.normal(size=onsets.size), RATE, n),
        }
        made.append(Stimulus(f"piece{piece}", float(seconds), RATE, n, drivers))
    return made


def make(kind: Kind = "listener", subject: str = "S01", **more: object) -> Simulation:
    keys = ("surprisal_share", "repetitions", "alpha_db", "vary_noise")
    config = SimulationConfig(**{key: more.pop(key) for key in keys if key in more})
    return simulate(kind, 0, subject, stimuli(), config, **more)  # type: ignore[arg-type]


def test_kernels_peak_at_their_latency_and_stay_slow() -> None:
    lags = np.arange(-128, 512) / 1024
    for driver, source in SOURCES.items():
        shape = kernel(driver, source.latency_s, lags)
        assert lags[np.argmax(shape)] == pytest.approx(source.latency_s, abs=1 / 1024)
        assert shape.max() == pytest.approx(1.0, abs=1e-3)
        assert (shape[lags < 0] == 0).all()
    spectrum = np.abs(np.fft.rfft(kernel("surprisal", 0.2, lags), 8192))
    assert np.fft.rfftfreq(8192, 1 / 1024)[np.argmax(spectrum)] < 5.0


def test_topographies_are_smooth_and_centred() -> None:
    positions = biosemi_64().positions
    for driver in SOURCES:
        weights = topography(driver, positions, np.zeros(3))
        assert weights.mean() == pytest.approx(0, abs=1e-12)
        assert (weights**2).mean() == pytest.approx(1)
        distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
        near = np.argsort(distance, axis=1)[:, 1]
        assert np.corrcoef(weights, weights[near])[0, 1] > 0.7


def test_noise_falls_with_frequency_and_with_distance() -> None:
    noise = pink_noise(np.random.default_rng(0), 200, 4096, 128)
    power = (np.abs(np.fft.rfft(noise, axis=1)) ** 2).mean(axis=0)
    hertz = np.fft.rfftfreq(4096, 1 / 128)
    band = (hertz > 1) & (hertz < 40)
    slope = np.polyfit(np.log(hertz[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.05)
    positions = biosemi_64().positions
    mixed = mixing(positions) @ np.random.default_rng(1).normal(size=(64, 20_000))
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.testing.assert_allclose(np.corrcoef(mixed), np.exp(-distance / NOISE_REACH_M), atol=0.04)


@pytest.mark.parametrize("snr_db", [-12.0, 3.0])
def test_signal_to_noise_ratio_is_the_stated_one(snr_db: float) -> None:
    together = make("positive", snr_db=snr_db)
    silent = make("positive", snr_db=-300.0)
    pairs = list(zip(together.trials, silent.trials, strict=True))
    response = mean_power([one.data - other.data for one, other in pairs], RATE)
    noise = mean_power([other.data for _, other in pairs], RATE)
    assert 10 * np.log10(response / noise) == pytest.approx(snr_db, abs=0.01)


def test_listeners_vary_around_the_configured_ratio() -> None:
    levels = [make(subject=f"S{number:02d}").snr_db for number in range(12)]
    assert np.mean(levels) == pytest.approx(SIMULATION.snr_db, abs=1.5)
    assert 0.7 < np.std(levels) < 2.5


def test_surprisal_has_its_share_of_the_power() -> None:
    drivers = ("surprisal", "envelope", "onset")
    positions = biosemi_64().positions
    parts = {name: plan_component(name, 0, "S01", False, positions) for name in drivers}
    heard = [stimulus.drivers for stimulus in stimuli()]
    unit = {name: responses([part], heard, 0.4, RATE) for name, part in parts.items()}
    for response in unit.values():
        assert mean_power(response, RATE) == pytest.approx(1.0)
    together = responses(list(parts.values()), heard, 0.4, RATE)
    for piece, whole in enumerate(together):
        expected = sum(np.sqrt(power) * unit[name][piece] for name, power in zip(drivers, (0.4, 0.3, 0.3), strict=True))
        np.testing.assert_allclose(whole, expected, atol=1e-9)


def lagged(driver: np.ndarray, lags: range) -> np.ndarray:
    columns = [np.roll(driver, lag) for lag in lags]
    for column, lag in zip(columns, lags, strict=True):
        column[:lag] = 0
    return np.stack(columns, axis=1)


def test_planted_kernel_is_recovered_from_cleaned_eeg() -> None:
    made = make("listener", snr_db=LOUD_DB)
    config = PreprocessingConfig()
    lags = range(0, 28)
    rows, targets = [], []
    for trial, stimulus in zip(made.trials, stimuli(), strict=True):
        drivers = [stimulus.drivers[name][::2] + stimulus.drivers[name][1::2] for name in ("surprisal", "onset")]
        drivers.append(stimulus.drivers["envelope"][::2])
        rows.append(np.concatenate([lagged(driver, lags) for driver in drivers], axis=1))
        targets.append(clean(trial, made.sensors, config, "average").data)
    weights, *_ = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)
    truth = made.truth(config)
    times = np.array(truth["lags_s"])
    planted = truth["drivers"]["surprisal"]
    shape = np.array(planted["kernel"])[(times >= 0) & (times < 28 / 64 - 1e-9)]
    best = int(np.argmax(np.abs(planted["weights"])))
    found = weights[:28, best] * np.sign(planted["weights"][best])
    assert np.corrcoef(found, shape)[0, 1] > 0.9
    assert abs(np.argmax(found) / 64 - planted["latency_s"]) < 0.025


def test_subjects_differ_and_the_same_subject_comes_again() -> None:
    first, again, other = make(), make(), make(subject="S02")
    np.testing.assert_array_equal(first.trials[0].data, again.trials[0].data)
    assert first.components[2].latencies_s[0] != other.components[2].latencies_s[0]
    assert np.abs(np.corrcoef(first.trials[0].data[0], other.trials[0].data[0])[0, 1]) < 0.5


def test_repetitions_share_the_response_and_not_the_noise() -> None:
    loud = make(repetitions=2, snr_db=LOUD_DB)
    assert [trial.key for trial in loud.trials[:4]] == ["piece0/0", "piece1/0", "piece2/0", "piece0/1"]
    assert np.corrcoef(loud.trials[0].data.ravel(), loud.trials[3].data.ravel())[0, 1] > 0.99
    noise = make("noise", n_channels=20, repetitions=2)
    assert np.abs(np.corrcoef(noise.trials[0].data.ravel(), noise.trials[3].data.ravel())[0, 1]) < 0.1


def test_canaries_of_noise_have_unrelated_channels_and_no_response() -> None:
    noise = make("noise", subject="canary-noise", n_channels=30)
    assert noise.components == []
    data = np.concatenate([band_pass(trial.data, RATE, (1.0, 8.0)) for trial in noise.trials], axis=1)
    related = np.corrcoef(data)[np.triu_indices(30, 1)]
    assert np.abs(related).max() < 0.2
    assert noise.sensors.positions is None


def test_acoustic_canaries_are_listeners_without_surprisal() -> None:
    made = make("acoustic", subject="canary-acoustic", n_channels=40, snr_db=LOUD_DB)
    assert [part.driver for part in made.components] == ["envelope", "onset"]
    assert len(set(made.components[0].latencies_s)) == 40
    other = simulate(
        "acoustic",
        0,
        "canary-acoustic",
        [
            Stimulus(s.recording, s.duration_s, s.rate, s.n_samples, {**s.drivers, "surprisal": 0 * s.drivers["onset"]})
            for s in stimuli()
        ],
        SIMULATION,
        40,
        LOUD_DB,
    )
    np.testing.assert_array_equal(made.trials[0].data, other.trials[0].data)


def test_positive_canary_answers_to_ic_alone_with_the_usual_kernel() -> None:
    made = make("positive", subject="canary-positive", snr_db=LOUD_DB)
    assert [part.driver for part in made.components] == ["ic"]
    assert made.components[0].latencies_s[0] == SOURCES["ic"].latency_s
    assert made.snr_db == LOUD_DB
    (stimulus, *_) = stimuli()
    lags = np.arange(58) / RATE
    expected = np.convolve(stimulus.drivers["ic"], kernel("ic", 0.2, lags))[: stimulus.n_samples]
    course = made.trials[0].data[10, RATE : RATE + stimulus.n_samples]
    assert np.abs(np.corrcoef(course, expected)[0, 1]) > 0.999


def test_z_scores_are_over_all_pieces_together() -> None:
    first, second = z_scored([np.array([1.0, np.nan]), np.array([3.0])])
    np.testing.assert_array_equal(first, [-1, np.nan])
    np.testing.assert_array_equal(second, [1])
    np.testing.assert_array_equal(z_scored([np.array([4.0, 4.0])])[0], [0, 0])


def spectrum(made: Simulation) -> tuple[np.ndarray, np.ndarray]:
    """Hertz in steps of 0.25, and the mean power of every channel, shape (C, n)."""
    pieces = np.concatenate([t.data[:, : 28 * RATE].reshape(len(t.data), 7, 4 * RATE) for t in made.trials], axis=1)
    return np.fft.rfftfreq(4 * RATE, 1 / RATE), (np.abs(np.fft.rfft(pieces * np.hanning(4 * RATE))) ** 2).mean(axis=1)


def test_alpha_is_an_occipital_peak_at_the_listeners_own_frequency() -> None:
    peaks = []
    for subject in ("S01", "S02", "S03"):
        plain, alpha = make(subject=subject), make(subject=subject, alpha_db=6.0)
        hertz, power = spectrum(alpha)
        _, usual = spectrum(plain)
        inside = (hertz >= 7) & (hertz <= 14)
        found = alpha.truth(PreprocessingConfig())["noise"]
        back, front = (biosemi_64().names.index(name) for name in ("Oz", "Fz"))
        assert hertz[inside][np.argmax(power[back, inside])] == pytest.approx(found["alpha_peak_hz"], abs=0.8)
        band = (hertz >= 8) & (hertz <= 13)
        more = (power[:, band].sum(axis=1) - usual[:, band].sum(axis=1)) / usual[:, band].sum(axis=1)
        assert more[back] > 20 * abs(more[front])
        assert 10 * np.log10(more.mean()) == pytest.approx(found["alpha_db"], abs=1.5)
        below = (hertz >= 1) & (hertz <= 5)
        np.testing.assert_allclose(power[:, below].sum(axis=1), usual[:, below].sum(axis=1), rtol=0.05)
        peaks.append(found["alpha_peak_hz"])
    assert np.ptp(peaks) > 0.2


def test_alpha_waxes_and_wanes() -> None:
    alpha, plain = make(alpha_db=20.0).trials[0].data, make().trials[0].data
    course = (alpha - plain)[biosemi_64().names.index("Oz")]
    halves = course[: 30 * RATE].reshape(60, RATE // 2).std(axis=1)
    low, high = np.quantile(halves, [0.1, 0.9])
    assert high > 2 * low


def test_listeners_noise_varies_where_it_is_asked_for() -> None:
    """Spectra's slopes and the correlations of the same two electrodes differ; canaries have the usual noise."""
    slopes, related = [], []
    for number in range(4):
        made = make(subject=f"S{number:02d}", vary_noise=True, snr_db=-60.0)
        hertz, power = spectrum(made)
        band = (hertz >= 2) & (hertz <= 40)
        slopes.append(-np.polyfit(np.log(hertz[band]), np.log(power[:, band].mean(axis=0)), 1)[0])
        assert slopes[-1] == pytest.approx(made.noise["slope"], abs=0.07)
        related.append(
            np.corrcoef(np.concatenate([trial.data for trial in made.trials], axis=1))[np.triu_indices(64, 1)]
        )
    assert np.ptp(slopes) > 0.15
    assert np.abs(related[0] - related[1]).max() > 0.2
    usual, asked = (make("positive", subject="p", vary_noise=vary).trials[0].data for vary in (False, True))
    np.testing.assert_array_equal(usual, asked)
