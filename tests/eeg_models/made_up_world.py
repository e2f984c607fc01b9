"""A small world of stimuli and EEG, made by the file contract of the stages before, without running them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from tasks.contract import Artefact, Cell, Result
from tasks.eeg.jobs import FitConfig
from tasks.eeg.regressors import ic_regressor, read_reduced
from tasks.seeds import numpy_stream

RATE = 32
FRAME_S = 4096 / 44100
LAGS_S = (0.0, 0.35)
Array = np.ndarray[Any, Any]


def artefact(
    stage: str, signature: str, files: Mapping[str, bytes], config: Mapping[str, Any] | None = None
) -> Artefact:
    """A finished cell whose files lie in memory."""
    return Artefact(signature, stage, config or {}, {}, lambda name: io.BytesIO(files[name]))


def smooth(values: Array, width: int) -> Array:
    """Moving average along time."""
    kernel = np.hanning(width + 2)[1:-1]
    return np.apply_along_axis(lambda column: np.convolve(column, kernel / kernel.sum(), mode="same"), 0, values)


@dataclass(frozen=True)
class Series:
    values: Array
    start_s: Array


@dataclass
class World:
    """Stimuli with notes, features and IC; `eeg` makes subjects."""

    n_pieces: int = 4
    seconds: float = 24.0
    seed: int = 0
    reduced: str = "acoustic_plus"
    form: str = "onset"
    lambdas: tuple[float, ...] = (1e-3, 1e-1)
    leak: float = 0.0
    features: dict[str, Array] = field(default_factory=dict)
    notes: dict[str, list[list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for piece in self.pieces:
            random = numpy_stream("world", self.seed, piece)
            n = round(self.seconds * RATE)
            onsets = np.cumsum(random.uniform(0.15, 0.6, size=round(self.seconds * 4)))
            onsets = onsets[onsets < self.seconds - 0.5]
            self.notes[piece] = [[float(onset), 0.2, 60] for onset in onsets]
            pulses = np.zeros((n, 1))
            pulses[np.round(onsets * RATE).astype(int), 0] = 1.0
            bands = np.abs(smooth(random.normal(size=(n, 8)), 5)) + smooth(pulses * random.uniform(0.5, 2, (n, 1)), 5)
            self.features[f"{piece}/spectrogram"] = bands
            self.features[f"{piece}/derivative"] = np.maximum(np.diff(bands, axis=0, prepend=bands[:1]), 0)
            self.features[f"{piece}/onsets"] = pulses
            self.features[f"{piece}/envelope"] = bands.mean(axis=1, keepdims=True) ** 2

    @property
    def pieces(self) -> list[str]:
        return [f"piece{number}" for number in range(self.n_pieces)]

    @property
    def n_samples(self) -> int:
        return round(self.seconds * RATE)

    def feature_artefact(self) -> Artefact:
        table = {"sample_rate_hz": RATE, "recordings": {piece: {"n_samples": self.n_samples} for piece in self.pieces}}
        contiguous = {key: np.ascontiguousarray(values) for key, values in self.features.items()}
        files = {"features.json": json.dumps(table).encode(), "features.safetensors": save(contiguous)}
        return artefact("features", f"features{self.seed}", files)

    def corpus_artefact(self) -> Artefact:
        common = {"cluster": None, "file": None, "path": "x", "sample_rate_hz": 44100, "start_sample": 0}
        listed = [
            {
                **common,
                "id": piece,
                "piece": piece,
                "n_samples": round(self.seconds * 44100),
                "pcm_fingerprint": piece,
                "within_recording": False,
                "notes": self.notes[piece],
            }
            for piece in self.pieces
        ]
        return artefact("corpus", f"corpus{self.seed}", {"corpus.json": json.dumps({"recordings": listed}).encode()})

    def ic(self, level: float) -> dict[str, Array]:
        """IC per frame; `leak` mixes loudness into it. The first frame is NaN."""
        result = {}
        for piece in self.pieces:
            random = numpy_stream("world", self.seed, piece, "ic", repr(level))
            n_frames = int(self.seconds / FRAME_S) - 1
            loudness = self.features[f"{piece}/spectrogram"].mean(axis=1)
            where = np.minimum(np.round(np.arange(n_frames) * FRAME_S * RATE).astype(int), loudness.size - 1)
            heard = (loudness[where] - loudness.mean()) / loudness.std()
            result[piece] = 100.0 + 10 * random.normal(size=n_frames) + 10 * self.leak * heard
            result[piece][0] = np.nan
        return result

    def ic_series(self, level: float) -> dict[str, Series]:
        return {piece: Series(values, np.arange(values.size) * FRAME_S) for piece, values in self.ic(level).items()}

    def surprisal_artefact(self, level: float, values: Mapping[str, Array] | None = None) -> Artefact:
        values = self.ic(level) if values is None else values
        table = {
            "noise_level": level,
            "unit": "nats",
            "sample_rate_hz": 44100,
            "frame_samples": 4096,
            "stamp": "start of the frame",
            "recordings": {
                piece: {
                    "lead_samples": 0,
                    "trail_samples": 0,
                    "n_samples": round(self.seconds * 44100),
                    "n_frames": len(ic),
                }
                for piece, ic in values.items()
            },
        }
        files = {"ic.json": json.dumps(table).encode(), "ic.safetensors": save(dict(values))}
        return artefact("surprisal", f"surprisal{self.seed}-{level}", files)

    def standard_reduced(self) -> dict[str, Array]:
        return read_reduced(self.feature_artefact(), self.reduced, RATE)

    def standard_ic(self, level: float) -> dict[str, Array]:
        lengths = dict.fromkeys(self.pieces, self.n_samples)
        return dict(ic_regressor(self.ic_series(level), lengths, self.notes, self.form, RATE).values)

    def eeg(
        self,
        name: str,
        respond: Callable[[str], Array] | None = None,
        n_channels: int = 3,
        noise: float = 1.0,
        repetitions: int = 1,
        pieces: Sequence[str] | None = None,
        described: Mapping[str, Any] | None = None,
        masks: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    ) -> Artefact:
        """A subject whose EEG is `respond(piece)` (T, C) plus smooth noise of its own; `masks` by trial."""
        trials, arrays = [], {}
        for piece in self.pieces if pieces is None else pieces:
            for repetition in range(repetitions):
                random = numpy_stream("world", self.seed, piece, name, repetition)
                data = noise * 2 * smooth(random.normal(size=(self.n_samples, n_channels)), 5)
                if respond is not None:
                    data = data + respond(piece)
                key = f"{piece}/{repetition}"
                arrays[key] = data.astype(np.float32)
                trials.append({"key": key, "recording": piece, "repetition": repetition, "n_samples": len(data)})
                if masks and key in masks:
                    trials[-1]["masks"] = masks[key]
        table = {
            "subject": name,
            "sample_rate_hz": RATE,
            "channels": [f"ch{number}" for number in range(n_channels)],
            "positions": [[0.0, 0.0, 0.1 * number] for number in range(n_channels)],
            "simulated": True,
            "bads": [],
            "trials": trials,
            "skipped": [],
            "truth": None,
            **(described or {}),
        }
        files = {"eeg.json": json.dumps(table).encode(), "eeg.safetensors": save(arrays)}
        return artefact("eeg", f"eeg-{name}", files, {"subject": name, "preprocessing": {"sample_rate_hz": RATE}})

    def config(self) -> dict[str, Any]:
        tested = self.reduced == "acoustic_plus"
        return {
            "trf": {"lag_min_s": LAGS_S[0], "lag_max_s": LAGS_S[1], "lambdas": list(self.lambdas)},
            "model": {"reduced": self.reduced, "regressor": self.form, "tested": tested},
            "sample_rate_hz": RATE,
        }

    def fit_config(self) -> FitConfig:
        return FitConfig.model_validate(self.config())

    def null_config(self, count: int, first: int = 0) -> dict[str, Any]:
        return {**self.config(), "first": first, "count": count, "shift_min_s": 2.0, "seed": 7}

    def cell(self, folder: Path, stage: str, eeg: Artefact, level: float, config: Mapping[str, Any]) -> Cell:
        signature = f"{stage}-{eeg.signature}-{level}-{config.get('first')}-{self.form}"
        inputs = {
            "eeg": eeg,
            "features": self.feature_artefact(),
            "corpus": self.corpus_artefact(),
            "surprisal": self.surprisal_artefact(level),
        }
        out = folder / signature
        out.mkdir(parents=True, exist_ok=True)
        return Cell(signature, stage, config, inputs, out)


def finished(cell: Cell, result: Result) -> Artefact:
    """A computed cell, as the stages after it read it."""
    assert result.failure is None, result.failure
    return Artefact(
        cell.signature, cell.stage, cell.config, result.metrics, lambda name: (cell.out_dir / name).open("rb")
    )
