"""Made-up fits and null distributions of a group of subjects, as the stage `group` reads them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from made_up_world import artefact
from safetensors.numpy import save

from tasks.contract import Artefact, Cell, Context, Result
from tasks.eeg.group import run

Array = np.ndarray[Any, Any]
CHANNELS = ("Fz", "Cz", "Pz")
LEVELS = (0.0, 0.4)
PIECES = "abcd"


class Study:
    """Made-up fits and nulls: `gain` (S, levels, C), `null` (S, B, levels, C).

    All pieces of a subject gain alike, but for `of_piece` (pieces, levels), which is the same at all channels.
    """

    def __init__(self, gain: Array, null: Array | None, channels: Sequence[Sequence[str]] | None = None) -> None:
        self.pieces: dict[tuple[str, float], str] = {}
        self.of_piece: Array | None = None
        self.masked: dict[tuple[str, float], list[Any]] = {}
        self.names = [f"S{number + 1:02d}" for number in range(len(gain))]
        self.channels = channels or [CHANNELS] * len(gain)
        self.removed: dict[str, list[str]] = {}
        self.participants: dict[str, Any] | None = None
        self.sources: list[Artefact] | None = None
        self.kernel, self.lags_s = np.zeros((2, gain.shape[-1])), np.zeros(2)
        self.spots: list[list[float]] | None = [[0.0, 0.0, float(place)] for place in range(len(self.channels[0]))]
        self.trf: list[Artefact] = []
        self.permutations: list[Artefact] = []
        self.conditions: list[dict[str, Any]] = []
        for place, level in enumerate(LEVELS):
            entries = []
            for subject, name in enumerate(self.names):
                blocks = []
                if null is not None:
                    half = null.shape[1] // 2
                    for first, count in ((0, half), (half, null.shape[1] - half)):
                        blocks.append(len(self.permutations))
                        part = np.ascontiguousarray(null[subject, first : first + count, place])
                        files = {"null.safetensors": save({"delta_r": part})}
                        config = {"first": first, "count": count}
                        self.permutations.append(artefact("permutations", f"p{len(self.permutations)}", files, config))
                entries.append({"subject": name, "trf": len(self.trf), "permutations": blocks, "eeg": subject})
                self.trf.append(self._fit(subject, level, gain[subject, place]))
            self.conditions.append({"variant": "aligned", "noise_level": level, "subjects": entries})

    def _fit(self, subject: int, level: float, gain: Array) -> Artefact:
        name, channels = self.names[subject], list(self.channels[subject])

        def read(file: str) -> io.BytesIO:
            pieces = list(self.pieces.get((name, level), PIECES))
            reduced = np.full((len(pieces), gain.size), 0.05)
            more = 0.0 if self.of_piece is None else self.of_piece[:, LEVELS.index(level), None]
            kernel = np.ascontiguousarray(self.kernel[:, : gain.size])
            fitted = {"r_full": reduced + gain + more, "r_reduced": reduced, "kernel": kernel, "lags_s": self.lags_s}
            table = {"subject": name, "pieces": pieces, "channels": channels}
            table["masked"] = self.masked.get((name, level), [])
            return io.BytesIO(save(fitted) if file == "trf.safetensors" else json.dumps(table).encode())

        return Artefact(f"t{len(self.trf)}", "trf", {}, {}, read)

    def eeg(self, simulated: bool) -> list[Artefact]:
        made = []
        for name, channels in zip(self.names, self.channels, strict=True):
            table = {"subject": name, "simulated": simulated, "channels": list(channels), "positions": self.spots}
            table["removed"] = self.removed.get(name, [])
            made.append(artefact("eeg", name, {"eeg.json": json.dumps(table).encode()}))
        return made

    def run(
        self,
        folder: Path,
        missing: Sequence[dict[str, str]] = (),
        simulated: bool = False,
        alpha: float = 0.05,
        arms: Sequence[dict[str, Any]] = (),
    ) -> tuple[Result, dict[str, Any]]:
        tested = bool(self.permutations)
        config = {
            "model": {"reduced": "acoustic_plus", "regressor": "onset", "tested": tested},
            "alpha": alpha,
            "conditions": self.conditions,
            "missing": list(missing),
            "arms": list(arms),
            **({} if self.participants is None else {"participants": self.participants}),
        }
        inputs = {
            "trf": tuple(self.trf),
            "eeg": tuple(self.sources or self.eeg(simulated)),
            "permutations": tuple(self.permutations),
        }
        folder.mkdir(exist_ok=True)
        [result] = run([Cell("g", "group", config, inputs, folder)], Context())
        written = folder / "group.json"
        return result, json.loads(written.read_text()) if written.exists() else {}


def made_up(n_subjects: int, effect: float, n_permutations: int = 99) -> tuple[Array, Array]:
    """An effect at the second level's Cz; delta_r is -.002 on average where there is none."""
    random = np.random.default_rng(1)
    null = -0.002 + 0.001 * random.normal(size=(n_subjects, n_permutations, 2, 3))
    gain = -0.002 + 0.001 * random.normal(size=(n_subjects, 2, 3))
    gain[:, 1, 1] += effect
    return gain, null
