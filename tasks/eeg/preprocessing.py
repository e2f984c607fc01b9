"""Cleans EEG: band-pass, exact resampling, bad channels, eyes, reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tasks.contract import TaskError
from tasks.eeg import masks
from tasks.eeg.bad_channels import (
    Bools,
    any_of,
    bridged,
    dead,
    deviant,
    interpolated,
    pooled,
    told_by_itself,
)
from tasks.eeg.filtering import band_pass, in_band, n_samples_of
from tasks.eeg.ica import FIT_FROM_HZ, eyes_of, without_eyes
from tasks.eeg.preprocessing_config import IcaConfig, PreprocessingConfig
from tasks.eeg.trials import Floats, Sensors, Trial

Reference = Literal["average", "mastoids", "none"] | tuple[str, ...] | None
"""What is subtracted; a tuple names channels, None is ``none``."""


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
        By bad channel, the first that holds: not numbers, flat, marked bad, saturated, noisy, quiet.
    not_numbers : dict of str to int
        By channel, how many samples weren't numbers.
    bridged : tuple of str
        Channels in which all of these were bridged.
    one_sided : str or None
        What is lacking of the reference in this trial, where the rest of it stands for all.
    """

    data: Floats
    bads: tuple[str, ...]
    unrepaired: tuple[str, ...]
    why: dict[str, str] = field(default_factory=dict)
    not_numbers: dict[str, int] = field(default_factory=dict)
    bridged: tuple[str, ...] = ()
    one_sided: str | None = None


@dataclass(frozen=True)
class _Filtered:
    """A trial that is filtered, resampled and cut, before its channels are compared."""

    trial: Trial
    data: Floats
    mastoids: Floats | None
    eog: Floats | None
    faults: Mapping[str, Bools]
    not_numbers: dict[str, int]
    bridged: tuple[str, ...]


def _filtered(trial: Trial, sensors: Sensors, config: PreprocessingConfig, repair: bool) -> _Filtered:
    n_samples = n_samples_of(trial, config.sample_rate_hz)
    raw = bridged(trial.data, int(config.gap_max_s * trial.sample_rate_hz))
    lost = dead(raw)
    if lost.all():
        raise TaskError("every channel is flat or holds values that are not numbers")
    rows = [np.where(lost[:, None], 0.0, raw)]
    others = [trial.mastoids if config.reference == "mastoids" else None, trial.eog if config.ica and repair else None]
    for other in others:
        if other is not None:
            rows.append(np.nan_to_num(np.where(dead(other)[:, None], 0.0, other)))
    parts = np.split(in_band(np.concatenate(rows), trial, config)[:, :n_samples], np.cumsum([len(r) for r in rows]))
    data, rest = parts[0], iter(parts[1:])
    mastoids, eog = (None if other is None else next(rest) for other in others)
    counts = (~np.isfinite(trial.data)).sum(axis=1)
    broken = {sensors.names[place]: int(counts[place]) for place in np.flatnonzero(counts)}
    mended = tuple(name for name in broken if np.isfinite(raw[sensors.names.index(name)]).all())
    faults = told_by_itself(trial, raw, sensors, config, repair)
    return _Filtered(trial, data, mastoids, eog, faults, broken, mended)


def _deviants(filtered: Sequence[_Filtered], sensors: Sensors, config: PreprocessingConfig) -> list[Any]:
    """Of every trial, the channels that deviate in it, or in the subject; or why that can't be said."""
    known = [any_of(part.faults) for part in filtered]
    if config.bad_channels.per == "trial":
        deviations = [_heard(part, config).std(axis=1) for part in filtered]
        return [_tried(deviant, *pair, sensors, config) for pair in zip(deviations, known, strict=True)]
    usable = [place for place, bad in enumerate(known) if 2 * int(bad.sum()) <= len(bad)] or range(len(known))
    data = [_heard(filtered[place], config) for place in usable]
    together = pooled(data, [known[place] for place in usable])
    everywhere = np.asarray(np.logical_and.reduce([known[place] for place in usable]))
    return [_tried(deviant, together, everywhere, sensors, config)] * len(filtered)


