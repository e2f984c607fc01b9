"""What a data set of EEG has in it, as the readers understand it, without any cleaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.contract import OpenFile, TaskError
from tasks.eeg.bids import BidsFiles, heard, source_of, twice
from tasks.eeg.cnd import external_channels, original_order, read_sensors
from tasks.eeg.events import Presentation
from tasks.eeg.matlab import cells_of, read_mat, scalar
from tasks.eeg.raw import RawSource, file_source
from tasks.eeg.raw_file import RawFile
from tasks.eeg.shipped import Shipped
from tasks.eeg.source_config import SensorType
from tasks.eeg.trials import Floats


@dataclass
class SubjectFacts:
    """One subject; what isn't known is None or empty.

    `pieces` counts trials by piece; `durations_s` are those of the trials without padding; `other` are channels that
    are no EEG, by type; `missing` has a sentence for everything that one would expect and that isn't there.
    """

    name: str
    n_trials: int = 0
    pieces: dict[str, int] = field(default_factory=dict)
    durations_s: list[float] = field(default_factory=list)
    rates_hz: list[float] = field(default_factory=list)
    channels: tuple[str, ...] = ()
    positions: Floats | None = None
    other: dict[str, tuple[str, ...]] = field(default_factory=dict)
    bads: tuple[str, ...] = ()
    padding_s: float | None = None
    original_order: list[int] | None = None
    missing: list[str] = field(default_factory=list)


def cnd_subject(name: str, path: str, shipped: Shipped | None, open_file: OpenFile) -> SubjectFacts:
    """Facts about one ``dataSubN.mat``; a file that can't be read says so in ``missing``.

    Parameters
    ----------
    name, path : str
        The subject, and its file.
    shipped : Shipped or None
        The stimulus file: trials with the same envelope heard the same piece.
    open_file : callable
        Opens a path or URL.
    """
    facts = SubjectFacts(name)
    try:
        eeg = read_mat(path, open_file, "eeg")
    except TaskError as error:
        facts.missing.append(str(error))
        return facts
    shapes = [getattr(cell, "shape", ()) for cell in cells_of(eeg.pop("data", []))]
    facts.n_trials = len(shapes)
    rate, padding = scalar(eeg, "fs"), scalar(eeg, "paddingStartSample")
    facts.rates_hz = [rate] if rate is not None and rate > 0 else []
    widths = Counter(min(shape) for shape in shapes if len(shape) == 2 and min(shape) > 0)
    n_channels = widths.most_common(1)[0][0] if widths else 0
    sensors = read_sensors(eeg, n_channels)
    facts.channels, facts.positions = sensors.names, sensors.positions
    for number, shape in enumerate(shapes, 1):
        if len(shape) != 2 or min(shape) == 0:
            facts.missing.append(f"trial {number}: is empty, or no matrix of numbers")
        elif min(shape) != n_channels:
            facts.missing.append(f"trial {number}: has {min(shape)} channels, most trials have {n_channels}")
        elif facts.rates_hz:
            facts.durations_s.append((max(shape) - (padding or 0.0)) / facts.rates_hz[0])
    facts.padding_s = padding / facts.rates_hz[0] if padding is not None and facts.rates_hz else None
    facts.original_order = original_order(eeg, facts.n_trials)
    facts.other = external_channels(eeg)
    facts.missing += [
        sentence
        for absent, sentence in (
            (not facts.rates_hz, "no sampling rate (eeg.fs)"),
            ("chanlocs" not in eeg, "no names and locations of channels (eeg.chanlocs)"),
            (padding is None, "no start padding (eeg.paddingStartSample): taken as 0"),
            (facts.original_order is None, "no order of presentation (eeg.origTrialPosition)"),
            (not facts.other, "no external channels (eeg.extChan): the reference mastoids isn't possible"),
        )
        if absent
    ]
    if shipped is not None:
        if shipped.n_trials != facts.n_trials:
            facts.missing.append(f"{facts.n_trials} trials, and {shipped.n_trials} in dataStim.mat")
        same = shipped.same_as()[: facts.n_trials]
        facts.pieces = {f"piece {k + 1}": same.count(first) for k, first in enumerate(dict.fromkeys(same))}
    return facts


def raw_subject(
    name: str,
    presentations: Sequence[Presentation],
    files: Mapping[str, RawFile],
    open_file: OpenFile,
    sensor_type: SensorType = "eeg",
) -> SubjectFacts:
    """Facts about one subject's raw files, from their headers and the table of events.

    Parameters
    ----------
    name : str
        The subject.
    presentations : sequence of Presentation
        Its rows of the table; with none, what `files` have is told all the same.
    files : mapping of str to RawFile
        Files by their names in the table; a file that isn't there is told in ``missing``.
    open_file : callable
        Opens a path or URL.
    sensor_type : {"eeg", "mag", "grad"}
        Which channels are wanted.
    """
    named = list(dict.fromkeys(row.file for row in presentations)) or list(files)
    absent = [f"{file}: there is no such file" for file in named if file not in files]
    sources = [file_source(files[file], open_file, sensor_type=sensor_type) for file in named if file in files]
    return _presented(SubjectFacts(name, missing=absent), presentations, sources)


def bids_subject(name: str, files: BidsFiles, open_file: OpenFile) -> SubjectFacts:
    """Facts about one subject of a BIDS data set, from its recordings' headers and tables of events.

    Parameters
    ----------
    name : str
        The subject.
    files : BidsFiles
        Its recordings; what can't be used of one is told in ``missing``.
    open_file : callable
        Opens a path or URL.
    """
    facts = SubjectFacts(name, missing=[str(part) for part in twice(files.recordings)])
    presentations: list[Presentation] = []
    for recording in files.recordings:
        try:
            rows, notes = heard(recording, files.stimulus_column, (), open_file)
            presentations += rows
            facts.missing += [str(note) for note in notes]
        except TaskError as error:
            facts.missing.append(f"{recording.name}: {error}")
    return _presented(facts, presentations, [source_of(part, files, open_file) for part in files.recordings])


def _presented(facts: SubjectFacts, rows: Sequence[Presentation], sources: Sequence[RawSource]) -> SubjectFacts:
    facts.n_trials = len(rows)
    facts.pieces = dict(Counter(row.recording for row in rows))
    first = None
    for source in sources:
        try:
            with source.opened() as opened:
                length_s = float(opened.raw.n_times / opened.rate_hz)
                facts.rates_hz = sorted({*facts.rates_hz, opened.rate_hz})
                facts.bads = tuple(dict.fromkeys([*facts.bads, *opened.raw.info["bads"]]))
                facts.other = {**facts.other, **opened.other}
                if not facts.channels:
                    facts.channels, facts.positions, first = opened.names, opened.positions, source.name
                elif set(opened.names) != set(facts.channels):
                    facts.missing.append(f"{source.name}: has other channels than {first}")
        except TaskError as error:
            facts.missing.append(f"{source.name}: {error}")
            continue
        if not rows:
            facts.durations_s.append(length_s)
        for row in (row for row in rows if row.file == source.name):
            if row.onset_s >= length_s:
                lost = f"{row.recording} at {row.onset_s:g} s, but it ends at {length_s:g} s"
                facts.missing.append(f"{source.name}: {lost}")
            elif row.duration_s is not None:
                facts.durations_s.append(row.duration_s)
    if rows:
        files = list(dict.fromkeys(row.file for row in rows))
        in_time = sorted(range(len(rows)), key=lambda k: (files.index(rows[k].file), rows[k].onset_s))
        facts.original_order = [in_time.index(k) + 1 for k in range(len(rows))]
    if facts.channels and facts.positions is None:
        facts.missing.append("no positions of channels: no scalp map, and bad channels can't be interpolated")
    return facts
