"""Fixtures: corpora, and trainings of a few steps that tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from helpers_autoencoder import corpus, finished, melody

from tasks.autoencoder import training
from tasks.contract import Artefact, Cell, Context

Train = Callable[..., Artefact]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _short_evaluations() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "VALIDATION_CROPS", 4)
        patch.setattr(training, "STATISTICS_CROPS", 16)
        patch.setattr(training, "EVALUATION_BATCH", 4)
        yield


@pytest.fixture(scope="session")
def corpora() -> dict[str, Artefact]:
    return {
        "train": corpus("train", {f"train{k}": melody(k, 2.0) for k in range(3)}),
        "validation": corpus("validation", {"validation0": melody(100, 2.0)}),
    }


@pytest.fixture(scope="session")
def train(corpora: dict[str, Artefact], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train in a folder of its own: ``train(name, bottleneck, base, applied_to, context, **training)``."""

    def run(
        name: str,
        bottleneck: str = "layernorm",
        base: Artefact | None = None,
        applied_to: str | None = None,
        context: Context | None = None,
        **settings: Any,
    ) -> Artefact:
        lengths = {"steps": 3, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1, "ema_decay": 0.9}
        config: dict[str, Any] = {"seed": 0, "size": "tiny", "bottleneck": bottleneck, "training": lengths | settings}
        inputs = dict(corpora)
        if base is not None:
            inputs["base"] = base
            config["latent_noise"] = {"applied_to": applied_to}
        stage = "autoencoder_base" if base is None else "autoencoder"
        cell = Cell(name, stage, config, inputs, tmp_path_factory.mktemp("out"))
        (result,) = training.run([cell], context or Context())
        assert result.failure is None, result.failure
        return finished(cell, dict(result.metrics))

    return run


@pytest.fixture(scope="session")
def base(train: Train) -> Artefact:
    return train("base")


@pytest.fixture(scope="session")
def tanh_base(train: Train) -> Artefact:
    return train("tanh-base", "tanh")
