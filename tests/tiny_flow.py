"""A small flow, trained for a moment: for tests of what is computed with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.contract import Artefact, Cell, Context
from tasks.flow.config import FlowConfig
from tasks.flow.training import run

WINDOW = 16
"""Frames of its training crops, and of its longest context."""


def tiny_flow(folder: Path, latents: Artefact, **settings: Any) -> Artefact:
    """Trained on all of `latents`, into `folder`, which is made; `settings` are more keys of its config."""
    config = FlowConfig(
        size="tiny",
        steps=80,
        batch_size=8,
        sequence_frames=WINDOW,
        learning_rate=3e-3,
        warmup_steps=10,
        ema_decay=0.95,
        **settings,
    )
    folder.mkdir()
    inputs = {"train": latents, "validation": latents}
    (result,) = run([Cell("flow", "flow", {"seed": 0, "flow": config.signed()}, inputs, folder)], Context())
    assert result.failure is None
    return Artefact("flow", "flow", {}, {}, lambda file: (folder / file).open("rb"))
