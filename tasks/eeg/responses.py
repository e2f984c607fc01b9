"""What a simulated listener answers to: kernels of known latency, topographies, and the responses they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import fft

from tasks.eeg.trials import Floats
from tasks.seeds import numpy_stream

Kind = Literal["listener", "noise", "acoustic", "positive"]
Driver = Literal["surprisal", "envelope", "onset", "ic"]

PADDING_S = 1.0
"""EEG before and after each recording, so that filters have settled where the recording starts."""

POWER_BAND_HZ = (1.0, 8.0)
KERNEL_SPAN_S = 0.45
TOPOGRAPHY_WIDTH_M = 0.06


@dataclass(frozen=True)
class Source:
    """What one part of the response looks like: its latency, its width, and where it is strongest."""

    latency_s: float
    width_s: float
    focus_m: tuple[float, float, float]


SOURCES: Mapping[Driver, Source] = {
    "envelope": Source(0.06, 0.035, (0.0, 0.055, 0.077)),
    "onset": Source(0.10, 0.040, (0.0, 0.020, 0.093)),
    "surprisal": Source(0.20, 0.050, (0.0, -0.010, 0.094)),
    "ic": Source(0.20, 0.050, (0.0, -0.010, 0.094)),
}


@dataclass(frozen=True)
class Component:
    """A driver's planted response in every channel."""

    driver: Driver
    latencies_s: Floats
    weights: Floats
    """Topography times gain, shape (C,)."""


def compressed(envelope: Floats) -> Floats:
    """Compressive envelope: power 0.3 of the broadband envelope's magnitude."""
    return np.asarray(envelope**0.3, dtype=np.float64)


def kernel(driver: Driver, latency_s: float, lags_s: Floats) -> Floats:
    """Response to an impulse: minus the second derivative of a Gaussian, which peaks with 1 at the latency.

    Its mean is zero and its spectrum peaks at ``sqrt(2) / (2 pi width)`` Hz: 4.5 Hz for surprisal.

    Parameters
    ----------
    driver : str
        Which part of the response.
    latency_s : float
        Time of the peak after the impulse.
    lags_s : ndarray
        Where the kernel is wanted; at negative lags it is 0.

    Returns
    -------
    ndarray of float64
        The shape of `lags_s`.
    """
    z = (lags_s - latency_s) / SOURCES[driver].width_s
    shape: Floats = np.where(lags_s >= 0, (1 - z**2) * np.exp(-(z**2) / 2), 0.0)
    return shape


def topography(driver: Driver, positions: Floats, shift_m: Floats) -> Floats:
    """Weights that fall smoothly with the distance from the driver's focus, with mean 0 and mean square 1.

    Parameters
    ----------
    driver : str
        Which part of the response.
    positions : ndarray, shape (C, 3)
        Electrodes in metres; mean and mean square are those over the first 64.
    shift_m : ndarray, shape (3,)
        How far this listener's focus lies from the usual one.

    Returns
    -------
    ndarray of float64, shape (C,)
    """
    distance = np.linalg.norm(positions - (np.array(SOURCES[driver].focus_m) + shift_m), axis=1)
    weights = np.exp(-((distance / TOPOGRAPHY_WIDTH_M) ** 2) / 2)
    weights = weights - weights[:64].mean()
    return np.asarray(weights / np.sqrt((weights[:64] ** 2).mean()), dtype=np.float64)


def band_power(data: Floats, rate: int, band_hz: tuple[float, float] = POWER_BAND_HZ) -> float:
    """Power within a band of signals of shape (C, samples): squares summed over time, mean over channels."""
    spectrum = fft.rfft(data, axis=1)
    frequencies = fft.rfftfreq(data.shape[1], 1 / rate)
    inside = (frequencies >= band_hz[0]) & (frequencies <= band_hz[1])
    return float(2 * (np.abs(spectrum[:, inside]) ** 2).sum() / data.shape[1] / data.shape[0])


