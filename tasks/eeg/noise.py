"""What a simulated scalp has besides responses: noise that falls with frequency and distance, and an alpha rhythm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft

from tasks.eeg.responses import mean_power
from tasks.eeg.trials import Floats
from tasks.seeds import numpy_stream

NOISE_REACH_M = 0.06
"""Distance over which the noise's correlation between electrodes falls to 1/e."""

NOISE_CORNER_HZ = 0.5
"""Below this frequency the noise's spectrum is flat; above, power falls with 1/f."""

SLOPE_SD = 0.2
"""Of listeners' exponents of 1/f around 1, within 0.5 and 1.6."""

REACH_SD_M = 0.012
"""Of listeners' reaches, within 0.03 and 0.09 m."""

N_OWN_SOURCES = 4
OWN_SHARE = 0.3
"""Of a listener's noise power comes from so many smooth sources at places of its own."""

OWN_WIDTH_M = 0.05

ALPHA_BAND_HZ = (8.0, 13.0)
ALPHA_PEAK_HZ = 10.0
ALPHA_PEAK_SD_HZ = 0.8
"""Of listeners' peaks, within 8.5 and 12 Hz."""

ALPHA_SD_DB = 3.0
"""Of listeners' alpha power around the configured one."""

ALPHA_WIDTH_HZ = 0.5
"""Standard deviation of the rhythm's power spectrum: it waxes and wanes within a second."""

ALPHA_FOCI_M = np.array([[-0.030, -0.085, 0.025], [0.030, -0.085, 0.025]])
"""Left and right occipital, on the cap's sphere."""

ALPHA_REACH_M = 0.045
ALPHA_COMMON = 0.5
"""Share of power that both sides have in common."""


@dataclass(frozen=True)
class NoisePlan:
    """One listener's noise: power falls with ``1 / f**slope``; `mix` makes channels out of independent ones."""

    slope: float
    reach_m: float
    mix: Floats | None

    def told(self) -> dict[str, float]:
        return {"slope": self.slope, "reach_m": self.reach_m}


@dataclass(frozen=True)
class AlphaPlan:
    """One listener's alpha rhythm: its peak, and its power in 8-13 Hz over the noise's there."""

    peak_hz: float
    level_db: float

    def told(self) -> dict[str, float]:
        return {"alpha_peak_hz": self.peak_hz, "alpha_db": self.level_db}


def plan_noise(seed: int, subject: str, vary: bool, positions: Floats | None) -> NoisePlan:
    """The noise of one listener; without `vary` it is the usual one.

    Parameters
    ----------
    seed, subject : int, str
        Name the random stream.
    vary : bool
        Whether slope, reach and covariance are this listener's own.
    positions : ndarray of shape (C, 3), or None
        Electrodes in metres; without them channels are independent.
    """
    if not vary:
        return NoisePlan(1.0, NOISE_REACH_M, None if positions is None else mixing(positions))
    random = numpy_stream(seed, "eeg", subject, "noise of its own")
    slope = float(np.clip(random.normal(1.0, SLOPE_SD), 0.5, 1.6))
    reach_m = float(np.clip(random.normal(NOISE_REACH_M, REACH_SD_M), 0.03, 0.09))
    if positions is None:
        return NoisePlan(slope, reach_m, None)
    centres = positions[random.choice(len(positions), N_OWN_SOURCES, replace=False)]
    distance = np.linalg.norm(positions[:, None] - centres[None], axis=2)
    return NoisePlan(slope, reach_m, mixing(positions, reach_m, np.exp(-((distance / OWN_WIDTH_M) ** 2) / 2)))


def plan_alpha(seed: int, subject: str, vary: bool, alpha_db: float | None) -> AlphaPlan | None:
    """The alpha rhythm of one listener, the usual one without `vary`; None where none is asked for."""
    if alpha_db is None:
        return None
    if not vary:
        return AlphaPlan(ALPHA_PEAK_HZ, alpha_db)
    random = numpy_stream(seed, "eeg", subject, "alpha")
    peak_hz = float(np.clip(random.normal(ALPHA_PEAK_HZ, ALPHA_PEAK_SD_HZ), 8.5, 12.0))
    return AlphaPlan(peak_hz, alpha_db + float(random.normal(0.0, ALPHA_SD_DB)))


