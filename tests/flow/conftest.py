from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from tasks.contract import Artefact

Latents = Mapping[str, np.ndarray]

torch.set_num_threads(1)


@pytest.fixture
def latents_artefact(tmp_path: Path) -> Callable[[str, Latents], Artefact]:
    """Writes latents as the stage before does, and gives the artefact."""

    def make(name: str, latents: Latents) -> Artefact:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "latents.safetensors").write_bytes(save(dict(latents)))
        about = {
            key: {"lead_samples": 0, "trail_samples": 0, "n_samples": 4096 * len(value) + 1536, "n_frames": len(value)}
            for key, value in latents.items()
        }
        (folder / "latents.json").write_text(json.dumps(about))
        return Artefact(name, "latents", {}, {}, lambda file: (folder / file).open("rb"))

    return make


def walk(n_frames: int, seed: int, dim: int = 64) -> np.ndarray:
    """Frames of unit variance, each close to the one before it."""
    random = np.random.default_rng(seed)
    frames = np.empty((n_frames, dim), dtype=np.float32)
    frames[0] = random.standard_normal(dim)
    for t in range(1, n_frames):
        frames[t] = 0.8 * frames[t - 1] + 0.6 * random.standard_normal(dim)
    return frames


@pytest.fixture
def latents() -> dict[str, np.ndarray]:
    return {"a": walk(40, 1), "b": walk(9, 2), "c": walk(70, 3)}
