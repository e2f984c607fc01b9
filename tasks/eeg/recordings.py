"""Stage `eeg`: one subject's EEG, simulated or read from a file, cleaned and cut to its stimuli."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field
from safetensors.numpy import save_file

from tasks.alignment import note_ic
from tasks.audio.recording import Recording, load_audio, recordings
from tasks.config import Config
from tasks.contract import Artefact, Cell, Context, OpenFile, Result, TaskError
from tasks.eeg import masks
from tasks.eeg.bids import BidsFiles
from tasks.eeg.config import PreprocessingConfig, SimulationConfig
from tasks.eeg.features import envelope, onset_source
from tasks.eeg.masks import Spans
from tasks.eeg.montage import biosemi_64
from tasks.eeg.preprocessing import Clean, clean_all
from tasks.eeg.quality import gaps, quality
from tasks.eeg.raw import RawFiles
from tasks.eeg.responses import Driver, Kind, compressed
from tasks.eeg.simulation import DRIVERS, Stimulus, frame_driver, note_impulses, simulate, z_scored
from tasks.eeg.source_config import ShippedFiles
from tasks.eeg.sources import CndFiles, marked, read_source
from tasks.eeg.trials import Floats, Sensors, Skipped, Trial, cut
from tasks.ic import read_ic
from tasks.pitch import read_surprisal


class EegCellConfig(Config):
    """The config of one subject: read from `cnd`, `raw` or `bids`, or simulated as a listener of `kind`.

    `shipped` is where the onsets come from that a simulated listener answers to, if not from us.
    """

    subject: str
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    cnd: CndFiles | None = None
    raw: RawFiles | None = None
    bids: BidsFiles | None = None
    seed: int = 0
    kind: Kind = "listener"
    simulation: SimulationConfig | None = None
    shipped: ShippedFiles | None = Field(None, json_schema_extra={"neutral": None})
    n_channels: int = 64
    snr_db: float | None = None

    @property
    def simulated(self) -> bool:
        return self.cnd is None and self.raw is None and self.bids is None


@dataclass(frozen=True)
class _Heard:
    """What there is of a subject before cleaning."""

    trials: Sequence[Trial]
    sensors: Sensors
    skipped: Sequence[Skipped]
    truth: dict[str, Any] | None
    other_channels: Mapping[str, Sequence[str]] = field(default_factory=dict)


class _Envelopes:
    """Compressive envelopes and onsets of a corpus at one rate, computed once for all subjects of a task."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, ShippedFiles | None], dict[str, tuple[Floats, Floats]]] = {}

    def of(
        self, corpus: Artefact, rate: int, shipped: ShippedFiles | None, open_file: OpenFile
    ) -> Mapping[str, tuple[Floats, Floats]]:
        key = (corpus.signature, rate, shipped)
        if key not in self._found:
            onsets = onset_source(corpus, shipped, open_file)
            found = {}
            for recording in recordings(corpus):
                audio = load_audio(recording, corpus, open_file)
                found[recording.id] = (compressed(envelope(audio, rate)), onsets(recording, audio, rate))
            self._found[key] = found
        return self._found[key]


def _need_notes(melodies: Sequence[Recording], kind: Kind) -> None:
    silent = [melody.id for melody in melodies if not melody.notes]
    if silent and kind == "listener":
        raise TaskError(
            f"simulated listeners answer to pitch surprisal, and the notes of {', '.join(silent[:3])} are unknown; "
            "stimuli must be rendered from melodies (chorales, midi), or the EEG must be real"
        )


def _note_values(cell: Cell, kind: Kind, melodies: Sequence[Recording]) -> list[Floats]:
    """Per recording one value per note: pitch surprisal of listeners, IC of the positive canary; z-scored over all."""
    if kind == "listener":
        bits = read_surprisal(cell.input("pitch_surprisal"))
        values = [bits.get(melody.id, np.full(len(melody.notes or ()), np.nan)) for melody in melodies]
    else:
        series = read_ic(cell.input("surprisal"))
        values = [
            note_ic(series[melody.id], melody.notes or (), "onset_and_next")
            if melody.id in series
            else np.full(len(melody.notes or ()), np.nan)
            for melody in melodies
        ]
    if not any(np.isfinite(value).any() for value in values):
        raise TaskError("no note of the stimuli has a value that this listener could answer to")
    return z_scored(values)


