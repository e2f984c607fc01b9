"""Simulated listeners: EEG with a planted response, in noise like that of the scalp.

A listener's response is a sum of regressors of the stimulus, each convolved with a smooth kernel of known latency and
spread over the scalp by a topography. Listeners of kind ``listener`` answer to symbolic pitch surprisal (impulses at
note onsets), a compressive envelope, and onsets: never to the IC of any variant. The other kinds are canaries, whose
verdict is known beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.alignment import FrameSeries, hold, impulses
from tasks.eeg.config import PreprocessingConfig, SimulationConfig
from tasks.eeg.montage import MASTOID_POSITIONS, biosemi_64
from tasks.eeg.noise import NoisePlan, pink_noise, plan_alpha, plan_noise, with_alpha
from tasks.eeg.responses import (
    PADDING_S,
    Component,
    Driver,
    Kind,
    kernel,
    mean_power,
    plan_channels_as_listeners,
    plan_component,
    responses,
)
from tasks.eeg.trials import Floats, Sensors, Trial
from tasks.seeds import numpy_stream

SUBJECT_SNR_SD_DB = 1.5
"""Standard deviation of listeners' SNR around the configured one."""

DRIVERS: Mapping[Kind, tuple[Driver, ...]] = {
    "listener": ("envelope", "onset", "surprisal"),
    "noise": (),
    "acoustic": ("envelope", "onset"),
    "positive": ("ic",),
}
"""What each kind of listener answers to."""


@dataclass(frozen=True)
class Stimulus:
    """The regressors of one recording at the simulation's rate, each of shape (n_samples,)."""

    recording: str
    duration_s: float
    rate: int
    n_samples: int
    drivers: Mapping[Driver, Floats]


@dataclass(frozen=True)
class Simulation:
    """The trials of one simulated subject, its channels, what was planted, and what its noise has of its own."""

    trials: list[Trial]
    sensors: Sensors
    components: list[Component]
    snr_db: float | None
    noise: Mapping[str, float] = field(default_factory=dict)

    def truth(self, preprocessing: PreprocessingConfig) -> dict[str, Any]:
        """The planted kernels as JSON values: per driver a kernel at lags ``k / sample_rate_hz`` and channels' weights.

        Kernels are those before the band-pass. For channels with latencies of their own the kernel is that of the mean
        latency. Weights are those of the channels that are kept, after the re-reference (topographies have a mean of 0
        over the scalp).
        """
        rate = preprocessing.sample_rate_hz
        lags = np.arange(-round(0.1 * rate), round(0.5 * rate) + 1) / rate
        return {
            "lags_s": lags.tolist(),
            "drivers": {part.driver: self._planted(part, lags, preprocessing) for part in self.components},
            "snr_db": self.snr_db,
            **({"noise": dict(self.noise)} if self.noise else {}),
        }

    def _planted(self, part: Component, lags: Floats, preprocessing: PreprocessingConfig) -> dict[str, Any]:
        names, reference = self.sensors.names, preprocessing.reference
        latency = float(part.latencies_s.mean())
        weights = part.weights[: len(names)]
        if reference == "mastoids" and part.weights.size > len(names):
            weights = weights - part.weights[len(names) :].mean()
        if self.sensors.positions is not None:
            if isinstance(reference, tuple):
                weights = weights - weights[np.isin(names, reference)].mean()
            weights = weights[preprocessing.kept(names)]
        return {
            "kernel": kernel(part.driver, latency, lags).tolist(),
            "latency_s": latency,
            "weights": weights.tolist(),
        }


def z_scored(values: Sequence[Floats]) -> list[Floats]:
    """Arrays less the mean of all of them together, over their standard deviation; NaN stay NaN."""
    together = np.concatenate([np.zeros(0), *values])
    deviation = float(np.nanstd(together)) if np.isfinite(together).any() else 0.0
    scale = deviation if deviation > 0 else 1.0
    mean = float(np.nanmean(together)) if np.isfinite(together).any() else 0.0
    return [(value - mean) / scale for value in values]


def note_impulses(onsets_s: npt.ArrayLike, z: Floats, rate: int, n_samples: int) -> Floats:
    """Impulses at note onsets scaled by z-scored values; a note without a value counts as an average one."""
    return impulses(onsets_s, np.nan_to_num(z, nan=0.0), rate, n_samples)


def frame_driver(series: Sequence[FrameSeries | None], lengths: Sequence[int], rate: int) -> list[Floats]:
    """IC held over its frames at `rate`, z-scored over all recordings; 0 where there is none."""
    held = [
        np.full(length, np.nan) if one is None else hold(one, rate, length)
        for one, length in zip(series, lengths, strict=True)
    ]
    return [np.nan_to_num(z, nan=0.0) for z in z_scored(held)]


