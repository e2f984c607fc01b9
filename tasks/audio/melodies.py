"""Stage ``tunes``: monophonic melodies, their families, and a split that keeps families together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from io import BytesIO
from typing import Any, TypeVar

import mido

from tasks.audio.clusters import melodic_clusters, split_clusters
from tasks.audio.config import SourceFile, TunesConfig
from tasks.audio.render import Note, StruckNote, TimeUnit
from tasks.audio.sources import file_name, identifiers, opened
from tasks.contract import Cell, Context, Result, Stopped, TaskError

AnyNote = TypeVar("AnyNote", Note, StruckNote)

DRUM_CHANNEL = 9
MAX_TUNE_S = 3600
DEFAULT_TEMPO_US = 500_000
"""Microseconds per quarter note until a MIDI file says otherwise."""


@dataclass(frozen=True)
class Tune:
    """A melody: `notes` are (onset, duration, MIDI pitch) in `time_unit`, ordered, without overlaps.

    Notes of MIDI files have a fourth entry, their velocity (1 to 127).
    """

    id: str
    title: str
    time_unit: TimeUnit
    notes: tuple[Note, ...] | tuple[StruckNote, ...]

    @property
    def pitches(self) -> list[int]:
        """The MIDI pitches alone."""
        return [note[2] for note in self.notes]


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Read each cell's melodies, cluster them, split the clusters, and write ``tunes.json``.

    A file that can't be read or has no notes is named in ``skipped``; the others go on. A cell without any melody
    fails, and so does one whose files changed since the study was planned.
    """
    for cell in cells:
        config = TunesConfig.model_validate(cell.config)
        try:
            tunes, skipped = read_chorales(context) if config.source == "chorales" else read_midi(config.files, context)
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        if not tunes:
            named = "; ".join(f"{entry['file']}: {entry['reason']}" for entry in skipped[:3]) or "the folder is empty"
            yield Result(cell.signature, failure=f"no melody could be read ({named}). Put .mid files in the folder")
            continue
        clusters = melodic_clusters([tune.pitches for tune in tunes], config.split.ngram, config.split.overlap)
        splits = split_clusters([tune.id for tune in tunes], clusters, config.split, config.seed)
        listed = [
            {**asdict(tune), "cluster": cluster, "split": split}
            for tune, cluster, split in zip(tunes, clusters, splits, strict=True)
        ]
        text = json.dumps({"tunes": listed, "skipped": skipped}, sort_keys=True, allow_nan=False)
        (cell.out_dir / "tunes.json").write_text(text, encoding="utf-8")
        n_notes = sum(len(tune.notes) for tune in tunes)
        counts = {"n_tunes": len(tunes), "n_clusters": len(set(clusters)), "n_notes": n_notes}
        yield Result(cell.signature, {**counts, "n_skipped": len(skipped)})


# Chorales


def read_chorales(context: Context, numbers: Sequence[int] | None = None) -> tuple[list[Tune], list[dict[str, str]]]:
    """Read soprano lines of the Bach chorales in music21.

    Parameters
    ----------
    context : Context
        Is told the progress, and may stop it.
    numbers : sequence of int, optional
        Riemenschneider numbers, 1 to 371; all of them by default. Some chorales stand there twice.

    Returns
    -------
    tunes : list of Tune
        In quarter notes, ``chorale001`` and so on; tied notes are one note, the first starts at 0.
    skipped : list of {"file", "reason"}
        Chorales that music21 can't parse or that have no soprano notes.
    """
    from music21.corpus.chorales import Iterator as Chorales

    works = list(Chorales(returnType="filename"))
    wanted = list(numbers) if numbers is not None else list(range(1, len(works) + 1))
    parsed: dict[str, tuple[Note, ...]] = {}
    tunes, skipped = [], []
    for done, number in enumerate(wanted):
        _report(context, done, len(wanted))
        work = str(works[number - 1])
        title = f"Chorale {number}, {file_name(work).replace('bwv', 'BWV ')}"
        try:
            if work not in parsed:
                parsed[work] = _soprano(work)
        except TaskError as error:
            skipped.append({"file": work, "reason": str(error)})
        else:
            tunes.append(Tune(f"chorale{number:03d}", title, "quarter", parsed[work]))
    return tunes, skipped


def _soprano(work: str) -> tuple[Note, ...]:
    """Notes of the first part of a score in music21's corpus."""
    from music21 import converter, corpus

    try:
        paths = corpus.getWork(work)
        path = paths[0] if isinstance(paths, list) else paths
        score = converter.parse(path, forceSource=True, storePickle=False)
        line = score.parts[0].stripTies().flatten().notes
        found = [(note.offset, note.quarterLength, max(pitch.midi for pitch in note.pitches)) for note in line]
    except Exception as error:  # music21 raises whatever its parser met
        raise TaskError(f"music21 can't parse it ({type(error).__name__}: {error})") from error
    first = min((offset for offset, _, _ in found), default=0)
    return monophonic([(float(offset - first), float(length), int(pitch)) for offset, length, pitch in found])


