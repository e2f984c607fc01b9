"""Which channels of a trial can't be used and why, and what stands for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mne
import numpy as np
import numpy.typing as npt

from tasks.contract import TaskError
from tasks.eeg.preprocessing_config import PreprocessingConfig
from tasks.eeg.trials import Floats, Sensors, Trial

Bools = npt.NDArray[np.bool_]
Faults = Mapping[str, Bools]
"""By what is wrong, which channels it holds of, shape (C,)."""

SATURATED_RUN = 5
"""So many equal samples at a channel's largest or smallest value are an amplifier at its limit."""


def bridged(data: Floats, longest: int) -> Floats:
    """Straight lines over stretches of up to `longest` samples that are not numbers; at the ends the nearest value.

    Parameters
    ----------
    data : ndarray, shape (C, samples)
        As recorded.
    longest : int
        Samples; channels without a number stay as they are.

    Returns
    -------
    ndarray of float64, shape (C, samples)
        `data` itself where there is nothing to bridge.
    """
    known = np.isfinite(data)
    if longest < 1 or known.all():
        return data
    result = data.copy()
    for place in np.flatnonzero(~known.all(axis=1) & known.any(axis=1)):
        for first, last in runs(~known[place]):
            if last - first <= longest:
                there = np.flatnonzero(known[place])
                result[place, first:last] = np.interp(np.arange(first, last), there, data[place, there])
    return result


def runs(flags: Bools) -> npt.NDArray[np.intp]:
    """First sample of every stretch of true, and the one after its last; shape (n, 2)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags, [0]]).astype(np.int8)))
    return edges.reshape(-1, 2)


def not_numbers(data: Floats) -> Bools:
    """Channels with a sample that is not a number."""
    return np.asarray(~np.isfinite(data).all(axis=1))


def dead(data: Floats) -> Bools:
    """Channels with a sample that is not a number, or with one value throughout."""
    with np.errstate(invalid="ignore"):
        return np.asarray(not_numbers(data) | (np.ptp(data, axis=1) == 0))


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
            first, last = runs(values == limit).T
            lengths = last - first
            shares[place] += lengths[lengths >= SATURATED_RUN].sum() / values.size
    return shares


def told_by_itself(trial: Trial, data: Floats, sensors: Sensors, config: PreprocessingConfig, repair: bool) -> Faults:
    """Channels that are bad however their filtered course compares with the others'.

    Without `repair` only what can't be filtered at all. `data` are the trial's, gaps bridged.
    """
    lost = not_numbers(data)
    faults = {"not numbers": lost, "flat": dead(data) & ~lost}
    if repair:
        faults["marked bad"] = np.array([name in trial.marked_bads for name in sensors.names])
        if config.saturated_share is not None:
            faults["saturated"] = saturated(data) > config.saturated_share
    return faults


def any_of(faults: Faults) -> Bools:
    """Channels with at least one fault."""
    return np.asarray(np.logical_or.reduce(list(faults.values())))


def deviant(deviations: Floats, known: Bools, sensors: Sensors, config: PreprocessingConfig) -> Faults:
    """Channels whose standard deviation is far from that of all channels, or of their neighbours.

    Parameters
    ----------
    deviations : ndarray, shape (C,)
        Standard deviations.
    known : ndarray of bool, shape (C,)
        Channels known to be bad; they are neither judged nor compared with.
    sensors : Sensors
        With positions, where neighbours are asked for.
    config : PreprocessingConfig
        `bad_channels` and `bad_channel_std_ratio`.

    Returns
    -------
    mapping
        ``noisy`` and ``quiet``, each of shape (C,).

    Raises
    ------
    TaskError
        If all channels are bad already, or neighbours are asked for and no positions are known.
    """
    if known.all():
        raise TaskError("every channel is flat, saturated, marked bad or holds values that are not numbers")
    if config.bad_channels.against == "neighbours":
        if sensors.positions is None:
            raise TaskError(
                "which channels are neighbours is unknown, because their positions are, or they are those of MEG; use "
                "preprocessing.bad_channels.against: all"
            )
        usual = _of_neighbours(deviations, known, sensors.positions, config.bad_channels.n_neighbours)
    else:
        usual = np.full(len(deviations), np.median(deviations[~known]))
    ratio = config.bad_channel_std_ratio
    return {
        "noisy": np.asarray(~known & (deviations > ratio * usual)),
        "quiet": np.asarray(~known & (deviations < usual / ratio)),
    }


def _of_neighbours(deviations: Floats, known: Bools, positions: Floats, n: int) -> Floats:
    """Median over the `n` nearest channels that aren't known to be bad; its own value where there is none."""
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    distance[:, known] = np.inf
    nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(n, int((~known).sum()) - 1)]
    return np.median(deviations[nearest], axis=1) if nearest.shape[1] else deviations


def pooled(data: Sequence[Floats], known: Sequence[Bools]) -> Floats:
    """Standard deviation of each channel over all trials in which it isn't known to be bad; 0 where it always is.

    Parameters
    ----------
    data, known : sequences of ndarray, shapes (C, samples) and (C,)
        Every trial and its bad channels; means are each trial's own.
    """
    weights = np.stack([np.where(bad, 0, part.shape[1]) for part, bad in zip(data, known, strict=True)])
    squares = (weights * np.stack([part.var(axis=1) for part in data])).sum(axis=0)
    return np.asarray(np.sqrt(squares / np.maximum(weights.sum(axis=0), 1)))


def interpolated(data: Floats, bad: Bools, sensors: Sensors, rate: int) -> Floats:
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
