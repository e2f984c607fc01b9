"""Reads what IDyOM itself writes: its ``.dat`` tables with a row per note (`detail` 3 or 4)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TextIO

import numpy as np
import numpy.typing as npt

from tasks.contract import TaskError

Floats = npt.NDArray[np.float64]
IDENTITY = ("melody.id", "note.id", "cpitch")


@dataclass(frozen=True)
class IdyomMelody:
    """What IDyOM says of one melody, one entry per note.

    Attributes
    ----------
    id : int
        IDyOM's number of the melody in its data set, from 1.
    name : str
        Its description there: of imported files the name without its ending.
    pitches : ndarray of int64
        MIDI pitches (``cpitch``).
    onset_ticks : ndarray of float64
        As IDyOM writes them, in the time base of its data set; NaN where the table has none.
    bits : ndarray of float64
        Information content of the target viewpoint.
    entropy_bits : ndarray of float64
        Entropy of the prediction; NaN where the table has none.
    """

    id: int
    name: str
    pitches: npt.NDArray[np.int64]
    onset_ticks: Floats
    bits: Floats
    entropy_bits: Floats


def read_dat(stream: TextIO, name: str, target: str = "cpitch") -> list[IdyomMelody]:
    """Read one of IDyOM's tables.

    Parameters
    ----------
    stream : text file
        Separated by spaces (IDyOM's default), tabs or commas; ``NA`` is a missing value.
    name : str
        What to call the file in messages.
    target : str
        The target viewpoint. A table of several has columns of its own for each (``cpitch.information.content``); where
        it hasn't, the columns of all together are taken, which are the same for a single target.

    Returns
    -------
    list of IdyomMelody
        By their ids, notes in their order.

    Raises
    ------
    TaskError
        When the table is not one of notes, or a value of a note is no number.
    """
    rows = _rows(stream, name)
    try:
        first = next(rows)
    except StopIteration:
        raise TaskError(f"{name}: an IDyOM table without notes") from None
    missing = [column for column in IDENTITY if column not in first]
    measure = next((c for c in (f"{target}.information.content", "information.content") if c in first), None)
    if missing or measure is None:
        lacking = missing[0] if missing else "information.content"
        raise TaskError(f"{name}: no column {lacking}; run IDyOM with :detail 3, which writes a row per note")
    melodies: dict[int, list[Mapping[str, str]]] = {}
    for row in (first, *rows):
        melodies.setdefault(int(_number(row, "melody.id", name)), []).append(row)
    return [_melody(number, notes, measure, name) for number, notes in sorted(melodies.items())]


def _rows(stream: TextIO, name: str) -> Iterator[dict[str, str]]:
    head = stream.readline()
    separator = next((mark for mark in "\t," if mark in head), " ")
    columns = [column.strip('"') for column in head.strip().split(separator) if column]
    for line, cells in enumerate(csv.reader(stream, delimiter=separator, skipinitialspace=True), start=2):
        if any(cells):
            kept = cells[: len(columns)]
            if len(kept) < len(columns) or any(cells[len(columns) :]):
                raise TaskError(f"{name}: line {line} has {len(cells)} cells for {len(columns)} columns")
            yield dict(zip(columns, kept, strict=True))


def _number(row: Mapping[str, str], column: str, name: str) -> float:
    """A finite number; NaN for a column that the table lacks, or ``NA``."""
    text = row.get(column, "NA")
    try:
        return math.nan if text == "NA" else float(text.lower().replace("d", "e"))  # Lisp writes doubles as 1.5d0
    except ValueError:
        where = f"melody {row.get('melody.id')}, note {row.get('note.id')}"
        raise TaskError(f"{name}: {where}: {column} is {text!r}, and must be a number") from None


def _melody(number: int, notes: list[Mapping[str, str]], measure: str, name: str) -> IdyomMelody:
    notes.sort(key=lambda row: _number(row, "note.id", name))
    entropy = measure.replace("information.content", "entropy")

    def column(key: str) -> Floats:
        return np.array([_number(row, key, name) for row in notes], dtype=np.float64)

    pitches, bits = column("cpitch"), column(measure)
    for key, values in (("cpitch", pitches), (measure, bits)):
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0])
            raise TaskError(f"{name}: melody {number}, note {notes[place].get('note.id')}: {key} is missing")
    title = notes[0].get("melody.name", "")
    return IdyomMelody(number, title, pitches.astype(np.int64), column("onset"), bits, column(entropy))
