"""Zero-phase filters and exact resampling."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import mne
from scipy.signal import resample_poly

from tasks.contract import TaskError
from tasks.eeg.preprocessing_config import PreprocessingConfig
from tasks.eeg.trials import Floats, Trial

SHORTER_BY_MAX_S = 0.1
"""An EEG that ends this much before its recording does is still used; one that ends earlier is not."""

_MAX_RATIO = 4096


@lru_cache(maxsize=16)
def _butterworth(rate: float, edge_hz: float, kind: Literal["highpass", "lowpass"], order: int) -> Any:
    design = {"order": order, "ftype": "butter", "output": "sos"}
    return mne.filter.construct_iir_filter(
        design, f_pass=[edge_hz], sfreq=rate, btype=kind, return_copy=False, verbose="ERROR"
    )


def band_pass(data: Floats, rate: float, band_hz: tuple[float | None, float | None], order: int = 2) -> Floats:
    """Zero-phase Butterworth high-pass, then low-pass, each of order `order` and run in both directions.

    Parameters
    ----------
    data : ndarray, shape (C, samples)
        Any unit; finite.
    rate : float
        Samples per second.
    band_hz : (low, high)
        Edges in Hz, where the gain is one half. A side that is None, or at or above half of `rate`, is left out.
    order : int
        Of each side's filter, before it is run backwards too.

    Returns
    -------
    ndarray of float64, shape (C, samples)
        Ends are extended by odd reflection before filtering.
    """
    low, high = band_hz
    kinds: list[tuple[float | None, Literal["highpass", "lowpass"]]] = [(low, "highpass"), (high, "lowpass")]
    result = data
    for edge, kind in kinds:
        if edge is not None and edge < rate / 2:
            params = _butterworth(rate, edge, kind, order)
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
    resampled, zero = _resampled(data, start, rate, new_rate)
    return resampled[:, zero:]


def _resampled(data: Floats, start: int, rate: float, new_rate: int) -> tuple[Floats, int]:
    """As `resample_from`, with what lies before old sample `start`, and that sample's new index."""
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
        return data, start
    whole = start // down
    resampled: Floats = resample_poly(data[:, start - whole * down :], up, down, axis=1, padtype="antireflect")
    return resampled, whole * up


def n_samples_of(trial: Trial, rate: int) -> int:
    """Samples of the cleaned trial: as many as fit in both the recording and the EEG."""
    heard = trial.data.shape[1] - trial.start_sample
    missing_s = trial.duration_s - heard / trial.sample_rate_hz
    if missing_s > SHORTER_BY_MAX_S:
        raise TaskError(
            f"the EEG ends {missing_s:.2f} s before {trial.recording} does "
            f"({heard / trial.sample_rate_hz:.2f} s of {trial.duration_s:.2f} s; up to {SHORTER_BY_MAX_S} s is allowed)"
        )
    return whole_samples(min(trial.duration_s, heard / trial.sample_rate_hz), rate)


def whole_samples(duration_s: float, rate: int) -> int:
    """Samples at `rate` that fit in a duration: .29 s at 100 Hz are 29, not the 28 of its nearest float."""
    return int(Fraction(duration_s).limit_denominator(10**7) * rate)


def in_band(data: Floats, trial: Trial, config: PreprocessingConfig) -> Floats:
    """Signals of a trial, filtered and resampled as the config says, from the recording's first instant on.

    Parameters
    ----------
    data : ndarray, shape (C, samples)
        Finite, at the trial's rate.
    trial : Trial
        Its rate and start.
    config : PreprocessingConfig
        Band, order of the filters, new rate, and whether the high-pass comes before or after resampling.

    Returns
    -------
    ndarray of float64, shape (C, samples at the new rate)
    """
    rate, (low, high) = trial.sample_rate_hz, config.band_hz
    if config.filters == "before_resampling":
        filtered = band_pass(data, rate, config.band_hz, config.order)
        return resample_from(filtered, trial.start_sample, rate, config.sample_rate_hz)
    filtered = band_pass(data, rate, (None, high), config.order)
    resampled, zero = _resampled(filtered, trial.start_sample, rate, config.sample_rate_hz)
    return band_pass(resampled, config.sample_rate_hz, (low, None), config.order)[:, zero:]