def _unmarked(part: _Filtered, config: PreprocessingConfig) -> Bools:
    """Samples that no annotation calls bad; all of them where that leaves none."""
    n_samples = part.data.shape[1]
    marked = np.zeros(n_samples, dtype=np.bool_)
    spans = masks.of_seconds([span[:2] for span in part.trial.bad_spans], config.sample_rate_hz, n_samples)
    marked[masks.indices(spans)] = True
    return np.asarray(~marked | marked.all())


def _heard(part: _Filtered, config: PreprocessingConfig) -> Floats:
    """A trial's data without what annotations call bad."""
    return part.data[:, _unmarked(part, config)] if part.trial.bad_spans else part.data


def _tried(step: Any, *given: Any) -> Any:
    """What a step gives, or the error by which it refuses."""
    try:
        return step(*given)
    except TaskError as error:
        return error


def _bad(part: _Filtered, deviants: Any) -> dict[str, Bools]:
    """All faults of a trial's channels; raises if too many have one."""
    if isinstance(deviants, TaskError):
        raise deviants
    faults = {**part.faults, **deviants}
    bad = any_of(faults)
    if 2 * int(bad.sum()) > len(bad):
        raise TaskError(f"{int(bad.sum())} of {len(bad)} channels are bad, more than half")
    return faults


def _referenced(data: Floats, good: Bools, part: _Filtered, reference: Reference, sensors: Sensors) -> Floats:
    if reference == "average":
        if len(data) == 1:
            raise TaskError("one channel less its own average is nothing; use preprocessing.reference: mastoids")
        return np.asarray(data - data[good].mean(axis=0))
    if reference == "mastoids":
        if part.mastoids is None:
            raise TaskError(
                "no mastoid channels (extChan) are in the file, and preprocessing.reference is mastoids; use average"
            )
        usable = ~dead(part.mastoids)
        if not usable.any():
            raise TaskError("both mastoid channels are flat or not numbers; use preprocessing.reference: average")
        return np.asarray(data - part.mastoids[usable].mean(axis=0))
    if isinstance(reference, tuple):
        named = good & np.isin(sensors.names, reference)
        if not named.any():
            raise TaskError(f"preprocessing.reference: {', '.join(reference)}: bad, and without positions not mended")
        return np.asarray(data - data[named].mean(axis=0))
    return data


def _one_sided(good: Bools, part: _Filtered, reference: Reference, sensors: Sensors) -> str | None:
    """What is lacking of the reference; None where nothing is."""
    if reference == "mastoids" and part.mastoids is not None and dead(part.mastoids).any():
        return "one of the mastoids is flat or not numbers"
    if isinstance(reference, tuple):
        lost = [name for name, flag in zip(sensors.names, good, strict=True) if name in reference and not flag]
        return f"{', '.join(lost)} of it can't be used" if lost else None
    return None


