"""Reads EEG from any file that MNE reads, with a table of what was heard when."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from tasks.audio.recording import Recording
from tasks.config import Config
from tasks.contract import OpenFile, TaskError
from tasks.eeg.events import Presentation
from tasks.eeg.pairing import aliases_of, heard_by_name, not_among
from tasks.eeg.raw_file import Opened, RawFile, bad_spans, copy_here, open_raw
from tasks.eeg.source_config import SensorType
from tasks.eeg.trials import Floats, Sensors, Skipped, Subject, Trial

DURATION_TOLERANCE_S = 2.0
"""A recording may differ by this much from its duration_s in the table of events."""

MARGIN_S = 2.0
"""What is read before and after a recording, where the file has it, so that filters meet no edge."""


class RawFiles(Config):
    """One subject's rows of the table of events and the files that they name.

    `bad_spans` says what becomes of segments that annotations call bad: they are masked (None, in cells of before: only
    told).
    """

    presentations: tuple[Presentation, ...]
    files: tuple[RawFile, ...]
    mastoids: tuple[str, ...] = ()
    not_eeg: tuple[str, ...] = ()
    sensor_type: SensorType = Field("eeg", json_schema_extra={"neutral": "eeg"})
    bad_spans: Literal["masked"] | None = Field(None, json_schema_extra={"neutral": None})


@dataclass(frozen=True)
class RawSource:
    """A recording by its name in the presentations, and how to open it, for as long as it is read."""

    name: str
    opened: Callable[[], AbstractContextManager[Opened]]


@dataclass(frozen=True)
class _Found:
    """A trial with the channels of its file, before all files are brought to the same channels."""

    trial: Trial
    names: tuple[str, ...]


def read_raw_subject(files: RawFiles, stimuli: Sequence[Recording], whole: bool, open_file: OpenFile) -> Subject:
    """One subject's trials, cut out of its files around what was heard: `read_presented` of files and a table.

    Parameters
    ----------
    files : RawFiles
        Presentations and files.
    stimuli, whole
        As `read_presented` takes them.
    open_file : callable
        Opens a path or URL.
    """

    channels = (files.mastoids, files.not_eeg, files.sensor_type)
    sources = [file_source(file, open_file, *channels) for file in files.files]
    return read_presented(files.presentations, sources, stimuli, whole, files.mastoids, files.sensor_type)


def file_source(
    file: RawFile,
    open_file: OpenFile,
    mastoids: Sequence[str] = (),
    not_eeg: Sequence[str] = (),
    sensor_type: SensorType = "eeg",
) -> RawSource:
    """A file that is copied to a temporary folder, with its companions, for as long as it is open."""

    @contextmanager
    def opened() -> Iterator[Opened]:
        with tempfile.TemporaryDirectory() as folder:
            found = open_raw(copy_here(file, Path(folder), open_file), mastoids, not_eeg, sensor_type)
            yield found
            found.raw.close()

    return RawSource(file.name, opened)


def read_presented(
    presentations: Sequence[Presentation],
    sources: Sequence[RawSource],
    stimuli: Sequence[Recording],
    whole: bool,
    mastoids: Sequence[str] = (),
    sensor_type: SensorType = "eeg",
    table: str = "eeg.raw.events",
) -> Subject:
    """One subject's trials, cut out of its recordings around what was heard.

    A stimulus's first instant is taken to be at the EEG sample nearest to its onset.

    Parameters
    ----------
    presentations : sequence of Presentation
        What was heard when, in which of `sources`.
    sources : sequence of RawSource
        The recordings.
    stimuli : sequence of Recording
        The recordings that may have been heard.
    whole : bool
        Whether they are whole; otherwise they are parts of what was heard, from their ``start_sample`` on.
    mastoids : sequence of str
        The channels for the reference of that name.
    sensor_type : {"eeg", "mag", "grad"}
        Which channels `sources` give.
    table : str
        Where presentations can be mended, for messages.

    Returns
    -------
    Subject
        Trials in the table's order; those that can't be used are named in ``skipped``, with what they heard. Channels
        are those of most trials; a file that lacks some of them is left out.

    Raises
    ------
    TaskError
        If no trial can be used at all.
    """
    aliases = aliases_of(stimuli)
    skipped: list[Skipped] = []
    found: dict[int, _Found] = {}
    sensors: dict[tuple[str, ...], Floats | None] = {}
    other: dict[str, dict[str, None]] = {}
    for source in sources:
        rows = [(place, row) for place, row in enumerate(presentations) if row.file == source.name]
        try:
            with source.opened() as opened:
                sensors.setdefault(opened.names, opened.positions)
                for kind, names in opened.other.items():
                    other.setdefault(kind, {}).update(dict.fromkeys(names))
                for place, row in rows:
                    stimulus = heard_by_name(row.recording, aliases)
                    try:
                        if stimulus is None:
                            raise TaskError(not_among(row.recording, aliases))
                        trial = _trial(opened, row, stimulus, whole, mastoids, table)
                        found[place] = _Found(trial, opened.names)
                    except TaskError as error:
                        skipped.append(Skipped(_called(row), str(error), row.recording))
        except TaskError as error:
            skipped += [Skipped(row.file, str(error), row.recording) for _, row in rows]
    if not found:
        reasons = "; ".join(str(part) for part in skipped[:3])
        raise TaskError(f"no trial can be used: {reasons}")
    names = Counter(part.names for part in found.values()).most_common(1)[0][0]
    trials = _numbered(presentations, _alike(found, names, skipped), skipped)
    heard = {trial.recording for trial in trials}
    skipped += [Skipped("-", f"the stimulus {s.id} has no trial") for s in stimuli if s.id not in heard]
    found_sensors = Sensors(names, sensors[names], sensor_type)
    return Subject(trials, found_sensors, skipped, {kind: tuple(names) for kind, names in other.items()})


def _called(row: Presentation) -> str:
    return f"{row.file} at {row.onset_s:g} s"


def _trial(
    opened: Opened, row: Presentation, stimulus: Recording, whole: bool, mastoids: Sequence[str], table: str
) -> Trial:
    begin_s = stimulus.start_sample / stimulus.sample_rate_hz
    end_s = begin_s + stimulus.duration_s
    beyond_s = 0.0 if row.duration_s is None else end_s - row.duration_s
    if beyond_s > DURATION_TOLERANCE_S or (whole and -beyond_s > DURATION_TOLERANCE_S):
        raise TaskError(
            f"lasted {row.duration_s:.1f} s by the table of events, but {stimulus.id} ends at {end_s:.1f} s: is it the "
            f"right recording? check {table}"
        )
    rate, length = opened.rate_hz, int(opened.raw.n_times)
    start = round((row.onset_s + begin_s) * rate)
    if start >= length:
        raise TaskError(
            f"begins at {start / rate:.1f} s, and the file ends at {length / rate:.1f} s (is it truncated?)"
        )
    margin = round(MARGIN_S * rate)
    first = max(0, start - margin)
    last = min(length, start + round(stimulus.duration_s * rate) + margin)
    has = [name for name in mastoids if name in opened.raw.ch_names]
    try:
        data = opened.raw.get_data([*opened.names, *has, *opened.eog], first, last, verbose="ERROR")
    except Exception as error:  # readers raise whatever the broken bytes lead them to
        raise TaskError(f"truncated or damaged ({type(error).__name__}); copy the file again") from None
    n, n_mastoids = len(opened.names), len(has)
    return Trial(
        _called(row),
        stimulus.id,
        0,
        np.ascontiguousarray(data[:n]),
        np.ascontiguousarray(data[n : n + n_mastoids]) if has else None,
        rate,
        start - first,
        stimulus.duration_s,
        marked_bads=tuple(name for name in opened.names if name in opened.raw.info["bads"]),
        bad_spans=bad_spans(opened.raw, start / rate, start / rate + stimulus.duration_s),
        eog=np.ascontiguousarray(data[n + n_mastoids :]) if opened.eog else None,
        eog_names=opened.eog,
    )


def _alike(found: Mapping[int, _Found], names: tuple[str, ...], skipped: list[Skipped]) -> dict[int, Trial]:
    """The trials with the channels `names` in that order; those of files that lack some are left out."""
    alike: dict[int, Trial] = {}
    for place, part in sorted(found.items()):
        lacking = [name for name in names if name not in part.names]
        if lacking:
            some = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
            reason = f"its file lacks channels that most trials of the subject have: {some}"
            skipped.append(Skipped(part.trial.name, reason, part.trial.recording))
            continue
        data = part.trial.data
        if part.names != names:
            data = data[[part.names.index(name) for name in names]]
        marked = tuple(name for name in names if name in part.trial.marked_bads)
        alike[place] = replace(part.trial, data=data, marked_bads=marked)
    return alike


def _numbered(rows: Sequence[Presentation], trials: Mapping[int, Trial], skipped: list[Skipped]) -> list[Trial]:
    """The trials with their repetitions, the table's or counted in order of time, and their places in that order."""
    files = list(dict.fromkeys(row.file for row in rows))
    in_time = sorted(range(len(rows)), key=lambda place: (files.index(rows[place].file), rows[place].onset_s))
    counted: Counter[str] = Counter()
    repetitions: dict[int, int] = {}
    for place in in_time:
        recording = trials[place].recording if place in trials else rows[place].recording
        given = rows[place].repetition
        repetitions[place] = counted[recording] if given is None else given
        counted[recording] += 1
    numbered: dict[str, Trial] = {}
    for place, trial in trials.items():
        full = replace(trial, repetition=repetitions[place], original_position=in_time.index(place) + 1)
        if full.key in numbered:
            reason = f"is repetition {full.repetition + 1} of {full.recording}, as is {numbered[full.key].name}"
            skipped.append(Skipped(trial.name, f"{reason}; check the column repetition", trial.recording))
        else:
            numbered[full.key] = full
    return list(numbered.values())
