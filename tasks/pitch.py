"""Stage `pitch_surprisal`: how unexpected every note of a melody is to a model of pitch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.audio.clusters import related
from tasks.audio.config import SplitConfig, TunesConfig
from tasks.audio.recording import Recording, recordings
from tasks.config import PitchModelConfig
from tasks.contract import Artefact, Cell, Context, Result, TaskError
from tasks.ppm.idyom import Melody, PitchModel
from tasks.ppm.interpolated import InterpolatedPpm
from tasks.ppm.viewpoints import tonic_of

Floats = npt.NDArray[np.float64]


class PitchSurprisalConfig(PitchModelConfig):
    """The config of the stage `pitch_surprisal`: that of the model, and the split whose tunes it learns."""

    train_split: Literal["train", "dev", "test", "all"] = "train"


def read_surprisal(artefact: Artefact) -> dict[str, Floats]:
    """Pitch surprisal by recording id.

    Parameters
    ----------
    artefact : Artefact
        A finished cell of `pitch_surprisal`.

    Returns
    -------
    dict of str to ndarray of float64, shape (number of notes,)
        Bits per note, aligned with the recording's notes; the first note included.
    """
    return read_bits(artefact, "surprisal.json")


def read_bits(artefact: Artefact, name: str) -> dict[str, Floats]:
    """Bits per note by recording id, from one file of a finished cell of `pitch_surprisal`."""
    table = json.loads(artefact.read_bytes(name))
    return {recording: np.array(bits, dtype=np.float64) for recording, bits in table.items()}


def pitches_of(notes: Sequence[Sequence[float]]) -> list[int]:
    """MIDI pitches of notes that are (onset, duration, pitch, ...)."""
    return [round(note[2]) for note in notes]


def melodies_of(corpus: Artefact) -> list[Recording]:
    """The recordings whose notes are known."""
    melodies = [recording for recording in recordings(corpus) if recording.notes]
    if not melodies:
        raise TaskError(
            "pitch surprisal needs notes, and no recording of this corpus has any; allowed are rendered sources "
            "(chorales, midi): choose one, or leave out the pitch stage and simulated listeners"
        )
    return melodies


def _training_tunes(tunes: Artefact, split: str) -> list[Mapping[str, Any]]:
    listed = json.loads(tunes.read_bytes("tunes.json"))["tunes"]
    chosen = [tune for tune in listed if split in ("all", tune["split"]) and tune["notes"]]
    if not chosen:
        raise TaskError(f"the pitch model has nothing to learn from: the split {split} has no tunes; enlarge its share")
    return chosen


def _relatives(
    training: Sequence[Mapping[str, Any]], melodies: Sequence[Recording], split: SplitConfig
) -> list[frozenset[int]]:
    """For each melody the clusters of the training tunes that it is related to: melodically, whatever their ids."""
    lines = [pitches_of(tune["notes"]) for tune in training] + [pitches_of(melody.notes or ()) for melody in melodies]
    clusters: list[set[int]] = [set() for _ in melodies]
    for tune, line in related(lines, split.ngram, split.overlap):
        if tune < len(training) <= line:
            clusters[line - len(training)].add(training[tune]["cluster"])
    return [frozenset(found) for found in clusters]


Notes = Sequence[Sequence[float]]
Bits = dict[str, list[float]]


class _Model:
    """The pitch model of a config, and pitch counts alone, trained on the same tunes."""

    def __init__(self, training: Sequence[Notes], alphabet: set[int], config: PitchSurprisalConfig) -> None:
        lines = [pitches_of(notes) for notes in training]
        self._counts = InterpolatedPpm(lines, alphabet, config.order_max)
        self._viewpoint = config.viewpoint
        self._idyom = (
            PitchModel(
                map(self._melody, training), alphabet, config.model, config.viewpoint, config.order_max, config.escape
            )
            if config.model != "ppm"
            else None
        )

    def _melody(self, notes: Notes) -> Melody:
        pitches = pitches_of(notes)
        with_degrees = self._viewpoint == "cpintfref x cpint"
        return Melody(pitches, tonic_of(pitches, [note[1] for note in notes]) if with_degrees else 0)

    def bits(self, notes: Notes) -> Floats:
        """Surprisal of each note."""
        if self._idyom is None:
            return self._counts.surprisal(pitches_of(notes))
        return self._idyom.score(self._melody(notes)).bits

    def unigram(self, notes: Notes) -> Floats:
        """The same from pitch counts alone."""
        return self._counts.unigram(pitches_of(notes))


def _surprisal(
    training: Sequence[Mapping[str, Any]],
    melodies: Sequence[Recording],
    split: SplitConfig,
    config: PitchSurprisalConfig,
) -> tuple[Bits, Bits, int]:
    """Bits per note of every melody, those of order 0 alone, and how many melodies have relatives in training."""
    alphabet = {pitch for tune in training for pitch in pitches_of(tune["notes"])}
    alphabet |= {pitch for melody in melodies for pitch in pitches_of(melody.notes or ())}
    models: dict[frozenset[int], _Model] = {}
    bits: Bits = {}
    unigram: Bits = {}
    left_out = _relatives(training, melodies, split)
    for melody, own in zip(melodies, left_out, strict=True):
        if own not in models:
            models[own] = _Model([tune["notes"] for tune in training if tune["cluster"] not in own], alphabet, config)
        bits[melody.id] = models[own].bits(melody.notes or ()).tolist()
        unigram[melody.id] = models[own].unigram(melody.notes or ()).tolist()
    return bits, unigram, sum(map(bool, left_out))


def run_surprisal(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage `pitch_surprisal`: train the pitch model on one split's tunes, score the corpus's melodies.

    Writes ``surprisal.json``: recording id -> bits per note, the first one included; and ``unigram.json``, the same of
    the model's order 0 alone. A melody that is related to training tunes (in the sense of the tunes' split: shared
    interval n-grams) is scored by the model trained without the clusters of these, so nothing is scored from memory;
    and what a model learns of one melody (``ltm+``, ``both+``) it forgets before the next.

    Parameters
    ----------
    cells : sequence of Cell
        Config as `PitchSurprisalConfig`; inputs ``tunes`` and ``corpus`` (with notes).
    context : Context
        Only its progress is used.

    Yields
    ------
    Result
        Metrics mean_bits, n_notes, n_tunes_trained (of which single melodies leave out their relatives),
        n_pieces_without_own_cluster (the melodies that do).
    """
    for done, cell in enumerate(cells):
        config = PitchSurprisalConfig.model_validate(cell.config)
        try:
            tunes = cell.input("tunes")
            training, split = _training_tunes(tunes, config.train_split), TunesConfig.model_validate(tunes.config).split
            melodies = melodies_of(cell.input("corpus"))
            bits, unigram, n_left_out = _surprisal(training, melodies, split, config)
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        for name, table in (("surprisal", bits), ("unigram", unigram)):
            (cell.out_dir / f"{name}.json").write_text(json.dumps(table, sort_keys=True), encoding="utf-8")
        every = np.concatenate([np.array(values) for values in bits.values()])
        context.progress(done + 1, len(cells), {})
        yield Result(
            cell.signature,
            metrics={
                "mean_bits": float(every.mean()),
                "n_notes": int(every.size),
                "n_tunes_trained": len(training),
                "n_pieces_without_own_cluster": n_left_out,
            },
        )
