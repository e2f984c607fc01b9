"""Stage `pitch`: how closely IC at note onsets follows pitch surprisal, piece by piece, beside what needs no model."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from tasks.alignment import FRAME_S, NoteFrames, frame_index, note_ic
from tasks.audio.recording import Recording, load_audio
from tasks.cluster_bootstrap import bootstrap
from tasks.config import PitchConfig
from tasks.contract import Artefact, Cell, Context, Result, TaskError
from tasks.ic import FRAME_SAMPLES, IcSeries, read_ic
from tasks.pitch import melodies_of, pitches_of, read_bits, read_surprisal

Floats = npt.NDArray[np.float64]

MIN_NOTES = 5
"""Fewest usable notes for which a piece gets a correlation."""
SILENCE_DB = -100.0
"""The level of frames without sound, and of what is weaker."""

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
MAIN = ("spearman", "pearson", "spearman_partial")
"""The columns that get a spread over pieces."""


class Notes(NamedTuple):
    """Of each note of one piece, shape (number of notes,): what is correlated, and what could explain it away.

    `ic` in nats; `bits` and `unigram` in bits; `interval` in semitones without sign and `gap` in seconds, both from the
    note before and NaN for the first; `level_db` of the frames that the IC is of; `phase` of the onset in its frame, in
    [0, 1).
    """

    ic: Floats
    bits: Floats
    unigram: Floats
    interval: Floats
    gap: Floats
    level_db: Floats
    phase: Floats

    def usable(self) -> Notes:
        """The notes but the first that have a finite value of everything."""
        finite = np.isfinite(np.array(self)).sum(axis=0) == len(self)
        kept = np.flatnonzero(finite[1:]) + 1
        if kept.size < MIN_NOTES:
            raise TaskError(f"{kept.size} usable notes, and a correlation needs {MIN_NOTES}")
        return Notes(*(values[kept] for values in self))


def correlations(notes: Notes) -> dict[str, float | int | None]:
    """All columns of one piece.

    Parameters
    ----------
    notes : Notes
        Of one piece, in their order; the first note is left out, and so are those without a value.

    Returns
    -------
    dict
        ``n_notes`` and `COLUMNS`: correlations, None where one of the two does not vary.

    Raises
    ------
    TaskError
        When fewer than `MIN_NOTES` notes are usable, or IC or surprisal is the same for all.
    """
    used = notes.usable()
    controls = (used.interval, used.gap, used.level_db, used.phase)
    ic, bits = (_rank_residual(values, controls) for values in (used.ic, used.bits))
    repeated = (used.interval == 0).astype(np.float64)
    row: dict[str, float | int | None] = {
        "n_notes": used.ic.size,
        "spearman": _correlate(used.ic, used.bits, "spearman"),
        "pearson": _correlate(used.ic, used.bits, "pearson"),
        "spearman_partial": _correlate(ic, bits, "pearson"),
        "spearman_interval": _correlate(used.ic, used.interval, "spearman"),
        "pearson_interval": _correlate(used.ic, used.interval, "pearson"),
        "baseline_interval_spearman": _correlate(used.interval, used.bits, "spearman"),
        "baseline_interval_pearson": _correlate(used.interval, used.bits, "pearson"),
        "baseline_repetition_spearman": _correlate(-repeated, used.bits, "spearman"),
        "baseline_unigram_spearman": _correlate(used.unigram, used.bits, "spearman"),
    }
    if row["spearman"] is None:
        raise TaskError("IC or pitch surprisal is the same for every note")
    return row


def _rank_residual(values: Floats, controls: Sequence[Floats]) -> Floats:
    """Ranks of `values`, less what the ranks of `controls` predict of them by least squares."""
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


def frame_levels_db(audio: npt.NDArray[np.float32], start_s: Floats) -> Floats:
    """Level of each latent frame: mean power of its 4096 samples at 44 100 Hz, in dB of full scale.

    Parameters
    ----------
    audio : ndarray of float32, shape (n_samples,)
        One recording at 44 100 Hz.
    start_s : ndarray of float64, shape (T,)
        Start of each frame in seconds of the recording.

    Returns
    -------
    ndarray of float64, shape (T,)
        At least `SILENCE_DB`, which is also the level of a frame after the end.
    """
    first = np.rint(start_s / FRAME_S * FRAME_SAMPLES).astype(np.int64)
    power = np.concatenate([[0.0], np.cumsum(audio.astype(np.float64) ** 2)])
    end = np.minimum(first + FRAME_SAMPLES, audio.size)
    mean = np.maximum(power[end] - power[np.minimum(first, audio.size)], 0.0) / FRAME_SAMPLES
    return np.asarray(10 * np.log10(np.maximum(mean, 10 ** (SILENCE_DB / 10))), dtype=np.float64)


def notes_of(
    series: IcSeries,
    notes: Sequence[Sequence[float]],
    level_db: Floats,
    bits: Floats,
    unigram: Floats,
    frames: NoteFrames,
) -> Notes:
    """Put everything on the notes of one recording.

    Parameters
    ----------
    series : IcSeries
        T frames.
    notes : sequence of (onset in s, duration in s, MIDI pitch)
    level_db : ndarray of float64, shape (T,)
        Level of the same frames.
    bits, unigram : ndarray of float64, shape (number of notes,)
    frames : {"onset", "onset_and_next", "maximum"}
        Which frames a note gets, of IC and of level.
    """
    onsets = np.array([note[0] for note in notes], dtype=np.float64)
    index = frame_index(series, onsets)
    start_s = np.append(np.asarray(series.start_s, dtype=np.float64), np.nan)
    return Notes(
        ic=note_ic(series, notes, frames),
        bits=bits,
        unigram=unigram,
        interval=np.abs(np.diff(np.array(pitches_of(notes), dtype=np.float64), prepend=np.nan)),
        gap=np.diff(onsets, prepend=np.nan),
        level_db=note_ic(replace(series, values=level_db), notes, frames),
        phase=(onsets - start_s[index]) / FRAME_S,
    )


class _Levels:
    """Levels of the frames of a task's recordings: all cells of a task share them, so each is decoded once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[tuple[str, str, int, int], Floats] = {}

    def of(self, corpus: Artefact, melody: Recording, series: IcSeries) -> Floats:
        key = (corpus.signature, melody.id, series.lead_samples, len(series.values))
        if key not in self._known:
            audio = load_audio(melody, corpus, self._context.open_file)
            self._known[key] = frame_levels_db(audio, series.start_s)
        return self._known[key]