def _need_names(key: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    """Refuse channels under ``preprocessing.<key>`` that there aren't."""
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise TaskError(
            f"preprocessing.{key}: there is no channel {', '.join(unknown)}; allowed are {', '.join(names)}"
        )


def clean_all(
    trials: Sequence[Trial],
    sensors: Sensors,
    config: PreprocessingConfig,
    reference: Reference,
    repair: bool = True,
) -> tuple[list[Clean | TaskError], dict[str, Any] | None]:
    """Clean one subject's trials; every step but the finding of bad channels and of the eyes' components is linear.

    Parameters
    ----------
    trials : sequence of Trial
        As recorded, padding included.
    sensors : Sensors
        Their C channels.
    config : PreprocessingConfig
        Band, rate, what makes a channel bad, ICA.
    reference : str, tuple of str or None
        Subtracted at the end; None leaves channels as they are.
    repair : bool
        Whether to look for bad channels, interpolate them, and take out the eyes.

    Returns
    -------
    found, ica : list and dict or None
        Of every trial what became of it, or why it can't be used (the EEG is too short, more than half of the channels
        are bad, the reference is missing); and what was removed as eyes.

    Raises
    ------
    TaskError
        If a channel of the config isn't there, or ICA is asked for and impossible.
    """
    if isinstance(reference, tuple):
        _need_names("reference", reference, sensors.names)
    if repair and config.channels is not None:
        _need_names("channels", config.channels, sensors.names)
    config = config.model_copy(update={"reference": reference or "none"})
    found: list[Any] = [_tried(_filtered, trial, sensors, config, repair) for trial in trials]
    places = [place for place, part in enumerate(found) if isinstance(part, _Filtered)]
    parts = {place: found[place] for place in places}
    deviants = _deviants(list(parts.values()), sensors, config) if repair and parts else [{}] * len(parts)
    faults: dict[int, dict[str, Bools]] = {}
    mended: dict[int, Floats] = {}
    for place, own in zip(places, deviants, strict=True):
        judged = _tried(_bad, parts[place], own)
        if isinstance(judged, TaskError):
            found[place] = judged
            continue
        faults[place], bad, data = judged, any_of(judged), parts[place].data
        repairable = bad.any() and sensors.positions is not None
        mended[place] = interpolated(data, bad, sensors, config.sample_rate_hz) if repairable else data
    told = None
    if config.ica is not None and repair and mended:
        used = [(parts[place], data, any_of(faults[place])) for place, data in mended.items()]
        free, told = _free_of_eyes(used, sensors, config, config.ica)
        mended = dict(zip(mended, free, strict=True))
    for place, data in mended.items():
        found[place] = _tried(_finished, parts[place], data, faults[place], sensors, reference)
    return found, told


def _free_of_eyes(
    trials: Sequence[tuple[_Filtered, Floats, Bools]], sensors: Sensors, config: PreprocessingConfig, ica: IcaConfig
) -> tuple[list[Floats], dict[str, Any]]:
    """The trials less the eyes' components; channels that are bad and not interpolated take no part.

    Of each trial what it was, its mended data, and which channels were bad. Components are fitted above 1 Hz and
    outside of what annotations call bad.
    """
    bads = [bad for _, _, bad in trials]
    used = np.full(len(sensors.names), True) if sensors.positions is not None else ~np.logical_or.reduce(bads)
    names = [name for name, flag in zip(sensors.names, used, strict=True) if flag]
    good = [_unmarked(part, config) for part, _, _ in trials]

    def fitted(data: Floats, flags: Bools) -> Floats:
        slow = config.band_hz[0] < FIT_FROM_HZ < config.sample_rate_hz / 2
        return (band_pass(data, config.sample_rate_hz, (FIT_FROM_HZ, None)) if slow else data)[:, flags]

    on = [fitted(data[used], flags) for (_, data, _), flags in zip(trials, good, strict=True)]
    eog = [
        None if part.eog is None else fitted(part.eog, flags) for (part, _, _), flags in zip(trials, good, strict=True)
    ]
    eyes = eyes_of(on, eog, trials[0][0].trial.eog_names, names, ica)
    always = np.asarray(np.logical_and.reduce(bads))[used]
    free, told = without_eyes([data[used] for _, data, _ in trials], on, eyes, always, config.sample_rate_hz, ica)
    result = []
    for (_, whole, _), part in zip(trials, free, strict=True):
        result.append(whole.copy())
        result[-1][used] = part
    return result, told


def _finished(
    part: _Filtered, data: Floats, faults: Mapping[str, Bools], sensors: Sensors, reference: Reference
) -> Clean:
    bad, mendable = any_of(faults), sensors.positions is not None
    good = ~bad | mendable
    data, lacking = _referenced(data, good, part, reference, sensors), _one_sided(good, part, reference, sensors)
    names = tuple(name for name, flag in zip(sensors.names, bad, strict=True) if flag)
    why = {
        name: next(fault for fault, found in faults.items() if found[place])
        for place, name in enumerate(sensors.names)
        if bad[place]
    }
    unrepaired = () if mendable else names
    return Clean(np.ascontiguousarray(data.T), names, unrepaired, why, part.not_numbers, part.bridged, lacking)


def clean(
    trial: Trial, sensors: Sensors, config: PreprocessingConfig, reference: Reference, repair: bool = True
) -> Clean:
    """Clean one trial by itself: see `clean_all`.

    Raises
    ------
    TaskError
        If the trial can't be used.
    """
    (found,), _ = clean_all([trial], sensors, config, reference, repair)
    if isinstance(found, TaskError):
        raise found
    return found
