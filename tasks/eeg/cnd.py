"""Reads EEG in the CND layout: ``dataStim.mat`` and one ``dataSubN.mat`` per subject (Di Liberto et al. 2024).

A subject's ``eeg`` has ``fs``, ``data`` (a cell per trial, samples x channels), ``chanlocs``, ``extChan`` with groups
of external channels (the mastoids, eye movements), and ``paddingStartSample``, the number of samples before the
stimulus starts. The trials are in the order of the stimuli in ``dataStim.mat``; the order of presentation is
``origTrialPosition``, which may be empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.audio.recording import Recording
from tasks.contract import OpenFile, TaskError
from tasks.eeg.external import external_groups, eye_channels, eye_names, mastoid_channels, rows_of
from tasks.eeg.matlab import cells_of, read_mat, scalar
from tasks.eeg.montage import positions_for
from tasks.eeg.pairing import pair_trials, read_trial_table
from tasks.eeg.trials import Floats, Sensors, Skipped, Subject, Trial

__all__ = ["Subject", "external_channels", "original_order", "read_sensors", "read_subject", "stimulus_durations"]

DURATION_TOLERANCE_S = 2.0
"""A recording may differ by this much from its stimulus in ``dataStim.mat``: renderings differ in how they fade out."""

_HEAD_RADIUS_M = 0.095


def _sample_rate(path: str, eeg: Mapping[str, Any]) -> float:
    rate = scalar(eeg, "fs")
    if rate is None or not np.isfinite(rate) or rate <= 0:
        raise TaskError(
            f"{path}: eeg.fs is {rate if rate is not None else 'missing'}: it must be the sampling rate in Hz"
        )
    return rate


def _padding(path: str, eeg: Mapping[str, Any]) -> int:
    """Samples before the stimulus starts; 0 where the file doesn't say."""
    padding = scalar(eeg, "paddingStartSample") or 0.0
    if not (np.isfinite(padding) and padding >= 0):
        raise TaskError(f"{path}: eeg.paddingStartSample is {padding:g}: it must be a number of samples, 0 or more")
    return int(padding)


def original_order(eeg: Mapping[str, Any], n_trials: int) -> list[int] | None:
    """The how-manieth presentation (from 1) each trial was, or None where the file doesn't say it of every trial."""
    try:
        found = np.asarray(eeg.get("origTrialPosition", ()), dtype=np.float64).ravel()
    except (TypeError, ValueError):
        return None
    whole = found.size == n_trials and bool((found == np.round(found)).all()) and np.unique(found).size == n_trials
    return [int(position) for position in found] if whole and n_trials else None


