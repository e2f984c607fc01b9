"""Small corpora of made-up sound, and trainings of a few steps."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tasks.audio.config import DataSet, SplitConfig
from tasks.contract import Artefact, Cell

RATE_HZ = 44_100


def melody(seed: int, seconds: float) -> np.ndarray:
    """Notes of a quarter of a second with three harmonics."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(0.25 * RATE_HZ)) / RATE_HZ
    notes = []
    for _ in range(int(seconds / 0.25)):
        pitch = 220 * 2 ** (rng.integers(0, 24) / 12)
        tone = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in (1, 2, 3))
        notes.append(0.2 * tone * np.exp(-4 * time))
    return np.concatenate(notes).astype(np.float32)


def corpus(role: str, recordings: dict[str, np.ndarray]) -> Artefact:
    """A finished corpus of the given audio, kept in memory."""
    files: dict[str, bytes] = {}
    listed = []
    for number, (name, audio) in enumerate(recordings.items()):
        stream = io.BytesIO()
        soundfile.write(stream, audio, RATE_HZ, format="FLAC", subtype="PCM_16")
        files[f"{name}.flac"] = stream.getvalue()
        listed.append(
            {
                "id": name,
                "piece": name,
                "cluster": None,
                "file": f"{name}.flac",
                "path": None,
                "sample_rate_hz": RATE_HZ,
                "start_sample": 0,
                "n_samples": len(audio),
                "pcm_fingerprint": f"{role}-{number}-{float(np.abs(audio).sum()):.3f}",
                "within_recording": False,
                "notes": None,
            }
        )
    files["corpus.json"] = json.dumps({"recordings": listed, "skipped": []}).encode()
    config = {
        "role": role,
        "dataset": DataSet(source="audio", path=f"{role}-folder").model_dump(mode="json"),
        "seed": 0,
        "split": SplitConfig().model_dump(mode="json"),
        "files": [],
    }
    return Artefact(f"corpus-{role}", "corpus", config, {}, lambda name: io.BytesIO(files[name]))


def finished(cell: Cell, metrics: dict[str, Any] | None = None) -> Artefact:
    """The artefact of a cell that has run."""
    folder = cell.out_dir
    return Artefact(cell.signature, cell.stage, cell.config, metrics or {}, lambda name: (folder / name).open("rb"))


@dataclass
class MemoryCheckpoints:
    """Checkpoints in a folder, by step."""

    folder: Path
    steps: list[int] = field(default_factory=list)

    def latest(self) -> tuple[int, Path] | None:
        return (self.steps[-1], self.folder / str(self.steps[-1])) if self.steps else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        (self.folder / str(step)).mkdir(parents=True)
        write(self.folder / str(step))
        self.steps.append(step)
