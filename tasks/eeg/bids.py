"""Reads a subject of a BIDS data set: what was heard from events.tsv, the recordings through mne-bids."""

from __future__ import annotations

import csv
import io
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import mne

from tasks.audio.recording import Recording
from tasks.config import Config
from tasks.contract import OpenFile, TaskError
from tasks.eeg.bids_layout import named
from tasks.eeg.events import Presentation
from tasks.eeg.matlab import is_self_contained
from tasks.eeg.pairing import by_path
from tasks.eeg.raw import RawSource, read_presented
from tasks.eeg.raw_file import Opened, RawPart, open_raw
from tasks.eeg.source_config import SensorType
from tasks.eeg.trials import Skipped, Subject

_NO_VALUE = ("", "n/a", "nan")
_SAME_SIGNALS = ("proc", "rec", "split")
"""Labels (of processing, of reconstruction) by which two files of the same recording differ."""


class BidsFile(RawPart):
    """A file of a recording; `place` is its path in a copy that holds this recording alone."""

    place: str


class BidsRecordingFiles(Config):
    """A recording by the path of its first file in the data set, and the place of its events.tsv."""

    name: str
    files: tuple[BidsFile, ...]
    events: str | None = None


class BidsFiles(Config):
    """One subject's recordings, and how they are to be understood."""

    recordings: tuple[BidsRecordingFiles, ...]
    stimulus_column: str = "stim_file"
    sensor_type: SensorType = "eeg"
    mastoids: tuple[str, ...] = ()
    not_eeg: tuple[str, ...] = ()


def read_bids_subject(files: BidsFiles, stimuli: Sequence[Recording], whole: bool, open_file: OpenFile) -> Subject:
    """One subject's trials, cut out of its recordings around what was heard.

    Parameters
    ----------
    files : BidsFiles
        The subject's recordings.
    stimuli, whole
        As `read_presented` takes them.
    open_file : callable
        Opens a path or URL.

    Returns
    -------
    Subject
        As `read_presented` makes it; what is ignored in the tables of events is counted in ``skipped``.

    Raises
    ------
    TaskError
        If no trial can be used at all.
    """
    if not files.recordings:
        raise TaskError("it has no recording of this task, session and run; check eeg.bids, or the data set")
    skipped = twice(files.recordings)
    left_out = {part.trial for part in skipped}
    presentations: list[Presentation] = []
    sources = []
    for recording in files.recordings:
        if recording.name in left_out:
            continue
        try:
            rows, notes = heard(recording, files.stimulus_column, stimuli, open_file)
        except TaskError as error:
            skipped.append(Skipped(recording.name, str(error)))
            continue
        presentations += rows
        skipped += notes
        sources.append(source_of(recording, files, open_file))
    if not presentations:
        raise TaskError(f"no trial can be used: {'; '.join(str(part) for part in skipped[:3])}")
    table = f"events.tsv and the column {files.stimulus_column} (eeg.bids)"
    found = read_presented(presentations, sources, stimuli, whole, files.mastoids, files.sensor_type, table)
    found.skipped[:0] = skipped
    return found