def _locations(eeg: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Channel locations as one dict per channel: the struct arrays of both readers in one form."""
    found = eeg.get("chanlocs")
    if isinstance(found, Mapping):
        labels = cells_of(found.get("labels", ()))
        columns = {key: _column(found[key], len(labels)) for key in ("X", "Y", "Z") if key in found}
        return [
            {"labels": label, **{key: values[k] for key, values in columns.items()}} for k, label in enumerate(labels)
        ]
    if found is None or isinstance(found, str):
        return []
    return [entry for entry in found if isinstance(entry, Mapping)]


def _column(value: Any, length: int) -> list[Any]:
    values = list(np.asarray(value, dtype=object).ravel())
    return values if len(values) == length else [None] * length


def _coordinate(entry: Mapping[str, Any], axis: str) -> float:
    value = np.asarray(entry.get(axis), dtype=object).ravel()
    try:
        return float(value[0]) if value.size else float("nan")
    except (TypeError, ValueError):
        return float("nan")


def read_sensors(eeg: Mapping[str, Any], n_channels: int) -> Sensors:
    """Names and positions of the channels.

    In EEGLAB's ``chanlocs`` X points to the nose and Y to the left ear. Coordinates are scaled to a head of 95 mm.
    Without usable coordinates, positions are those of the BioSemi cap if all names are known there or, without any
    names, if there are 64 channels; else they are unknown.
    """
    locations = _locations(eeg)
    if len(locations) != n_channels:
        names = tuple(f"E{number + 1}" for number in range(n_channels))
        caps = tuple(f"{'AB'[k // 32]}{k % 32 + 1}" for k in range(64))
        return Sensors(caps, positions_for(caps)) if n_channels == 64 else Sensors(names, None)
    names = tuple(str(entry.get("labels", f"E{k + 1}")) for k, entry in enumerate(locations))
    if len(set(names)) < n_channels:
        names = tuple(f"{name}-{k + 1}" for k, name in enumerate(names))
    x, y, z = (np.array([_coordinate(entry, axis) for entry in locations]) for axis in "XYZ")
    positions = np.column_stack([-y, x, z])
    radius = np.linalg.norm(positions, axis=1)
    if np.isfinite(radius).all() and (radius > 0).all():
        return Sensors(names, positions * (_HEAD_RADIUS_M / np.median(radius)))
    return Sensors(names, positions_for(names))


def stimulus_durations(path: str, open_file: OpenFile) -> list[float]:
    """Duration in seconds of each trial's stimulus, from the features in ``dataStim.mat``."""
    stim = read_mat(path, open_file, "stim")
    rate = scalar(stim, "fs")
    if "data" not in stim or rate is None or not rate > 0:
        raise TaskError(f"{path}: not a CND stimulus file: stim.data or stim.fs (Hz) is missing")
    data = stim["data"]
    first = data[0] if isinstance(data, np.ndarray) and data.dtype == object and data.ndim == 2 else data
    if isinstance(first, list) and first and isinstance(first[0], list):
        first = first[0]
    return [max(np.shape(np.atleast_1d(feature)), default=0) / rate for feature in cells_of(first)]


def _matrix(value: Any, n_channels: int | None) -> Floats:
    """One trial as float64 of shape (channels, samples); stored as samples x channels, or the other way round.

    What is no matrix of real numbers becomes an empty one.
    """
    try:
        matrix = np.atleast_2d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        matrix = np.zeros((0, 0))
    if matrix.ndim != 2:
        matrix = np.zeros((0, 0))
    if n_channels is not None and matrix.shape[0] == n_channels != matrix.shape[1]:
        return matrix
    return np.ascontiguousarray(matrix.T)


def external_channels(eeg: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Names of the external channels by the description of their group; numbers where they have no names."""
    return {group.description: group.names for group in external_groups(eeg, _locations)}


def _check(matrix: Floats, n_channels: int, stimulus: Recording, heard_s: float | None, whole: bool) -> str | None:
    """What is wrong with a trial, or None."""
    if matrix.size == 0:
        return "is empty, or no matrix of numbers (samples x channels)"
    if matrix.shape[0] != n_channels:
        return f"has {matrix.shape[0]} channels, and most trials have {n_channels}"
    end_s = (stimulus.start_sample + stimulus.n_samples) / stimulus.sample_rate_hz
    beyond_s = 0.0 if heard_s is None else end_s - heard_s
    if beyond_s > DURATION_TOLERANCE_S or (whole and -beyond_s > DURATION_TOLERANCE_S):
        return (
            f"its stimulus lasts {heard_s:.1f} s in the stimulus file but {stimulus.id} ends at {end_s:.1f} s: "
            "is it paired with the wrong recording? give cnd.trials"
        )
    return None


def read_subject(
    path: str,
    stimulus_path: str | None,
    trials_path: str | None,
    stimuli: Sequence[Recording],
    whole: bool,
    open_file: OpenFile,
) -> Subject:
    """One subject's trials, paired with the recordings that were heard.

    The whole file is held in memory as float64: 1.2 GB for 30 trials of 150 s at 512 Hz with 64 channels, and some
    more while it is read.

    Parameters
    ----------
    path, stimulus_path, trials_path : str
        ``dataSubN.mat``; ``dataStim.mat`` and the table of trials, or None.
    stimuli : sequence of Recording
        The recordings that may have been heard.
    whole : bool
        Whether they are whole; otherwise they are parts of what was heard, from their ``start_sample`` on.
    open_file : callable
        Opens a path or URL.

    Returns
    -------
    Subject
        Trials in the file's order; those that can't be used are named in ``skipped``.

    Raises
    ------
    TaskError
        If the file, or what every trial needs (its sampling rate, the pairing), is unusable.
    """
    eeg = read_mat(path, open_file, "eeg")
    rate = _sample_rate(path, eeg)
    cells = cells_of(eeg.pop("data", []))
    n_trials = len(cells)
    if not cells:
        raise TaskError(f"{path}: not a CND file: eeg.data has no trials")
    n_located = len(_locations(eeg)) or None
    matrices = [_matrix(cells.pop(0), n_located) for _ in range(n_trials)]
    counted = Counter(len(matrix) for matrix in matrices if matrix.size).most_common(1)
    if not counted:
        raise TaskError(f"{path}: not a CND file: no trial of eeg.data is a matrix of numbers (samples x channels)")
    n_channels = counted[0][0]
    durations = stimulus_durations(stimulus_path, open_file) if stimulus_path else []
    table = read_trial_table(trials_path, open_file) if trials_path else None
    try:
        pairs, skipped = pair_trials(n_trials, stimuli, table)
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from None
    if durations and len(durations) != n_trials:
        skipped.append(Skipped("-", f"{len(durations)} trials in the stimulus file, {n_trials} in the subject's"))
        durations = []
    groups = [group for group in external_groups(eeg, _locations) if len(group.trials) == n_trials]
    mastoids, eyes, eye_labels = mastoid_channels(groups), eye_channels(groups), eye_names(groups)
    padding = _padding(path, eeg)
    order = original_order(eeg, n_trials)
    trials: list[Trial] = []
    repetitions: Counter[str] = Counter()
    for number, stimulus in sorted(pairs.items()):
        repetition = repetitions[stimulus.id]
        repetitions[stimulus.id] += 1
        matrix = matrices[number - 1]
        wrong = _check(matrix, n_channels, stimulus, durations[number - 1] if durations else None, whole)
        if wrong:
            skipped.append(Skipped(str(number), wrong, stimulus.id))
            continue
        n_samples = matrix.shape[1]
        start = padding + round(rate * stimulus.start_sample / stimulus.sample_rate_hz)
        eog = [rows_of(group, number - 1, [channel], n_samples) for group, channel in eyes]
        present = [row for row in eog if row is not None]
        trials.append(
            Trial(
                str(number),
                stimulus.id,
                repetition,
                matrix,
                rows_of(mastoids[0], number - 1, mastoids[1], n_samples) if mastoids else None,
                rate,
                start,
                stimulus.duration_s,
                order[number - 1] if order else None,
                eog=np.concatenate(present) if present else None,
                eog_names=tuple(name for name, row in zip(eye_labels, eog, strict=True) if row is not None),
            )
        )
    return Subject(trials, read_sensors(eeg, n_channels), skipped, external_channels(eeg))
