"""Pitch surprisal of melodies from a pitch model, and how closely the IC of their recordings follows it, per piece."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from tasks.alignment import FRAME_S, FrameSeries, frame_index, note_ic
from tasks.audio.clusters import related
from tasks.audio.config import SplitConfig, TunesConfig
from tasks.audio.recording import Recording, recordings
from tasks.config import Config, PitchConfig
from tasks.contract import Artefact, Cell, Context, Result, TaskError
from tasks.ic import read_ic
from tasks.ppm import InterpolatedPpm

Floats = npt.NDArray[np.float64]

MIN_NOTES = 5
"""Fewest usable notes for which a piece gets a correlation."""

COLUMNS = (
    "spearman",
    "pearson",
    "spearman_partial",
    "spearman_interval",
    "pearson_interval",
    "baseline_interval_spearman",
    "baseline_interval_pearson",
    "baseline_repetition_spearman",
    "baseline_unigram_spearman",
)


class PitchSurprisalConfig(Config):
    """The config of the stage `pitch_surprisal`: that of the model, and the split whose tunes it learns."""

    order_max: int | None = PitchConfig().order_max
    escape: Literal["C"] = "C"
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
    return _bits(artefact, "surprisal.json")


def _bits(artefact: Artefact, name: str) -> dict[str, Floats]:
    table = json.loads(artefact.read_bytes(name))
    return {recording: np.array(bits, dtype=np.float64) for recording, bits in table.items()}


def _pitches(notes: Sequence[Sequence[float]]) -> list[int]:
    return [round(note[2]) for note in notes]


def _melodies(corpus: Artefact) -> list[Recording]:
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
    lines = [_pitches(tune["notes"]) for tune in training] + [_pitches(melody.notes or ()) for melody in melodies]
    clusters: list[set[int]] = [set() for _ in melodies]
    for tune, line in related(lines, split.ngram, split.overlap):
        if tune < len(training) <= line:
            clusters[line - len(training)].add(training[tune]["cluster"])
    return [frozenset(found) for found in clusters]


Bits = dict[str, list[float]]


def _surprisal(
    training: Sequence[Mapping[str, Any]], melodies: Sequence[Recording], split: SplitConfig, order_max: int | None
) -> tuple[Bits, Bits, int]:
    """Bits per note of every melody, those of order 0 alone, and how many melodies have relatives in training."""
    alphabet = {pitch for tune in training for pitch in _pitches(tune["notes"])}
    alphabet |= {pitch for melody in melodies for pitch in _pitches(melody.notes or ())}
    models: dict[frozenset[int], InterpolatedPpm] = {}
    bits: Bits = {}
    unigram: Bits = {}
    left_out = _relatives(training, melodies, split)
    for melody, own in zip(melodies, left_out, strict=True):
        if own not in models:
            kept = [_pitches(tune["notes"]) for tune in training if tune["cluster"] not in own]
            models[own] = InterpolatedPpm(kept, alphabet, order_max)
        pitches = _pitches(melody.notes or ())
        bits[melody.id] = models[own].surprisal(pitches).tolist()
        unigram[melody.id] = models[own].unigram(pitches).tolist()
    return bits, unigram, sum(map(bool, left_out))


def run_surprisal(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage `pitch_surprisal`: train the pitch model on one split's tunes, score the corpus's melodies.

    Writes ``surprisal.json``: recording id -> bits per note, the first one included; and ``unigram.json``, the same of
    the model's order 0 alone. A melody that is related to training tunes (in the sense of the tunes' split: shared
    interval n-grams) is scored by the model trained without the clusters of these, so nothing is scored from memory.

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
            melodies = _melodies(cell.input("corpus"))
            bits, unigram, n_left_out = _surprisal(training, melodies, split, config.order_max)
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


def _rank_residual(values: Floats, controls: Sequence[Floats]) -> Floats:
    design = np.column_stack([np.ones(values.size), *(stats.rankdata(control) for control in controls)])
    ranks = stats.rankdata(values)
    weights, *_ = np.linalg.lstsq(design, ranks, rcond=None)
    residual: Floats = ranks - design @ weights
    return residual


def _correlate(first: Floats, second: Floats, kind: Literal["spearman", "pearson"]) -> float | None:
    """Correlation, or None where one of the two does not vary."""
    if np.ptp(first) <= 1e-9 * np.abs(first).max() or np.ptp(second) <= 1e-9 * np.abs(second).max():
        return None
    measure = stats.spearmanr if kind == "spearman" else stats.pearsonr
    return float(measure(first, second).statistic)


def _correlations(
    ic: Floats, bits: Floats, unigram: Floats, notes: Sequence[Sequence[float]], series: FrameSeries
) -> dict[str, Any]:
    """All columns of one piece; the arrays are aligned with its notes, the first note is never used."""
    onsets = np.array([note[0] for note in notes], dtype=np.float64)
    interval = np.abs(np.diff(np.array(_pitches(notes), dtype=np.float64), prepend=np.nan))
    usable = np.isfinite(ic) & np.isfinite(bits)
    usable[0] = False
    if usable.sum() < MIN_NOTES:
        raise TaskError(f"{int(usable.sum())} usable notes, and a correlation needs {MIN_NOTES}")
    ic, bits, unigram, interval = ic[usable], bits[usable], unigram[usable], interval[usable]
    gap = np.diff(onsets, prepend=np.nan)[usable]
    phase = (onsets - np.asarray(series.start_s)[frame_index(series, onsets)])[usable] / FRAME_S
    partial = [_rank_residual(values, (interval, gap, phase)) for values in (ic, bits)]
    row: dict[str, Any] = {
        "n_notes": int(usable.sum()),
        "spearman": _correlate(ic, bits, "spearman"),
        "pearson": _correlate(ic, bits, "pearson"),
        "spearman_partial": _correlate(partial[0], partial[1], "pearson"),
        "spearman_interval": _correlate(ic, interval, "spearman"),
        "pearson_interval": _correlate(ic, interval, "pearson"),
        "baseline_interval_spearman": _correlate(interval, bits, "spearman"),
        "baseline_interval_pearson": _correlate(interval, bits, "pearson"),
        "baseline_repetition_spearman": _correlate(-(interval == 0).astype(np.float64), bits, "spearman"),
        "baseline_unigram_spearman": _correlate(unigram, bits, "spearman"),
    }
    if row["spearman"] is None:
        raise TaskError("IC or pitch surprisal is the same for every note")
    return row


def _piece_rows(cell: Cell, frames: Literal["onset", "onset_and_next"]) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per recording, and the recordings left out, each with its reason."""
    ic = read_ic(cell.input("surprisal"))
    bits = read_surprisal(cell.input("pitch_surprisal"))
    unigram = _bits(cell.input("pitch_surprisal"), "unigram.json")
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for melody in _melodies(cell.input("corpus")):
        notes = melody.notes or ()
        if melody.id not in ic or melody.id not in bits:
            skipped.append(f"{melody.id}: no {'IC' if melody.id not in ic else 'pitch surprisal'}")
            continue
        series = ic[melody.id]
        try:
            row = _correlations(note_ic(series, notes, frames), bits[melody.id], unigram[melody.id], notes, series)
        except TaskError as error:
            skipped.append(f"{melody.id}: {error}")
            continue
        cluster = "" if melody.cluster is None else melody.cluster
        rows.append({"piece": melody.piece, "recording": melody.id, "cluster": cluster, **row})
    return rows, skipped


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ("piece", "recording", "cluster", "n_notes", *COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return stream.getvalue()


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean over pieces of every column, with its standard error (None for a single piece)."""
    metrics: dict[str, float | None] = {}
    for column in COLUMNS:
        values = np.array([row[column] for row in rows if row[column] is not None], dtype=np.float64)
        name = column if column.startswith("baseline") else f"{column}_mean"
        metrics[name] = float(values.mean()) if values.size else None
        if column in ("spearman", "pearson", "spearman_partial"):
            error = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else None
            metrics[f"{column}_se"] = error
    return metrics


def run_correlation(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage `pitch`: per piece, the correlation of note-aligned IC with pitch surprisal, beside its baselines.

    Writes ``correlation.csv``, a row per recording. ``spearman`` and ``pearson``: IC with pitch surprisal;
    ``spearman_partial``: the same given |interval|, inter-onset interval and the onset's phase in its frame (ranks with
    those of the three regressed out); ``*_interval``: IC with |interval|; ``baseline_*``: what |interval|, merely not
    being a repeated note, or the pitch's rarity in training (unigram) has in common with pitch surprisal. The first
    note and notes without IC are left out.

    Parameters
    ----------
    cells : sequence of Cell
        Config ``{"ic_frames"}`` as in `PitchConfig`; inputs ``surprisal``, ``pitch_surprisal`` and ``corpus``.
    context : Context
        Only its progress is used.

    Yields
    ------
    Result
        Metrics: the columns' means over pieces (standard errors of the first three), n_pieces, skipped.
    """
    for done, cell in enumerate(cells):
        config = PitchConfig.model_validate(cell.config)
        try:
            rows, skipped = _piece_rows(cell, config.ic_frames)
            if not rows:
                raise TaskError("no piece can be correlated: " + "; ".join(skipped[:5]))
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        (cell.out_dir / "correlation.csv").write_text(_table(rows), encoding="utf-8")
        context.progress(done + 1, len(cells), {})
        yield Result(cell.signature, metrics={**_summary(rows), "n_pieces": len(rows), "skipped": skipped[:20]})
