"""Context dropout: which frames lose their context, what they get instead, and what it learns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.contract import Artefact, Cell, Context, TaskError
from tasks.flow.config import FlowConfig
from tasks.flow.crops import draw_dropped, pad, step_stream
from tasks.flow.loss import flow_loss
from tasks.flow.network import new_flow, read_flow
from tasks.flow.training import run

MakeLatents = Callable[[str, Mapping[str, np.ndarray]], Artefact]
TRAINING = {"size": "tiny", "batch_size": 8, "sequence_frames": 16, "learning_rate": 3e-3, "warmup_steps": 10}


def trained(out_dir: Path, latents: Artefact, **settings: Any) -> tuple[Artefact, Mapping[str, Any]]:
    out_dir.mkdir()
    config = FlowConfig.model_validate({**TRAINING, "ema_decay": 0.95, **settings})
    cell = Cell(
        out_dir.name, "flow", {"seed": 0, "flow": config.signed()}, {"train": latents, "validation": latents}, out_dir
    )
    (result,) = run([cell], Context())
    assert result.failure is None, result.failure
    return Artefact(out_dir.name, "flow", {}, {}, lambda name: (out_dir / name).open("rb")), result.metrics


def repeating(n_frames: int, seed: int) -> np.ndarray:
    """Frames that repeat the first: whoever has seen one frame knows all others."""
    first = np.random.default_rng(seed).standard_normal(64).astype(np.float32)
    return np.tile(first, (n_frames, 1)) + 1.5


def test_a_frame_loses_its_context_with_the_given_probability() -> None:
    dropped = draw_dropped(0.1, torch.ones(50, 400), step_stream(0, 0))
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(dropped.float().mean(1).std()) < 0.03  # frame by frame, not crop by crop
    assert torch.equal(dropped, draw_dropped(0.1, torch.ones(50, 400), step_stream(0, 0)))
    assert not torch.equal(dropped, draw_dropped(0.1, torch.ones(50, 400), step_stream(0, 1)))


def test_dropped_frames_see_the_null_context_alone() -> None:
    flow = new_flow("tiny", seed=0, null_context=True).eval()
    random = torch.Generator().manual_seed(0)
    batch = pad([np.random.default_rng(0).standard_normal((9, 64)).astype(np.float32)], 9)
    tau, noise = torch.rand(2, 1, generator=random), torch.randn(2, 1, 8, 64, generator=random)
    last = torch.zeros(1, 8, dtype=torch.bool)
    last[0, 7] = True
    losses = {}
    for name, dropped in {"none": None, "last": last, "all": ~torch.zeros(1, 8, dtype=torch.bool)}.items():
        flow.zero_grad()
        losses[name] = flow_loss(flow, batch, tau, noise, dropped)
        losses[name].backward()  # type: ignore[no-untyped-call]
        assert flow.null_context is not None
        learns = flow.null_context.grad is not None and bool(flow.null_context.grad.any())
        assert learns == (name != "none")
        assert any(p.grad is not None and p.grad.any() for p in flow.backbone.parameters()) == (name != "all")
    assert len({float(value.detach()) for value in losses.values()}) == 3


def test_the_null_context_learns_how_frames_are_without_their_past(
    tmp_path: Path, latents_artefact: MakeLatents
) -> None:
    corpus = latents_artefact("corpus", {str(k): repeating(17, k) for k in range(24)})
    artefact, metrics = trained(tmp_path / "flow", corpus, steps=120, context_dropout=0.3)
    flow, _ = read_flow(artefact)
    assert flow.has_null_context
    assert flow.null_context is not None
    assert float(flow.null_context.abs().max()) > 0.01
    assert metrics["validation_loss"] < 0.9 * metrics["validation_loss_null"]
    without, _ = trained(tmp_path / "without", corpus, steps=120, context_dropout=0.0)
    never, _ = read_flow(without)
    random = torch.Generator().manual_seed(0)
    batch = pad([repeating(17, 99)], 17)
    tau, noise = torch.rand(8, 1, generator=random), torch.randn(8, 1, 16, 64, generator=random)
    hidden = torch.ones(1, 16, dtype=torch.bool)
    never.register_parameter("null_context", torch.nn.Parameter(torch.zeros(64)))
    assert flow_loss(flow, batch, tau, noise, hidden) < 0.9 * flow_loss(never, batch, tau, noise, hidden)


def test_a_flow_without_context_dropout_says_that_it_has_none(tmp_path: Path, latents_artefact: MakeLatents) -> None:
    corpus = latents_artefact("corpus", {str(k): repeating(17, k) for k in range(2)})
    artefact, metrics = trained(tmp_path / "flow", corpus, steps=3, context_dropout=0.0)
    flow, _ = read_flow(artefact)
    assert json.loads(artefact.read_bytes("flow.json"))["has_null_context"] is False
    assert not flow.has_null_context
    assert "null_context" not in flow.state_dict()
    assert "validation_loss_null" not in metrics
    with pytest.raises(TaskError, match="context_dropout 0"):
        flow.null_contexts(5)
    assert new_flow("tiny", 0, null_context=True).null_contexts(5, 2).shape == (5, 2, 64)


def test_settings_signed_before_there_was_context_dropout_mean_what_they_meant() -> None:
    assert FlowConfig().context_dropout == 0.1
    before = {key: value for key, value in FlowConfig().signed().items() if key != "context_dropout"}
    assert FlowConfig.of_signed(before).context_dropout == 0.0
    assert FlowConfig.of_signed(before).signed() == before
    assert FlowConfig(context_dropout=0.0).signed() == before
    assert FlowConfig(precision="bfloat16").signed()["precision"] == "bfloat16"
    assert FlowConfig.of_signed(FlowConfig().signed()) == FlowConfig()