def pink_noise(random: np.random.Generator, n_channels: int, n_samples: int, rate: int, slope: float = 1.0) -> Floats:
    """Independent channels whose power falls with ``1 / f**slope`` above 0.5 Hz.

    Returns
    -------
    ndarray of float64, shape (n_channels, n_samples)
        Arbitrary but fixed scale.
    """
    length = fft.next_fast_len(n_samples, real=True)
    frequencies = np.maximum(fft.rfftfreq(length, 1 / rate), NOISE_CORNER_HZ)
    parts = random.standard_normal((2, n_channels, frequencies.size))
    spectrum = (parts[0] + 1j * parts[1]) / np.sqrt(frequencies if slope == 1.0 else frequencies**slope)
    noise: Floats = fft.irfft(spectrum, length, axis=1)[:, :n_samples] * np.sqrt(length)
    return noise


def mixing(positions: Floats, reach_m: float = NOISE_REACH_M, own: Floats | None = None) -> Floats:
    """Lower triangle L with ``L @ L.T = exp(-distance / reach_m)``, shape (C, C).

    With the topographies `own` of some sources, shape (C, k), their covariance makes up `OWN_SHARE` of the power.
    """
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    covariance = np.exp(-distance / reach_m)
    if own is not None:
        theirs = own @ own.T
        covariance = (1 - OWN_SHARE) * covariance + OWN_SHARE * theirs / np.diag(theirs).mean()
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)


def alpha_rhythm(random: np.random.Generator, peak_hz: float, positions: Floats, n_samples: int, rate: int) -> Floats:
    """Two occipital sources of narrow-band noise around `peak_hz`, which wax and wane, partly together.

    Parameters
    ----------
    random : Generator
    peak_hz : float
        Where their spectrum is largest.
    positions : ndarray, shape (C, 3)
        Electrodes in metres.
    n_samples, rate : int
        Length, and samples per second.

    Returns
    -------
    ndarray of float64, shape (C, n_samples)
        Arbitrary scale.
    """
    length = fft.next_fast_len(n_samples, real=True)
    frequencies = fft.rfftfreq(length, 1 / rate)
    shape = np.exp(-(((frequencies - peak_hz) / ALPHA_WIDTH_HZ) ** 2) / 4)
    parts = random.standard_normal((2, len(ALPHA_FOCI_M) + 1, frequencies.size))
    courses = fft.irfft((parts[0] + 1j * parts[1]) * shape, length, axis=1)[:, :n_samples]
    sides = np.sqrt(1 - ALPHA_COMMON) * courses[1:] + np.sqrt(ALPHA_COMMON) * courses[:1]
    distance = np.linalg.norm(positions[:, None] - ALPHA_FOCI_M[None], axis=2)
    return np.asarray(np.exp(-((distance / ALPHA_REACH_M) ** 2) / 2) @ sides)


def with_alpha(
    noise: dict[Any, Floats], plan: AlphaPlan, seed: int, subject: str, positions: Floats, rate: int
) -> dict[Any, Floats]:
    """Noise and the rhythm, which has `plan.level_db` over the noise in 8-13 Hz (mean over 64 channels, all trials).

    Parameters
    ----------
    noise : dict of (recording, repetition) to ndarray, shape (C, samples)
        Every trial; its key names the rhythm's random stream.
    plan : AlphaPlan
    seed, subject : int, str
    positions : ndarray, shape (C, 3)
    rate : int
    """
    made = {
        key: alpha_rhythm(
            numpy_stream(seed, "eeg", subject, *key, "alpha"), plan.peak_hz, positions, data.shape[1], rate
        )
        for key, data in noise.items()
    }
    present = mean_power([part[:64] for part in made.values()], rate, ALPHA_BAND_HZ)
    usual = mean_power([part[:64] for part in noise.values()], rate, ALPHA_BAND_HZ)
    scale = np.sqrt(usual / present * 10 ** (plan.level_db / 10))
    return {key: data + scale * made[key] for key, data in noise.items()}
