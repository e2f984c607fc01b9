"""All that a training needs to go on exactly where it stopped."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tasks.autoencoder.config import TrainingConfig
from tasks.autoencoder.network import Autoencoder
from tasks.autoencoder.optimizer import FlatParameters, RAdam

LAST_LEARNING_RATE = 0.01
"""Share of the learning rate that the cosine of a base ends at."""


class TrainingState:
    """Weights, their running average, the optimizer's moments, and the curve so far.

    Parameters
    ----------
    autoencoder : Autoencoder
        Where training starts; parameters that don't require a gradient stay as they are.
    config : TrainingConfig
        Its length, learning rate and average.
    constant : bool
        Whether the learning rate stays constant after the warm-up.
    """

    def __init__(self, autoencoder: Autoencoder, config: TrainingConfig, constant: bool) -> None:
        self.autoencoder = autoencoder
        self.average = deepcopy(autoencoder).requires_grad_(False)
        self.step = 0
        self.curve: list[dict[str, float]] = []
        self.pending: list[dict[str, float]] = []
        self._config = config
        self._constant = constant
        trained = {name: p for name, p in autoencoder.named_parameters() if p.requires_grad}
        self._weights = FlatParameters(list(trained.values()))
        self._averaged = FlatParameters([p for name, p in self.average.named_parameters() if name in trained])
        self._optimizer = RAdam(self._weights)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step: a linear warm-up, then a cosine or a constant."""
        config = self._config
        warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        if self._constant:
            return config.learning_rate * warm
        done = max(0, step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        cosine = LAST_LEARNING_RATE + (1 - LAST_LEARNING_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return config.learning_rate * warm * cosine

    def descend(self, loss: Tensor) -> None:
        """One step along the gradient of `loss`; then the average follows, faster in the first steps."""
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step(self.step + 1, self.learning_rate(self.step))
        decay = min(self._config.ema_decay, (1 + self.step) / (10 + self.step))
        self._averaged.values.lerp_(self._weights.values, 1 - decay)
        self.step += 1

    def _tensors(self) -> dict[str, Tensor]:
        return {"weights": self._weights.values, "average": self._averaged.values, **self._optimizer.state()}

    def save(self, folder: Path) -> None:
        """Write the state as ``state.safetensors`` (values in the order of the named parameters) and ``state.json``."""
        save_file({name: tensor.cpu() for name, tensor in self._tensors().items()}, folder / "state.safetensors")
        described = {"step": self.step, "curve": self.curve, "pending": self.pending}
        (folder / "state.json").write_text(json.dumps(described, sort_keys=True))

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Go back to a state that `save` wrote."""
        described = json.loads((folder / "state.json").read_text())
        self.step, self.curve, self.pending = described["step"], described["curve"], described["pending"]
        kept = load_file(folder / "state.safetensors")
        for name, tensor in self._tensors().items():
            tensor.copy_(kept[name])