def _noise(
    seed: int,
    subject: str,
    stimuli: Sequence[Stimulus],
    repetitions: int,
    lengths: Sequence[int],
    n_channels: int,
    plan: NoisePlan,
) -> dict[tuple[str, int], Floats]:
    """Noise of every trial, with a power of 1 in 1-8 Hz over all of them."""
    rate, mix = stimuli[0].rate, plan.mix
    found: dict[tuple[str, int], Floats] = {}
    for stimulus, length in zip(stimuli, lengths, strict=True):
        for repetition in range(repetitions):
            random = numpy_stream(seed, "eeg", subject, stimulus.recording, repetition, "noise")
            lone = pink_noise(random, n_channels, length, rate, plan.slope)
            found[stimulus.recording, repetition] = lone if mix is None else mix @ lone
    scale = 1 / np.sqrt(mean_power([noise[:64] if mix is not None else noise for noise in found.values()], rate))
    return {key: scale * noise for key, noise in found.items()}


def simulate(
    kind: Kind,
    seed: int,
    subject: str,
    stimuli: Sequence[Stimulus],
    config: SimulationConfig,
    n_channels: int = 64,
    snr_db: float | None = None,
) -> Simulation:
    """EEG of one simulated subject, before any cleaning.

    Parameters
    ----------
    kind : {"listener", "noise", "acoustic", "positive"}
        ``listener`` and ``positive`` have the 64 channels of the BioSemi cap and two mastoids, with correlated noise;
        ``noise`` and ``acoustic`` have `n_channels` unrelated channels, each a listener by itself.
    seed, subject : int, str
        Name the random streams, with the recording and the repetition.
    stimuli : sequence of Stimulus
        With the drivers that `DRIVERS` names for this kind, at ``config.sample_rate_hz``.
    config : SimulationConfig
        Rate, repetitions, SNR, the share of pitch surprisal, and what the noise is like (channels without a scalp have
        no alpha rhythm, and only listeners have noise of their own).
    n_channels : int
        For the kinds without a scalp.
    snr_db : float or None
        Instead of the config's. Listeners vary around it, the other kinds have it exactly.

    Returns
    -------
    Simulation
        Trials in the order of `stimuli`, repetition by repetition; the unit is arbitrary.
    """
    rate = config.sample_rate_hz
    scalp = kind in ("listener", "positive")
    cap = biosemi_64()
    positions = np.concatenate([cap.positions, MASTOID_POSITIONS]) if scalp and cap.positions is not None else None
    if positions is None:
        parts = [plan_channels_as_listeners(driver, seed, subject, n_channels) for driver in DRIVERS[kind]]
    else:
        parts = [plan_component(driver, seed, subject, kind == "listener", positions) for driver in DRIVERS[kind]]
    lengths = [stimulus.n_samples + 2 * round(PADDING_S * rate) for stimulus in stimuli]
    own = config.vary_noise and kind == "listener"
    plan = plan_noise(seed, subject, own, positions)
    alpha = None if positions is None else plan_alpha(seed, subject, kind == "listener", config.alpha_db)
    n_made = n_channels if positions is None else len(positions)
    noise = _noise(seed, subject, stimuli, config.repetitions, lengths, n_made, plan)
    if alpha is not None and positions is not None:
        noise = with_alpha(noise, alpha, seed, subject, positions, rate)
    level = config.snr_db if snr_db is None else snr_db
    if kind == "listener":
        level += float(numpy_stream(seed, "eeg", subject, "snr").normal(0.0, SUBJECT_SNR_SD_DB))
    signal = responses(parts, [stimulus.drivers for stimulus in stimuli], config.surprisal_share, rate)
    if signal:
        present = mean_power([response[:64] if scalp else response for response in signal], rate)
        signal = [response * np.sqrt(10 ** (level / 10) / present) for response in signal]
    names = cap.names if scalp else tuple(f"{kind}{number + 1:03d}" for number in range(n_channels))
    sensors = Sensors(names, cap.positions if scalp else None)
    trials = []
    for repetition in range(config.repetitions):
        for place, stimulus in enumerate(stimuli):
            data = noise[stimulus.recording, repetition]
            data = data + signal[place] if signal else data
            trials.append(_trial(stimulus, repetition, data, len(names), rate))
    told = {**(plan.told() if own else {}), **(alpha.told() if alpha else {})}
    return Simulation(trials, sensors, parts, level if signal else None, told)


def _trial(stimulus: Stimulus, repetition: int, data: Floats, n_channels: int, rate: int) -> Trial:
    return Trial(
        name=f"{stimulus.recording}, repetition {repetition}",
        recording=stimulus.recording,
        repetition=repetition,
        data=data[:n_channels],
        mastoids=data[n_channels:] if len(data) > n_channels else None,
        sample_rate_hz=float(rate),
        start_sample=round(PADDING_S * rate),
        duration_s=stimulus.duration_s,
    )