def _piece_rows(cell: Cell, frames: NoteFrames, levels: _Levels) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per recording, and the recordings left out, each with its reason."""
    ic, corpus = read_ic(cell.input("surprisal")), cell.input("corpus")
    bits = read_surprisal(cell.input("pitch_surprisal"))
    unigram = read_bits(cell.input("pitch_surprisal"), "unigram.json")
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for melody in melodies_of(corpus):
        known = melody.notes or ()
        if melody.id not in ic or melody.id not in bits:
            skipped.append(f"{melody.id}: no {'IC' if melody.id not in ic else 'pitch surprisal'}")
            continue
        series = ic[melody.id]
        try:
            level_db = levels.of(corpus, melody, series)
            row = correlations(notes_of(series, known, level_db, bits[melody.id], unigram[melody.id], frames))
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


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | int | None]:
    """Mean over pieces of every column; of `MAIN` ones also the standard error and the interval over clusters.

    Parameters
    ----------
    rows : sequence of mapping
        One per recording: piece, cluster ("" for none), and `COLUMNS`.
    """
    metrics: dict[str, float | int | None] = {}
    clusters = [row["piece"] if row["cluster"] == "" else row["cluster"] for row in rows]
    for column in COLUMNS:
        values = np.array([np.nan if row[column] is None else row[column] for row in rows], dtype=np.float64)
        finite = values[np.isfinite(values)]
        name = column if column.startswith("baseline") else f"{column}_mean"
        metrics[name] = float(finite.mean()) if finite.size else None
        if column in MAIN:
            estimate = bootstrap(values[np.newaxis], clusters)
            metrics[f"{column}_se"] = float(finite.std(ddof=1) / np.sqrt(finite.size)) if finite.size > 1 else None
            metrics[f"{column}_low"] = estimate.low if estimate else None
            metrics[f"{column}_high"] = estimate.high if estimate else None
    return {**metrics, "n_pieces": len(rows), "n_clusters": len(set(clusters))}


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Correlate note-aligned IC with pitch surprisal.

    Writes ``correlation.csv``, a row per recording. ``spearman`` and ``pearson``: IC with pitch surprisal;
    ``spearman_partial``: the same given |interval|, inter-onset interval, level and the onset's phase in its frame
    (ranks with those of the four regressed out); ``*_interval``: IC with |interval|; ``baseline_*``: what |interval|,
    merely not being a repeated note, or the pitch's rarity in training (unigram) has in common with pitch surprisal.
    The first note and notes without IC are left out.

    Parameters
    ----------
    cells : sequence of Cell
        Config ``{"ic_frames"}`` as in `PitchConfig`; inputs ``surprisal``, ``pitch_surprisal`` and ``corpus``.
    context : Context
        Opens recordings that aren't rendered.

    Yields
    ------
    Result
        Metrics: the columns' means over pieces; of the first three their standard errors, and 95 % intervals
        (``_low``, ``_high``) that draw whole clusters of tunes; n_pieces, n_clusters, skipped.
    """
    levels = _Levels(context)
    for done, cell in enumerate(cells):
        config = PitchConfig.model_validate(cell.config)
        try:
            rows, skipped = _piece_rows(cell, config.ic_frames, levels)
            if not rows:
                raise TaskError("no piece can be correlated: " + "; ".join(skipped[:5]))
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        (cell.out_dir / "correlation.csv").write_text(_table(rows), encoding="utf-8")
        context.progress(done + 1, len(cells), {})
        yield Result(cell.signature, metrics={**summary(rows), "skipped": skipped[:20]})
