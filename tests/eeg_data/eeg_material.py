"""What the tests of this folder are made of: three short stimuli with notes and sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tasks.contract import Artefact, Cell
from tasks.seeds import numpy_stream

RATE = 44_100
DURATIONS_S = {"audio1": 12.0, "audio2": 10.0, "audio10": 11.03}


def artefact(stage: str, folder: Path, config: dict[str, Any] | None = None) -> Artefact:
    return Artefact(stage, stage, config or {}, {}, lambda name: (folder / name).open("rb"))


def notes_of(name: str) -> list[list[float]]:
    random = numpy_stream("notes", name)
    onsets = np.cumsum(random.uniform(0.2, 0.55, 60))
    kept = onsets[onsets < DURATIONS_S[name] - 0.5]
    return [[float(onset), 0.2, int(random.integers(60, 80))] for onset in kept]


def sound_of(name: str) -> np.ndarray:
    random = numpy_stream("sound", name)
    audio = np.zeros(int(DURATIONS_S[name] * RATE))
    for onset, _, pitch in notes_of(name):
        start = int(onset * RATE)
        t = np.arange(min(audio.size - start, RATE // 2)) / RATE
        tone = sum(np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * h * t) / h for h in range(1, 5))
        audio[start : start + t.size] += random.uniform(0.04, 0.15) * tone * np.exp(-t / 0.25)
    return audio


def entry(name: str, notes: list[list[float]] | None) -> dict[str, Any]:
    return {
        "id": name,
        "piece": name,
        "cluster": None,
        "file": f"{name}.flac",
        "path": None,
        "sample_rate_hz": RATE,
        "start_sample": 0,
        "n_samples": int(DURATIONS_S[name] * RATE),
        "pcm_fingerprint": "0",
        "within_recording": False,
        "notes": notes,
    }


MakeCell = Callable[..., Cell]