def _report(context: Context, done: int, total: int) -> None:
    context.progress(done, total, {})
    if context.should_stop():
        raise Stopped


# MIDI


def read_midi(files: Sequence[SourceFile], context: Context) -> tuple[list[Tune], list[dict[str, str]]]:
    """Read melodies from MIDI files.

    Parameters
    ----------
    files : sequence of SourceFile
        One melody each; other files than ``.mid`` and ``.midi`` are skipped.
    context : Context
        Opens the files.

    Returns
    -------
    tunes : list of Tune
        In seconds of the file's own tempo, with velocities, in the order of their paths; the id is the file's stem.
    skipped : list of {"file", "reason"}
        Files that aren't MIDI, are damaged, have no notes, or last longer than an hour.

    Raises
    ------
    TaskError
        When a file is gone or has changed since the study was planned.
    """
    by_path = {file.path: file for file in files}
    tunes, skipped = [], []
    for done, (path, name) in enumerate(identifiers(files).items()):
        _report(context, done, len(by_path))
        with opened(by_path[path], context.open_file) as stream:
            content = stream.read()
        try:
            tunes.append(Tune(name, name, "second", _not_too_long(monophonic(_midi_notes(content)))))
        except TaskError as error:
            skipped.append({"file": file_name(path), "reason": str(error)})
    return tunes, skipped


def _not_too_long(notes: tuple[StruckNote, ...]) -> tuple[StruckNote, ...]:
    end_s = notes[-1][0] + notes[-1][1]
    if end_s > MAX_TUNE_S:
        raise TaskError(f"it ends after {end_s:.0f} s: up to {MAX_TUNE_S} s are allowed; cut it, or mend its tempo")
    return notes


def _midi_notes(content: bytes) -> list[StruckNote]:
    """All sounding notes of a MIDI file but drums, in seconds; a note without an end lasts until the file's."""
    time_s = Fraction(0)
    sounding: dict[tuple[int, int], list[tuple[Fraction, int]]] = {}
    notes: list[StruckNote] = []
    for time_s, message in _timed(content):
        if message.type not in ("note_on", "note_off") or message.channel == DRUM_CHANNEL:
            continue
        started = sounding.setdefault((message.channel, message.note), [])
        if message.type == "note_on" and message.velocity > 0:
            started.append((time_s, message.velocity))
        elif started:
            onset, velocity = started.pop(0)
            notes.append((float(onset), float(time_s - onset), message.note, velocity))
    for (_, pitch), started in sounding.items():
        notes.extend((float(onset), float(time_s - onset), pitch, velocity) for onset, velocity in started)
    return notes


def _timed(content: bytes) -> Iterator[tuple[Fraction, mido.Message]]:
    """The messages of all tracks with their times in seconds, by the file's tempo map."""
    try:
        midi = mido.MidiFile(file=BytesIO(content))
        messages = mido.merge_tracks(midi.tracks)
    except Exception as error:  # mido raises whatever it met in the bytes
        raise TaskError("not readable as MIDI: .mid files of type 0 or 1 are") from error
    if midi.type == 2 or midi.ticks_per_beat <= 0:
        raise TaskError("MIDI of type 2 or with SMPTE time has no common beat: save it as type 0 or 1")
    elapsed, tempo_us = 0, DEFAULT_TEMPO_US
    for message in messages:
        elapsed += message.time * tempo_us
        if message.type == "set_tempo":
            tempo_us = message.tempo
        yield Fraction(elapsed, 1_000_000 * midi.ticks_per_beat), message


def monophonic(notes: Sequence[AnyNote]) -> tuple[AnyNote, ...]:
    """Make one line of notes: of those that start together the highest stays, and each ends where the next starts.

    Parameters
    ----------
    notes : sequence of (onset, duration, pitch) or (onset, duration, pitch, velocity)
        In any order and unit. Notes without duration (grace notes) are left out.

    Returns
    -------
    tuple of the same kind of notes
        Ordered by onset, without overlaps.

    Raises
    ------
    TaskError
        When there are no notes.
    """
    highest: dict[float, AnyNote] = {}
    for note in sorted(notes):
        onset, duration, pitch = note[:3]
        if duration > 0 and (onset not in highest or pitch > highest[onset][2]):
            highest[onset] = note
    if not highest:
        raise TaskError("it has no notes")
    line: list[AnyNote] = list(highest.values())
    ends = [*(note[0] for note in line[1:]), float("inf")]
    return tuple(_until(note, end) for note, end in zip(line, ends, strict=True))


def _until(note: AnyNote, end: float) -> AnyNote:
    """The note, ended at `end` if it is still sounding then."""
    onset, duration, *rest = note
    cut: Any = (onset, min(duration, end - onset), *rest)
    found: AnyNote = cut
    return found
