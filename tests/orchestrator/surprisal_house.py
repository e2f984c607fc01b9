"""A ledger with a small random codec, published weights beside it, and sounds: what IC is computed of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from published_checkpoint import checkpoint, write
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.graph import CellSpec
from orchestrator.ledger import Ledger
from orchestrator.reasons import Reason
from orchestrator.signature import sign
from orchestrator.stages import STAGES
from orchestrator.storage import Storage
from tasks.autoencoder.codec import Codec
from tasks.autoencoder.config import ARCHITECTURES
from tasks.autoencoder.network import Autoencoder
from tasks.config import SurprisalConfig

torch.set_num_threads(1)


_PROBES = ("--probes", "exact") if "probes" in SurprisalConfig.model_fields else ("--n-probes", "64")


EXACT = ("--solver", "euler", "--n-steps", "3", *_PROBES)
"""With the exact divergence (of 64 orthogonal probes) nothing depends on which probes were drawn."""


PERIOD_S = 4096 / 44_100


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def music(seconds: float, rate_hz: int = 44_100, seed: int = 0) -> np.ndarray:
    """Partials below 1.5 kHz whose loudness moves: the same sound at any sampling rate."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    sound = np.zeros(len(t))
    for frequency, speed, phase in zip(random.uniform(100, 1500, 8), random.uniform(0.3, 3, 8), range(8), strict=True):
        sound += np.sin(2 * np.pi * frequency * t + phase) * (1.2 + np.sin(2 * np.pi * speed * t + phase))
    return 0.04 * sound


def pause(seconds: float, rate_hz: int = 44_100) -> np.ndarray:
    return np.zeros(round(seconds * rate_hz))


@dataclass(frozen=True)
class House:
    """A ledger with an autoencoder in it, and a file of published weights beside it."""

    folder: Path
    ledger: Ledger
    codec: CellSpec
    weights: Path

    def surprisal(self, *words: Any, model: str | None = None, out: str = "out") -> Any:
        """Of files in the folder, by name."""
        autoencoder = [] if "--autoencoder" in words else ["--autoencoder", self.codec.signature[:12]]
        chosen = ["--model", model or str(self.weights), *autoencoder]
        files = [str(self.folder / word) if str(word).endswith((".wav", "music")) else str(word) for word in words]
        where = ["--ledger", self.ledger.storage.root, "--out", str(self.folder / out)]
        return call("surprisal", *chosen, *where, *files)

    def sound(self, name: str, audio: np.ndarray, rate_hz: int = 44_100, subtype: str = "FLOAT") -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, audio, rate_hz, subtype=subtype)

    def table(self, name: str) -> tuple[list[str], np.ndarray]:
        """Header and ``(rows, columns)``."""
        header, *lines = (self.folder / name).read_text().splitlines()
        return header.split(","), np.array([[float(value) for value in line.split(",")] for line in lines])

    def about(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / name).read_text())
        return content


def made_house(folder: Path) -> House:
    torch.manual_seed(0)
    codec = Codec(Autoencoder(ARCHITECTURES["tiny"], "layernorm"), "tiny", "layernorm", 0.0, 1.0)
    ledger = Ledger(Storage(str(folder / "ledger")))
    signature = sign("autoencoder", STAGES["autoencoder"].version, {"made": "up"}, {})
    cell = CellSpec("autoencoder", "ae made up", {"made": "up"}, {}, signature)
    attempt = ledger.begin(cell, Reason.NEW, "driver")
    codec.save(attempt.out_dir)
    ledger.publish(attempt, attempt.out_dir, {}, 0.0)
    return House(folder, ledger, cell, write(folder / "flow.pt", checkpoint()))
