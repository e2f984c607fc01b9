"""Features of one's own: read from csv or npz, and brought to the EEG's rate.

A value belongs to an instant of its recording: the time of its row, or ``k / sample_rate_hz`` of an array's entry k.
Nothing is filled in but half a second at a recording's ends; what is missing is named by file and stimulus.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from tasks.alignment import impulses
from tasks.audio.config import SAMPLE_RATE_HZ
from tasks.audio.recording import Recording
from tasks.contract import OpenFile, TaskError
from tasks.eeg.feature_config import Form, OwnFeature
from tasks.eeg.filtering import resample_from
from tasks.eeg.pairing import aliases_of, heard_by_name

Floats = npt.NDArray[np.float64]

TIMES = ("time_s", "Time")
"""What the column of times may be called; tables of IC have the second."""

RATE = "sample_rate_hz"
ROUNDING_S = 1e-4
"""A time this little after a sample counts as that sample's: tables have rounded times."""

ENDS_S = 0.5
"""So much may lack at each end of a recording; the nearest value stands there."""


@dataclass(frozen=True)
class Own:
    """Values of one stimulus: `times_s` (n,) rising, `values` (n, F); `where` names the file for messages.

    `rate_hz` is None where the steps of time aren't equal.
    """

    where: str
    times_s: Floats
    values: Floats
    columns: tuple[str, ...]
    rate_hz: float | None = None


def read_own(
    asked: OwnFeature, places: Mapping[str, str], stimuli: Sequence[Recording], rate: int, open_file: OpenFile
) -> tuple[dict[str, Floats], list[str]]:
    """A feature of one's own at the EEG's rate.

    Parameters
    ----------
    asked : OwnFeature
    places : mapping of str to str
        Path or URL of each file that `asked` names.
    stimuli : sequence of Recording
    rate : int
        Samples per second of the EEG; sample k of the result is at ``k / rate`` of the recording.
    open_file : callable

    Returns
    -------
    arrays : dict of str to ndarray of float64, shape (T, F)
        By recording; T is that of the acoustic features.
    unused : list of str
        Sentences on files or arrays that belong to no stimulus.

    Raises
    ------
    TaskError
        If a stimulus has no values, a column or a value is missing, or a column is constant over all stimuli.
    """
    found: dict[str, Own] = {}
    unused: list[str] = []
    aliases = aliases_of(stimuli)
    for where, name, own in _entries(asked, places, open_file):
        stimulus = heard_by_name(name, aliases)
        if stimulus is None:
            unused.append(f"{where}: {name} is none of the stimuli, so it isn't used")
        elif stimulus.id in found:
            raise TaskError(f"{where}: a second table of {stimulus.id}, beside {found[stimulus.id].where}; remove one")
        else:
            found[stimulus.id] = own
    lacking = [stimulus.id for stimulus in stimuli if stimulus.id not in found]
    if lacking:
        rest = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise TaskError(
            f"{asked.name}: no values for {', '.join(lacking[:5])}{rest} in {', '.join(places.values()) or 'no file'}; "
            "every stimulus needs them: a csv of its name, or an array of its name in the .npz file"
        )
    columns = found[stimuli[0].id].columns
    odd = next((key for key, own in found.items() if own.columns != columns), None)
    if odd is not None:
        raise TaskError(
            f"{found[odd].where} ({odd}): columns {', '.join(found[odd].columns)}, and "
            f"{found[stimuli[0].id].where} has {', '.join(columns)}; all stimuli need the same"
        )
    arrays = {stimulus.id: _at_rate(found[stimulus.id], stimulus, asked.form, rate) for stimulus in stimuli}
    _check_varies(asked.name, columns, arrays)
    return arrays, unused


def _check_varies(name: str, columns: Sequence[str], arrays: Mapping[str, Floats]) -> None:
    together = np.concatenate(list(arrays.values()))
    still = [column for column, spread in zip(columns, np.ptp(together, axis=0), strict=True) if spread == 0]
    if still:
        raise TaskError(
            f"{name}: {', '.join(still)} is constant over all stimuli, so nothing can follow it; leave it out"
        )


def _entries(asked: OwnFeature, places: Mapping[str, str], open_file: OpenFile) -> list[tuple[str, str, Own]]:
    """(file, what it calls the stimulus, values) of everything that the files hold."""
    entries = []
    for file in asked.files:
        path = places[file.name]
        data = _read(path, file.version, open_file)
        if file.name.lower().endswith(".npz"):
            if asked.columns:
                raise TaskError(f"{path}: arrays have no names for their columns; leave columns out, or give csv files")
            entries += [(path, name, own) for name, own in _arrays(path, data).items()]
        else:
            entries.append((path, PurePosixPath(file.name).stem, _table(path, data, asked.columns)))
    return entries


def _read(path: str, version: str, open_file: OpenFile) -> bytes:
    try:
        with open_file(path) as stream:
            data = stream.read()
    except OSError as error:
        raise TaskError(f"{path}: can't be read ({error.strerror or error}); see eeg.trf.features") from None
    if version.startswith("sha256:") and hashlib.sha256(data).hexdigest() != version.removeprefix("sha256:"):
        raise TaskError(f"{path}: its content changed since the study was planned; plan and run again")
    return data


