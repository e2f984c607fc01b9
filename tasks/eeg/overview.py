"""What a data set of EEG has in it, as the readers understand it, without any cleaning."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.contract import OpenFile, TaskError
from tasks.eeg.cnd import external_channels, original_order, read_sensors
from tasks.eeg.events import Presentation
from tasks.eeg.matlab import cells_of, read_mat, scalar
from tasks.eeg.raw_file import RawFile, copy_here, open_raw
from tasks.eeg.shipped import Shipped
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
    name: str, presentations: Sequence[Presentation], files: Mapping[str, RawFile], open_file: OpenFile
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
    """
    facts = SubjectFacts(name, n_trials=len(presentations))
    facts.pieces = dict(Counter(row.recording for row in presentations))
    named = list(dict.fromkeys(row.file for row in presentations)) or list(files)
    for file in named:
        if file not in files:
            facts.missing.append(f"{file}: there is no such file")
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                opened = open_raw(copy_here(files[file], Path(folder), open_file))
            except TaskError as error:
                facts.missing.append(f"{file}: {error}")
                continue
            length_s = float(opened.raw.n_times / opened.rate_hz)
            facts.rates_hz = sorted({*facts.rates_hz, opened.rate_hz})
            facts.bads = tuple(dict.fromkeys([*facts.bads, *opened.raw.info["bads"]]))
            facts.other = {**facts.other, **opened.other}
            if not facts.channels:
                facts.channels, facts.positions = opened.names, opened.positions
            elif set(opened.names) != set(facts.channels):
                facts.missing.append(f"{file}: has other channels than {named[0]}")
            opened.raw.close()
        if not presentations:
            facts.durations_s.append(length_s)
        for row in (row for row in presentations if row.file == file):
            if row.onset_s >= length_s:
                facts.missing.append(f"{file}: {row.recording} at {row.onset_s:g} s, but it ends at {length_s:g} s")
            elif row.duration_s is not None:
                facts.durations_s.append(row.duration_s)
    if presentations:
        in_time = sorted(
            range(len(presentations)), key=lambda k: (named.index(presentations[k].file), presentations[k].onset_s)
        )
        facts.original_order = [in_time.index(k) + 1 for k in range(len(presentations))]
    if facts.channels and facts.positions is None:
        facts.missing.append("no positions of channels: no scalp map, and bad channels can't be interpolated")
    return facts
