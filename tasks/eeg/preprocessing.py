"""Cleans one trial: band-pass, exact resampling, bad channels, reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import mne
import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from tasks.contract import TaskError
from tasks.eeg.config import PreprocessingConfig
from tasks.eeg.trials import Floats, Sensors, Trial

Bools = npt.NDArray[np.bool_]

ORDER = 2
"""Of each side's Butterworth filter, run forwards and backwards (Di Liberto et al. 2020)."""

SHORTER_BY_MAX_S = 0.1
"""An EEG that ends this much before its recording does is still used; one that ends earlier is not."""

SATURATED_RUN = 5
"""So many equal samples at a channel's largest or smallest value are an amplifier at its limit."""

_MAX_RATIO = 4096


@dataclass(frozen=True)
class Clean:
    """A cleaned trial.

    Attributes
    ----------
    data : ndarray of float64, shape (T, C)
        Sample k is at ``k / sample_rate_hz`` of the recording.
    bads : tuple of str
        Channels found bad.
    unrepaired : tuple of str
        Those of them that could not be interpolated, because positions are unknown.
    why : dict of str to str
        By bad channel, the first that holds: not numbers or flat, marked bad, saturated, deviant.
    """

    data: Floats
    bads: tuple[str, ...]
    unrepaired: tuple[str, ...]
    why: dict[str, str] = field(default_factory=dict)


@lru_cache(maxsize=16)
def _butterworth(rate: float, edge_hz: float, kind: Literal["highpass", "lowpass"]) -> Any:
    design = {"order": ORDER, "ftype": "butter", "output": "sos"}
    return mne.filter.construct_iir_filter(
        design, f_pass=[edge_hz], sfreq=rate, btype=kind, return_copy=False, verbose="ERROR"
    )


def band_pass(data: Floats, rate: float, band_hz: tuple[float, float]) -> Floats:
    """Zero-phase Butterworth high-pass, then low-pass, each of order 2 and run in both directions.

    Parameters
    ----------
    data : ndarray, shape (C, samples)
        Any unit; finite.
    rate : float
        Samples per second.
    band_hz : (low, high)
        Edges in Hz, where the gain is one half. A `high` at or above half of `rate` leaves the low-pass out.

    Returns
    -------
    ndarray of float64, shape (C, samples)
        Ends are extended by odd reflection before filtering.
    """
    low, high = band_hz
    kinds: list[tuple[float, Literal["highpass", "lowpass"]]] = [(low, "highpass"), (high, "lowpass")]
    result = data
    for edge, kind in kinds:
        if edge < rate / 2:
            params = _butterworth(rate, edge, kind)
            edges = (edge, None) if kind == "highpass" else (None, edge)
            result = mne.filter.filter_data(
                result, rate, *edges, method="iir", iir_params=params, phase="zero", verbose="ERROR"
            )
    return result


def resample_from(data: Floats, start: int, rate: float, new_rate: int) -> Floats:
    """Resample so that old sample `start` becomes sample 0 of the result, exactly.

    Parameters
    ----------
    data : ndarray, shape (C, samples)
        Signals at `rate`.
    start : int
        Index of the instant 0.
    rate, new_rate : float, int
        Samples per second before and after; their ratio must be one of integers up to 4096.

    Returns
    -------
    ndarray of float64, shape (C, samples after `start`)

    Raises
    ------
    TaskError
        If the ratio of the rates is not one of small integers, or `rate` is below `new_rate`.

    Notes
    -----
    ``mne.filter.resample`` fits a whole number of samples to the whole input, so its rate is off by up to half a sample
    over the length of the trial when that is not a multiple of the ratio; hence scipy's polyphase filter.
    """
    ratio = Fraction(new_rate) / Fraction(rate).limit_denominator(1000)
    up, down = ratio.numerator, ratio.denominator
    if up > down:
        raise TaskError(
            f"sampling rate {rate:g} Hz is below preprocessing.sample_rate_hz ({new_rate}): lower the latter"
        )
    if max(up, down) > _MAX_RATIO:
        raise TaskError(
            f"sampling rate {rate!r} Hz cannot be brought to {new_rate} Hz exactly: the ratio must be one of integers "
            f"up to {_MAX_RATIO}; resample the file to a whole rate first"
        )
    if up == down:
        return data[:, start:]
    whole = start // down
    resampled: Floats = resample_poly(data[:, start - whole * down :], up, down, axis=1, padtype="antireflect")
    return resampled[:, whole * up :]


def _n_samples(trial: Trial, rate: int) -> int:
    """Samples of the cleaned trial: as many as fit in both the recording and the EEG."""
    heard = trial.data.shape[1] - trial.start_sample
    missing_s = trial.duration_s - heard / trial.sample_rate_hz
    if missing_s > SHORTER_BY_MAX_S:
        raise TaskError(
            f"the EEG ends {missing_s:.2f} s before {trial.recording} does "
            f"({heard / trial.sample_rate_hz:.2f} s of {trial.duration_s:.2f} s; up to {SHORTER_BY_MAX_S} s is allowed)"
        )
    exact = Fraction(min(trial.duration_s, heard / trial.sample_rate_hz)).limit_denominator(10**7)
    return int(exact * rate)


def _dead(data: Floats) -> Bools:
    """Channels with a sample that is not a number, or with one value throughout."""
    with np.errstate(invalid="ignore"):
        return np.asarray(~np.isfinite(data).all(axis=1) | (np.ptp(data, axis=1) == 0))