def _table(path: str, data: bytes, wanted: Sequence[str]) -> Own:
    """A csv of one stimulus."""
    try:
        rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path}: not a csv file in UTF-8 ({error})") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    time = next((name for name in TIMES if name in header), None)
    if time is None or len(rows) < 2:
        raise TaskError(
            f"{path}: needs a column time_s and at least one row, separated by commas; found columns "
            f"{', '.join(header) or 'none'} and {max(len(rows) - 1, 0)} row(s)"
        )
    columns = tuple(wanted) or tuple(name for name in header if name != time)
    missing = [name for name in columns if name not in header]
    if missing or not columns:
        raise TaskError(f"{path}: no column {', '.join(missing) or 'of values'}; found {', '.join(header)}")
    picks = [header.index(name) for name in (time, *columns)]
    numbers = np.array(
        [[_number(path, place, row, header, pick) for pick in picks] for place, row in enumerate(rows[1:], 1)]
    )
    times = numbers[:, 0]
    back = np.flatnonzero(np.diff(times) <= 0)
    if back.size:
        raise TaskError(f"{path}: row {back[0] + 2}: {time} {times[back[0] + 1]:g} doesn't rise; rows must be in order")
    return Own(path, times, numbers[:, 1:], columns, _even_rate(times))


def _number(path: str, place: int, row: Sequence[str], header: Sequence[str], pick: int) -> float:
    text = row[pick].strip() if pick < len(row) else ""
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise TaskError(f"{path}: row {place}: {header[pick]} {text!r} must be a finite number, with a point")
    return value


def _even_rate(times_s: Floats) -> float | None:
    """Samples per second of rows in equal steps from 0 on, else None; a whole number where rounding allows it."""
    if times_s.size < 2 or abs(times_s[0]) > ROUNDING_S:
        return None
    exact = (times_s.size - 1) / (times_s[-1] - times_s[0])
    for rate in (float(round(exact)), float(exact)):
        if rate > 0 and np.abs(times_s - np.arange(times_s.size) / rate).max() <= ROUNDING_S:
            return rate
    return None


def _arrays(path: str, data: bytes) -> dict[str, Own]:
    """The arrays of an .npz file, by what it calls the stimuli."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, TypeError, BadZipFile, zlib.error) as error:
        raise TaskError(f"{path}: not an .npz file of plain arrays ({error})") from None
    stated = arrays.pop(RATE, np.array(np.nan))
    if stated.size != 1 or stated.dtype.kind not in "iuf" or not (float(stated.ravel()[0]) > 0):
        raise TaskError(f"{path}: needs one number above 0 called {RATE}: samples per second of all its arrays")
    rate = float(stated.ravel()[0])
    found = {}
    for name, array in arrays.items():
        if array.ndim not in (1, 2) or array.size == 0 or array.dtype.kind not in "iufb":
            raise TaskError(
                f"{path}: {name}: shape {array.shape} of {array.dtype}; allowed: numbers, (T,) or (T, series)"
            )
        values = array.astype(np.float64).reshape(len(array), -1)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            raise TaskError(
                f"{path}: {name}: {bad.size} of {len(values)} samples aren't finite (the first at "
                f"{bad[0] / rate:.2f} s); give every sample a value"
            )
        columns = tuple(f"series {number}" for number in range(1, values.shape[1] + 1))
        found[name] = Own(path, np.arange(len(values)) / rate, values, columns, rate)
    return found


def n_samples(stimulus: Recording, rate: int) -> int:
    """Samples of the acoustic features of a recording: those of its audio at 44 100 Hz, at `rate`."""
    audio = -(-stimulus.n_samples * SAMPLE_RATE_HZ // stimulus.sample_rate_hz)
    return audio * rate // SAMPLE_RATE_HZ


def _at_rate(own: Own, stimulus: Recording, form: Form, rate: int) -> Floats:
    n, named = n_samples(stimulus, rate), f"{own.where} ({stimulus.id})"
    if form == "impulses":
        beyond = np.flatnonzero((own.times_s < -ROUNDING_S) | (own.times_s > stimulus.duration_s + ENDS_S))
        if beyond.size:
            raise TaskError(
                f"{named}: {own.times_s[beyond[0]]:.2f} s is outside of the recording, which lasts "
                f"{stimulus.duration_s:.2f} s; times are seconds from its start"
            )
        return np.stack([impulses(own.times_s, column, rate, n) for column in own.values.T], axis=1)
    step = float(np.median(np.diff(own.times_s))) if own.times_s.size > 1 else 0.0
    first, last = own.times_s[0], own.times_s[-1] + step
    if first > ENDS_S or last < stimulus.duration_s - ENDS_S:
        raise TaskError(
            f"{named}: values from {first:.2f} to {last:.2f} s, and the recording lasts {stimulus.duration_s:.2f} s; "
            f"up to {ENDS_S} s may lack at each end"
        )
    if form == "hold":
        index = np.searchsorted(own.times_s, np.arange(n) / rate + ROUNDING_S, side="right") - 1
        return own.values[np.maximum(index, 0)]
    if own.rate_hz is None or own.rate_hz < rate:
        found = "unequal steps of time, or not from 0 on" if own.rate_hz is None else f"{own.rate_hz:g} values a second"
        raise TaskError(
            f"{named}: {found}; form resample needs equal steps from 0 on, at least {rate} a second: use hold"
        )
    try:
        values = resample_from(own.values.T, 0, own.rate_hz, rate).T[:n]
    except TaskError:
        raise TaskError(
            f"{named}: {own.rate_hz!r} Hz can't be brought to {rate} Hz exactly; use form hold, or another rate"
        ) from None
    return np.concatenate([values, np.repeat(values[-1:], n - len(values), axis=0)])