def mean_power(signals: Sequence[Floats], rate: int, band_hz: tuple[float, float] = POWER_BAND_HZ) -> float:
    """Power within a band per sample, over all `signals` together (each of shape (C, samples)), mean over channels."""
    n_samples = sum(signal.shape[1] for signal in signals)
    return float(sum(band_power(signal, rate, band_hz) for signal in signals) / n_samples)


def plan_component(driver: Driver, seed: int, subject: str, vary: bool, positions: Floats) -> Component:
    """One subject's latency, gain and topography for a driver.

    Latencies vary by 10 ms, gains by 15 %, foci by 8 mm (standard deviations); without `vary` none of them does.

    Parameters
    ----------
    driver, seed, subject : str, int, str
        Name the random stream.
    vary : bool
        Whether this subject differs from the usual one.
    positions : ndarray, shape (C, 3)
        Electrodes in metres.
    """
    random = numpy_stream(seed, "eeg", subject, driver, "response")
    scale = 1.0 if vary else 0.0
    latency = SOURCES[driver].latency_s + scale * float(np.clip(random.normal(0.0, 0.010), -0.025, 0.025))
    gain = 1.0 + scale * float(np.clip(random.normal(0.0, 0.15), -0.45, 0.45))
    shift = scale * np.clip(random.normal(0.0, 0.008, 3), -0.02, 0.02)
    return Component(driver, np.full(len(positions), latency), gain * topography(driver, positions, shift))


def plan_channels_as_listeners(driver: Driver, seed: int, subject: str, n_channels: int) -> Component:
    """A latency and a gain of its own for every channel, as if each were another listener's."""
    random = numpy_stream(seed, "eeg", subject, driver, "response")
    latencies = SOURCES[driver].latency_s + np.clip(random.normal(0.0, 0.010, n_channels), -0.025, 0.025)
    return Component(driver, latencies, np.clip(random.normal(1.0, 0.2, n_channels), 0.4, 1.6))


def _courses(part: Component, driver: Floats, rate: int) -> Floats:
    """The driver, padded by `PADDING_S` on either side, through the kernel of every distinct latency."""
    lags = np.arange(round(KERNEL_SPAN_S * rate) + 1) / rate
    padded = np.pad(driver, round(PADDING_S * rate))
    length = fft.next_fast_len(padded.size + lags.size, real=True)
    kernels = np.stack([kernel(part.driver, float(latency), lags) for latency in np.unique(part.latencies_s)])
    courses = fft.irfft(fft.rfft(kernels, length, axis=1) * fft.rfft(padded, length), length, axis=1)
    shaped: Floats = courses[:, : padded.size]
    return shaped


def responses(
    parts: Sequence[Component], stimuli: Sequence[Mapping[Driver, Floats]], surprisal_share: float, rate: int
) -> list[Floats]:
    """The whole response to every stimulus.

    At a gain of 1 the part that follows pitch surprisal has the power `surprisal_share`, those that follow envelope and
    onsets share the rest equally (in 1-8 Hz, over all stimuli, each part by itself). A part alone has all.

    Returns
    -------
    list of ndarray, each of shape (C, samples with padding)
    """
    acoustic = sum(part.driver in ("envelope", "onset") for part in parts)
    has_surprisal = any(part.driver == "surprisal" for part in parts)
    total: list[Floats] = []
    for part in parts:
        share = surprisal_share if has_surprisal and acoustic else float(has_surprisal)
        power = {"surprisal": share, "ic": 1.0}.get(part.driver, (1.0 - share) / max(acoustic, 1))
        courses = [_courses(part, stimulus[part.driver], rate) for stimulus in stimuli]
        present = mean_power(courses, rate)
        factor = np.sqrt(power / present) if present > 0 else 0.0
        back = np.unique(part.latencies_s, return_inverse=True)[1]
        planted = [factor * part.weights[:, None] * course[back] for course in courses]
        total = [a + b for a, b in zip(total, planted, strict=True)] if total else planted
    return total
