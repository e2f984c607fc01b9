from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from tiny_flow import tiny_flow

from tasks.contract import Artefact, Cell

torch.set_num_threads(1)

LEAD_SAMPLES = 10_000
TRAIL_SAMPLES = 5_000


def walk(n_frames: int, seed: int) -> np.ndarray:
    """Frames of unit variance, each close to the one before it."""
    random = np.random.default_rng(seed)
    frames = np.empty((n_frames, 64), dtype=np.float32)
    frames[0] = random.standard_normal(64)
    for t in range(1, n_frames):
        frames[t] = 0.8 * frames[t - 1] + 0.6 * random.standard_normal(64)
    return frames


def artefact(name: str, stage: str, folder: Path) -> Artefact:
    return Artefact(name, stage, {}, {}, lambda file: (folder / file).open("rb"))


def write_latents(folder: Path, latents: Mapping[str, np.ndarray]) -> Artefact:
    folder.mkdir(parents=True)
    (folder / "latents.safetensors").write_bytes(save(dict(latents)))
    about = {
        name: {
            "lead_samples": LEAD_SAMPLES,
            "trail_samples": TRAIL_SAMPLES,
            "n_samples": LEAD_SAMPLES + TRAIL_SAMPLES + 4096 * len(frames) + 1536,
            "n_frames": len(frames),
        }
        for name, frames in latents.items()
    }
    (folder / "latents.json").write_text(json.dumps(about))
    return artefact(folder.name, "latents", folder)


@dataclass(frozen=True)
class Inputs:
    """A briefly trained flow and two recordings, one of them longer than its window."""

    flow: Artefact
    latents: Artefact
    frames: Mapping[str, np.ndarray]

    def cell(
        self,
        out_dir: Path,
        level: float,
        latents: Artefact | None = None,
        places: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> Cell:
        out_dir.mkdir(parents=True)
        config = {
            "noise_level": level,
            "definition": "expectation",
            "solver": "euler",
            "n_steps": 6,
            "n_probes": 3,
            **changes,
        }
        inputs = {"flow": self.flow, "latents": latents or self.latents}
        return Cell(f"signature of {level}", "surprisal", config, inputs, out_dir, places or {})


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    root = tmp_path_factory.mktemp("flow")
    training = write_latents(root / "training", {str(i): walk(200, 10 + i) for i in range(4)})
    frames = {"long": walk(61, 1), "short": walk(12, 2)}
    return Inputs(tiny_flow(root / "out", training), write_latents(root / "latents", frames), frames)


@pytest.fixture
def make_latents(tmp_path: Path) -> Callable[[Mapping[str, np.ndarray]], Artefact]:
    return lambda latents: write_latents(tmp_path / "some latents", latents)