def twice(recordings: Sequence[BidsRecordingFiles]) -> list[Skipped]:
    """Recordings that are there in several forms (raw and processed, two formats): which one is meant is unknown."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for recording in recordings:
        about = named(PurePosixPath(recording.name).name)
        labels = {} if about is None else {k: label for k, label in about.labels.items() if k not in _SAME_SIGNALS}
        groups.setdefault((*sorted(labels.items()),), []).append(recording.name)
    return [
        Skipped(name, f"is there {len(names)} times ({', '.join(names)}); keep one of them in the data set")
        for names in groups.values()
        if len(names) > 1
        for name in names
    ]


def heard(
    recording: BidsRecordingFiles, column: str, stimuli: Sequence[Recording], open_file: OpenFile
) -> tuple[list[Presentation], list[Skipped]]:
    """What was heard in one recording, and what its table of events has beside that.

    A row is a presentation if it names a stimulus in `column`; it begins at the row's onset, in seconds from the
    recording's first sample. Rows that name the stimulus which is still playing are counted and left aside.

    Parameters
    ----------
    recording : BidsRecordingFiles
        Its ``events`` is read.
    column : str
        The column with the stimulus's file: its path in the folder of stimuli, or its name.
    stimuli : sequence of Recording
        The recordings that may have been heard; of one that isn't among them the row's name is kept.
    open_file : callable
        Opens a path or URL.

    Raises
    ------
    TaskError
        If there is no such table, or it names no stimulus.
    """
    rows = _rows(recording, column, open_file)
    notes: list[Skipped] = []
    found: list[Presentation] = []
    ends_s: dict[str, float] = {}
    still = Counter[str]()
    silent = sum((row.get(column) or "").strip().lower() in _NO_VALUE for row in rows)
    meant = {name: by_path(name, stimuli) for name in {(row.get(column) or "").strip() for row in rows}}
    for place, row in enumerate(rows, 1):
        name = (row.get(column) or "").strip()
        if name.lower() in _NO_VALUE:
            continue
        called = f"{recording.name}, row {place} of its events"
        onset_s, duration_s = _seconds(row.get("onset")), _seconds(row.get("duration"))
        if onset_s is None or onset_s < 0:
            notes.append(Skipped(called, f"onset {row.get('onset')!r} must be a number of seconds, 0 or more", name))
            continue
        stimulus = meant[name]
        if isinstance(stimulus, str):
            notes.append(Skipped(called, stimulus, name))
            continue
        if onset_s < ends_s.get(name, -math.inf):
            still[name] += 1
            continue
        lasted_s = duration_s if duration_s is not None and duration_s > 0 else None
        ours_s = 0.0
        if stimulus is not None:  # of a part of what was heard: until where the part ends, or by the row even longer
            ours_s = stimulus.start_sample / stimulus.sample_rate_hz + stimulus.duration_s
        ends_s[name] = onset_s + max(ours_s, lasted_s or 0.0)
        what = stimulus.id if stimulus else name
        found.append(Presentation(file=recording.name, recording=what, onset_s=onset_s, duration_s=lasted_s))
    if not found:
        raise TaskError(f"no row of its events.tsv ({len(rows)}) begins a stimulus: none is usable in {column}")
    if silent:
        notes.append(Skipped("-", f"{recording.name}: {silent} of {len(rows)} rows of its events have no {column}"))
    for name, count in still.items():
        notes.append(
            Skipped("-", f"{recording.name}: {count} row(s) name {name} while it is playing; they begin nothing")
        )
    return found, notes


def _rows(recording: BidsRecordingFiles, column: str, open_file: OpenFile) -> list[dict[str, str | None]]:
    table = next((file for file in recording.files if file.place == recording.events), None)
    if table is None:
        raise TaskError("it has no events.tsv, so what was heard when is unknown")
    try:
        with open_file(table.path) as stream:
            reader = csv.DictReader(
                io.StringIO(stream.read().decode("utf-8-sig")), delimiter="\t", quoting=csv.QUOTE_NONE
            )
            rows: list[dict[str, str | None]] = list(reader)
    except OSError as error:
        raise TaskError(f"{table.path}: can't be opened ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{table.path}: not a tsv file in UTF-8 ({error})") from None
    columns = [str(name) for name in reader.fieldnames or ()]
    lacking = [name for name in ("onset", column) if name not in columns]
    if lacking:
        raise TaskError(
            f"{table.path}: it has no column {lacking[0]} (it has: {', '.join(columns) or 'nothing'}); "
            "eeg.bids.stimulus_column names the column with the stimulus's file"
        )
    return rows


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def source_of(recording: BidsRecordingFiles, files: BidsFiles, open_file: OpenFile) -> RawSource:
    """A recording that is copied to a temporary folder, with what describes it, for as long as it is open."""

    @contextmanager
    def opened() -> Iterator[Opened]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for file in recording.files:
                _copy(file, root, open_file)
            main = root / recording.name
            found = open_raw(main, files.mastoids, files.not_eeg, files.sensor_type, _read)
            yield found
            found.raw.close()

    return RawSource(recording.name, opened)


def _copy(file: BidsFile, root: Path, open_file: OpenFile) -> None:
    target = root / file.place
    target.parent.mkdir(parents=True, exist_ok=True)
    name = PurePosixPath(file.path).name
    try:
        with open_file(file.path) as stream, target.open("wb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
    except OSError as error:
        raise TaskError(f"{name}: can't be opened ({error.strerror or error}); restore it, or plan again") from None
    if not is_self_contained(target):
        raise TaskError(f"{name}: it shows contents of other files; a recording holds its data itself")


def _read(path: Path) -> Any:
    """Through mne-bids, with the bad spans that the file itself marks: tables of events take their place there.

    Positions in a frame that isn't tied to the head say nothing of where on it they are: they are dropped.
    """
    import mne_bids

    own = mne.io.read_raw(path, preload=False, verbose="ERROR")
    try:
        where = mne_bids.get_bids_path_from_fname(path, check=False, verbose="ERROR")
        raw = mne_bids.read_raw_bids(where, verbose="ERROR")
    except Exception as error:  # as open_raw says; the file by itself has just been read
        reason = " ".join(str(error).replace(f"{path.parent}/", "").split())[:300]
        raise TaskError(f"mne-bids can't read it with its tables ({type(error).__name__}: {reason})") from None
    listed = {(note["description"], round(note["onset"], 2)) for note in _from_first_sample(raw)}
    for note in _from_first_sample(own):
        if (
            note["description"].lower().startswith("bad")
            and (note["description"], round(note["onset"], 2)) not in listed
        ):
            raw.annotations.append(
                note["onset"] + raw.first_time, note["duration"], note["description"], [note["ch_names"]]
            )
    own.close()
    for channel in raw.info["chs"]:
        if channel["coord_frame"] == mne.io.constants.FIFF.FIFFV_COORD_UNKNOWN:
            channel["loc"][:3] = float("nan")
    return raw


def _from_first_sample(raw: Any) -> list[Mapping[str, Any]]:
    notes = zip(raw.annotations, raw.annotations.onset - raw.first_time, strict=True)
    return [{**note, "onset": float(onset_s), "ch_names": note.get("ch_names", ())} for note, onset_s in notes]
