"""IDyOM's own results on a set of melodies, and the same melodies scored here on the same folds."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.contract import TaskError
from tasks.ppm.idyom import Expectation, Melody, Memory, PitchModel
from tasks.ppm.star import Floats

COLUMNS = ("ltm", "stm", "both")
MEMORIES: Mapping[str, Memory] = {"ltm": "ltm", "stm": "stm", "both": "both+"}
"""The memory that each column of the reference comes from."""


@dataclass(frozen=True)
class Scored:
    """A melody with the fold that it is tested in, and IDyOM's bits per note by column."""

    name: str
    fold: int
    pitches: tuple[int, ...]
    bits: Mapping[str, Floats]


def read_reference(path: Path) -> list[Scored]:
    """Read a table of IDyOM's results, one row per note.

    Parameters
    ----------
    path : Path
        A csv, gzipped or not, with the columns melody, fold, cpitch, ic_ltm_bits, ic_stm_bits and ic_both_bits. Notes
        are in their order, and melodies in IDyOM's: a long-term model that learns depends on it.

    Raises
    ------
    TaskError
        When a column is missing or a row can't be read.
    """
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
        rows = list(csv.DictReader(stream))
    melodies: dict[str, list[dict[str, str]]] = {}
    try:
        for row in rows:
            melodies.setdefault(row["melody"], []).append(row)
        return [_scored(name, notes) for name, notes in melodies.items()]
    except (KeyError, ValueError, TypeError) as error:
        raise TaskError(f"{path.name}: not a table of IDyOM's results by note ({error!r})") from error


def _scored(name: str, notes: Sequence[Mapping[str, str]]) -> Scored:
    bits = {column: np.array([float(note[f"ic_{column}_bits"]) for note in notes]) for column in COLUMNS}
    return Scored(name, int(notes[0]["fold"]), tuple(int(note["cpitch"]) for note in notes), bits)


def score_fold(reference: Sequence[Scored], fold: int, memory: Memory) -> list[tuple[Scored, Expectation]]:
    """Score the melodies of one fold by a model of all others, one after the other, as IDyOM does."""
    alphabet = {pitch for melody in reference for pitch in melody.pitches}
    training = [Melody(melody.pitches) for melody in reference if melody.fold != fold]
    model = PitchModel(training, alphabet, memory)
    tested = [melody for melody in reference if melody.fold == fold]
    return [(melody, model.score(Melody(melody.pitches), keep=True)) for melody in tested]


def agreement(scored: Sequence[tuple[Scored, Expectation]], column: str) -> tuple[float, float]:
    """Pearson correlation per note with IDyOM's bits, and the ratio of the mean to IDyOM's."""
    own = np.concatenate([expectation.bits for _, expectation in scored])
    theirs = np.concatenate([melody.bits[column] for melody, _ in scored])
    return float(np.corrcoef(own, theirs)[0, 1]), float(own.mean() / theirs.mean())