def _stimuli(
    cell: Cell, config: EegCellConfig, rate: int, envelopes: _Envelopes, open_file: OpenFile
) -> list[Stimulus]:
    corpus = cell.input("corpus")
    melodies = recordings(corpus)
    _need_notes(melodies, config.kind)
    acoustics = envelopes.of(corpus, rate, config.shipped, open_file)
    drivers: list[dict[Driver, Floats]] = [
        {"envelope": acoustics[melody.id][0], "onset": acoustics[melody.id][1]} for melody in melodies
    ]
    name: Driver = "surprisal" if config.kind == "listener" else "ic"
    if config.kind == "positive" and not all(melody.notes for melody in melodies):
        for own, held in zip(drivers, _held_ic(cell, melodies, acoustics, rate), strict=True):
            own[name] = held
    elif name in DRIVERS[config.kind]:
        for own, melody, z in zip(drivers, melodies, _note_values(cell, config.kind, melodies), strict=True):
            times = [note[0] for note in melody.notes or ()]
            own[name] = note_impulses(times, z, rate, own["envelope"].size)
    return [
        Stimulus(melody.id, melody.duration_s, rate, own["envelope"].size, own)
        for melody, own in zip(melodies, drivers, strict=True)
    ]


def _held_ic(
    cell: Cell, melodies: Sequence[Recording], acoustics: Mapping[str, tuple[Floats, Floats]], rate: int
) -> list[Floats]:
    """IC held over its frames, for stimuli without notes; z-scored over all, 0 where there is none."""

    series = read_ic(cell.input("surprisal"))
    lengths = [acoustics[melody.id][0].size for melody in melodies]
    return frame_driver([series.get(melody.id) for melody in melodies], lengths, rate)


def _simulated(cell: Cell, config: EegCellConfig, envelopes: _Envelopes, open_file: OpenFile) -> _Heard:
    simulation = config.simulation or SimulationConfig()
    stimuli = _stimuli(cell, config, simulation.sample_rate_hz, envelopes, open_file)
    if not stimuli:
        raise TaskError("the stimuli have no recording, so there is nothing to listen to")
    made = simulate(config.kind, config.seed, config.subject, stimuli, simulation, config.n_channels, config.snr_db)
    return _Heard(made.trials, made.sensors, (), made.truth(config.preprocessing))


@dataclass(frozen=True)
class _Cleaned:
    """Cleaned trials by key, those left out, what else is to be said of trials, and what was removed as eyes."""

    done: dict[str, Clean]
    unclean: list[Skipped]
    remarks: list[Skipped]
    ica: dict[str, Any] | None


def _cleaned(heard: _Heard, config: EegCellConfig, scalp: bool) -> _Cleaned:
    done: dict[str, Clean] = {}
    unclean: list[Skipped] = []
    reference, rate = config.preprocessing.reference if scalp else None, config.preprocessing.sample_rate_hz
    try:
        found, ica = clean_all(heard.trials, heard.sensors.for_splines, config.preprocessing, reference, repair=scalp)
    except TaskError as error:
        raise TaskError(f"{config.subject}: {error}") from None
    for trial, result in zip(heard.trials, found, strict=True):
        reason = str(result) if isinstance(result, TaskError) else _all_masked(trial, result, rate)
        if isinstance(result, TaskError) or reason is not None:
            unclean.append(Skipped(trial.name, str(reason), trial.recording))
        else:
            done[trial.key] = result
    if not done:
        reasons = "; ".join(str(part) for part in (unclean or heard.skipped)[:3]) or "there are none"
        raise TaskError(f"{config.subject}: no trial can be used: {reasons}")
    used = [trial for trial in heard.trials if trial.key in done]
    return _Cleaned(done, unclean, [*marked(used), *gaps(used, done)], ica)


def _masked(trial: Trial, cleaned: Clean, rate: int) -> Spans:
    """Samples of a cleaned trial that annotations call bad."""
    return masks.of_seconds([span[:2] for span in trial.bad_spans], rate, len(cleaned.data))


def _all_masked(trial: Trial, cleaned: Clean, rate: int) -> str | None:
    """Why nothing is left of a trial; None where something is."""
    if not trial.bad_spans or masks.count(_masked(trial, cleaned, rate)) < len(cleaned.data):
        return None
    kinds = ", ".join(dict.fromkeys(description for _, _, description in trial.bad_spans))
    return f"all of its {trial.duration_s:.2f} s are marked {kinds}; check the annotations of the file"


def _scaled(
    done: Mapping[str, Clean], kept: Sequence[int], per_channel: bool, masked: Mapping[str, Spans]
) -> dict[str, np.ndarray[Any, Any]]:
    """Kept channels over one standard deviation: that of all of them in all trials, or of each channel by itself.

    Masked samples don't count for it.
    """
    data = {key: trial.data[:, kept] for key, trial in done.items()}
    together = np.concatenate([masks.kept(values, masked[key]) for key, values in data.items()])
    deviation = together.std(axis=0) if per_channel else np.array(together.std())
    scale = np.where(deviation > 0, deviation, 1.0)
    return {key: np.ascontiguousarray(values / scale, dtype=np.float32) for key, values in data.items()}