def saturated(data: Floats) -> Floats:
    """Share of each channel's samples that lie in stretches of 5 or more at its largest or smallest value.

    Parameters
    ----------
    data : ndarray, shape (C, samples)
        As recorded, before any filter; channels that are flat or not finite get 0.

    Returns
    -------
    ndarray of float64, shape (C,)
    """
    shares = np.zeros(len(data))
    for place, values in enumerate(data):
        low, high = values.min(), values.max()
        if not low < high:  # flat, or with NaN
            continue
        for limit in (low, high):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], values == limit, [0]]).astype(np.int8)))
            lengths = edges[1::2] - edges[::2]
            shares[place] += lengths[lengths >= SATURATED_RUN].sum() / values.size
    return shares


def _deviant(data: Floats, dead: Bools, ratio: float) -> Bools:
    """Channels whose standard deviation is more than `ratio` times, or less than 1/`ratio` of, the median one."""
    deviation = data.std(axis=1)
    median = np.median(deviation[~dead])
    return np.asarray(~dead & ((deviation > ratio * median) | (deviation < median / ratio)))


def _told_by_itself(trial: Trial, sensors: Sensors, config: PreprocessingConfig) -> dict[str, Bools]:
    """Channels that are bad however their filtered course compares with the others'."""
    marked = np.array([name in trial.marked_bads for name in sensors.names])
    if config.saturated_share is None:
        return {"marked bad": marked}
    return {"marked bad": marked, "saturated": saturated(trial.data) > config.saturated_share}


def _interpolated(data: Floats, bad: Bools, sensors: Sensors, rate: int) -> Floats:
    """Spherical splines (Perrin et al. 1989) from the good channels."""
    info = mne.create_info(list(sensors.names), rate, "eeg", verbose="ERROR")
    raw = mne.io.RawArray(data, info, verbose="ERROR")
    for channel, position in zip(
        raw.info["chs"], sensors.positions if sensors.positions is not None else (), strict=True
    ):
        channel["loc"][:3] = position
    raw.info["bads"] = [name for name, flag in zip(sensors.names, bad, strict=True) if flag]
    raw.interpolate_bads(reset_bads=True, origin=(0.0, 0.0, 0.0), verbose="ERROR")
    repaired: Floats = raw.get_data()
    return repaired


def _referenced(data: Floats, good: Bools, mastoids: Floats | None, reference: str | None) -> Floats:
    if reference == "average":
        if len(data) == 1:
            raise TaskError("one channel less its own average is nothing; use preprocessing.reference: mastoids")
        return np.asarray(data - data[good].mean(axis=0))
    if reference == "mastoids":
        if mastoids is None:
            raise TaskError(
                "no mastoid channels (extChan) are in the file, and preprocessing.reference is mastoids; use average"
            )
        usable = ~_dead(mastoids)
        if not usable.any():
            raise TaskError("both mastoid channels are flat or not numbers; use preprocessing.reference: average")
        return np.asarray(data - mastoids[usable].mean(axis=0))
    return data


def clean(
    trial: Trial,
    sensors: Sensors,
    config: PreprocessingConfig,
    reference: Literal["average", "mastoids"] | None,
    repair: bool = True,
) -> Clean:
    """Clean one trial; every step but the finding of bad channels is linear.

    Parameters
    ----------
    trial : Trial
        As recorded, padding included.
    sensors : Sensors
        Its C channels.
    config : PreprocessingConfig
        Band, rate, and what makes a channel bad.
    reference : {"average", "mastoids"} or None
        Subtracted at the end; None leaves channels as they are.
    repair : bool
        Whether to look for bad channels and interpolate them.

    Returns
    -------
    Clean

    Raises
    ------
    TaskError
        If the trial can't be used: the EEG is too short, more than half of the channels are bad, or the reference is
        missing.
    """
    n_samples = _n_samples(trial, config.sample_rate_hz)
    dead = _dead(trial.data)
    if dead.all():
        raise TaskError("every channel is flat or holds values that are not numbers")
    both = [np.where(dead[:, None], 0.0, trial.data)]
    if trial.mastoids is not None and reference == "mastoids":
        both.append(np.nan_to_num(np.where(_dead(trial.mastoids)[:, None], 0.0, trial.mastoids)))
    filtered = band_pass(np.concatenate(both), trial.sample_rate_hz, config.band_hz)
    filtered = resample_from(filtered, trial.start_sample, trial.sample_rate_hz, config.sample_rate_hz)[:, :n_samples]
    data, mastoids = filtered[: len(dead)], filtered[len(dead) :]
    faults = {"not numbers or flat": dead}
    if repair:
        faults |= _told_by_itself(trial, sensors, config)
        known = np.logical_or.reduce(list(faults.values()))
        if known.all():
            raise TaskError("every channel is flat, saturated, marked bad or holds values that are not numbers")
        faults["deviant"] = _deviant(data, known, config.bad_channel_std_ratio)
    bad = np.logical_or.reduce(list(faults.values()))
    if 2 * int(bad.sum()) > len(bad):
        raise TaskError(f"{int(bad.sum())} of {len(bad)} channels are bad, more than half")
    mendable = sensors.positions is not None
    if bad.any() and mendable:
        data = _interpolated(data, bad, sensors, config.sample_rate_hz)
    good = ~bad | mendable
    data = _referenced(data, good, mastoids if len(mastoids) else None, reference)
    names = tuple(name for name, flag in zip(sensors.names, bad, strict=True) if flag)
    why = {
        name: next(fault for fault, found in faults.items() if found[place])
        for place, name in enumerate(sensors.names)
        if bad[place]
    }
    return Clean(np.ascontiguousarray(data.T), names, () if mendable else names, why)