def _write(cell: Cell, config: EegCellConfig, heard: _Heard, scalp: bool) -> dict[str, Any]:
    """Clean, write both files, and return the metrics."""
    cleaned = _cleaned(heard, config, scalp)
    done, skipped = cleaned.done, [*heard.skipped, *cleaned.unclean, *cleaned.remarks]
    lost = {name for trial in done.values() for name in trial.unrepaired}
    names = heard.sensors.names
    wanted = config.preprocessing.kept(names) if scalp else range(len(names))
    kept = [place for place in wanted if names[place] not in lost]
    if not kept:
        raise TaskError(
            f"{config.subject}: each kept channel is bad in some trial, and without positions none can be repaired"
        )
    rate = config.preprocessing.sample_rate_hz
    used = [trial for trial in heard.trials if trial.key in done]
    masked = {trial.key: _masked(trial, done[trial.key], rate) for trial in used}
    arrays = _scaled(done, kept, not scalp, masked)
    found = {name for trial in done.values() for name in trial.bads}
    bads = [name for name in heard.sensors.names if name in found]
    positions = heard.sensors.positions
    notes = [note for trial in used if (note := cut(trial, rate)) is not None]
    table = {
        "subject": config.subject,
        "sample_rate_hz": rate,
        "channels": [heard.sensors.names[place] for place in kept],
        "positions": None if positions is None else positions[kept].tolist(),
        "simulated": config.simulated,
        "bads": bads,
        "other_channels": {kind: list(names) for kind, names in heard.other_channels.items()},
        "removed": [name for name in bads if name in lost],
        "trials": [
            {
                "key": trial.key,
                "trial": trial.name,
                "recording": trial.recording,
                "repetition": trial.repetition,
                "n_samples": len(arrays[trial.key]),
                "bads": list(done[trial.key].bads),
                "bads_why": done[trial.key].why,
                "original_position": trial.original_position,
                "bad_spans": [list(span) for span in trial.bad_spans],
                **({"masks": masked[trial.key]} if masked[trial.key] else {}),
            }
            for trial in used
        ],
        **({"notes": [{"trial": n.trial, "piece": n.piece, "note": n.reason} for n in notes]} if notes else {}),
        "skipped": [{"trial": part.trial, "piece": part.piece, "reason": part.reason} for part in skipped],
        "quality": quality(heard.trials, done, cleaned.unclean, rate),
        "ica": cleaned.ica,
        "truth": heard.truth,
    }
    save_file({key: arrays[key] for key in sorted(arrays)}, cell.out_dir / "eeg.safetensors")
    (cell.out_dir / "eeg.json").write_text(json.dumps(table, sort_keys=True), encoding="utf-8")
    return {
        "n_trials": len(arrays),
        "seconds": sum(len(values) for values in arrays.values()) / rate,
        "n_bad_channels": len(bads),
        "skipped": [str(part) for part in skipped[:20]],
        "simulated": config.simulated,
        **({"notes": [str(note) for note in notes[:20]]} if notes else {}),
    }


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage `eeg`: one subject per cell.

    Writes ``eeg.safetensors`` ("<recording id>/<repetition>" (T, C) float32, sample k at ``k / rate`` of the recording)
    and ``eeg.json``. EEG of a scalp is divided by one standard deviation per subject, that of canaries whose channels
    are listeners by one per channel. A trial's ``masks`` in eeg.json are half-open ranges of samples that annotations
    call bad (absent: none), ``notes`` what was cut at the ends of trials.

    Parameters
    ----------
    cells : sequence of Cell
        Config as `EegCellConfig`; inputs ``corpus`` (the stimuli), for listeners ``pitch_surprisal``, for the positive
        canary ``surprisal``.
    context : Context
        Opens the EEG's files, and recordings that lie outside the ledger.

    Yields
    ------
    Result
        Metrics n_trials, seconds, n_bad_channels, skipped, simulated, notes where there are any; or why the whole
        subject is lost.
    """
    envelopes = _Envelopes()
    for done, cell in enumerate(cells):
        config = EegCellConfig.of_signed(cell.config)
        scalp = not config.simulated or config.kind in ("listener", "positive")
        if config.simulated and config.kind == "positive":  # it has the BioSemi cap, whatever the subjects have
            own = config.preprocessing.among(biosemi_64().names)
            config = config.model_copy(update={"preprocessing": own})
        try:
            if not config.simulated:
                corpus, sources = cell.input("corpus"), (config.cnd, config.raw, config.bids)
                found = read_source(corpus, config.subject, *sources, context.open_file)
                heard = _Heard(found.trials, found.sensors, found.skipped, None, found.other_channels)
            else:
                heard = _simulated(cell, config, envelopes, context.open_file)
            metrics = _write(cell, config, heard, scalp)
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        context.progress(done + 1, len(cells), {})
        yield Result(cell.signature, metrics=metrics)
