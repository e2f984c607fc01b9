"""IC of a flow of 63 coordinates: what holds of 64 channels holds there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.stats import spearmanr
from tiny_flow import tiny_flow
from torch import Tensor

from tasks.config import SurprisalCell, SurprisalConfig
from tasks.contract import Artefact, Cell, Context
from tasks.flow.hyperplane import projected
from tasks.flow.information import InformationContent
from tasks.flow.network import Flow, read_flow
from tasks.surprisal import run

MakeLatents = Callable[[Mapping[str, np.ndarray]], Artefact]


def normed_walk(n_frames: int, seed: int) -> np.ndarray:
    """Frames with zero mean and unit variance over channels, each close to the one before it."""
    random = np.random.default_rng(seed)
    frames = random.standard_normal((n_frames, 64))
    for t in range(1, n_frames):
        frames[t] = 0.8 * frames[t - 1] + 0.6 * frames[t]
    frames -= frames.mean(1, keepdims=True)
    return (frames / frames.std(1, keepdims=True)).astype(np.float32)


FRAMES = {"long": normed_walk(61, 1), "short": normed_walk(12, 2)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    root = tmp_path_factory.mktemp("projected")
    save_file({str(i): normed_walk(200, 10 + i) for i in range(4)}, root / "latents.safetensors")
    latents = Artefact("latents", "latents", {}, {}, lambda file: (root / file).open("rb"))
    return tiny_flow(root / "flow", latents, project=True)


@pytest.fixture(scope="module")
def flow(trained: Artefact) -> tuple[Flow, int]:
    return read_flow(trained)


def solver(flow: tuple[Flow, int], level: float, **settings: object) -> InformationContent:
    cell = SurprisalCell.model_validate(SurprisalConfig.model_validate(settings).cell(level))
    with torch.inference_mode():
        return InformationContent(*flow, cell, "seed")


@torch.inference_mode()
def ic(flow: tuple[Flow, int], level: float, names: tuple[str, ...] = ("long", "short"), **settings: object) -> dict:
    return solver(flow, level, **settings).of({name: projected(FRAMES[name]) for name in names})


def test_it_is_that_of_63_dimensions_with_the_trace_of_autograd(flow: tuple[Flow, int]) -> None:
    model, tau, n_steps = flow[0], 0.5, 4
    frames = torch.from_numpy(projected(FRAMES["short"])) * tau
    with torch.no_grad():
        context, x = model.backbone(frames[None, :-1])[0], frames[1:]
    gain = torch.zeros(len(x))
    for k in range(n_steps):
        at = tau * (n_steps - k) / n_steps

        def velocity(one: Tensor, its: Tensor, at: float = at) -> Tensor:
            return model.head(one[None, None, None], its[None, None], torch.full((1, 1), at))[0, 0, 0]

        jacobian = [
            torch.autograd.functional.jacobian(lambda v, c=c: velocity(v, c), one)
            for one, c in zip(x, context, strict=True)
        ]
        gain += torch.stack(jacobian).diagonal(dim1=1, dim2=2).sum(-1)
        with torch.no_grad():
            x = x - tau / n_steps * torch.stack([velocity(one, c) for one, c in zip(x, context, strict=True)])
    wanted = 0.5 * x.square().sum(-1) + 31.5 * math.log(2 * math.pi) + tau / n_steps * gain
    found = ic(flow, tau, ("short",), solver="euler", n_steps=n_steps, probes="exact")["short"]
    assert found.shape == (12,)
    assert np.allclose(found[1:], wanted.detach().numpy(), rtol=1e-4)


def test_all_noise_is_the_normal_density_of_63_dimensions(flow: tuple[Flow, int]) -> None:
    assert set(ic(flow, 1.0)["long"][1:].tolist()) == {31.5 * math.log(2 * math.pi)}


@pytest.mark.parametrize("settings", [{}, {"solver": "euler", "n_steps": 6}, {"n_nodes": 6, "probes": "exact"}])
def test_recordings_together_have_the_bits_of_each_alone(flow: tuple[Flow, int], settings: dict[str, object]) -> None:
    together = ic(flow, 0.3, **settings)
    for name in FRAMES:
        assert together[name].tobytes() == ic(flow, 0.3, (name,), **settings)[name].tobytes()


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_solvers_agree_within_the_errors_that_they_state(flow: tuple[Flow, int], level: float) -> None:
    truth = ic(flow, level, n_nodes=96, probes="exact")["long"][1:]
    for settings in ({}, {"solver": "exact"}, {"solver": "euler"}):
        found = ic(flow, level, **settings)["long"][1:]
        error = float(np.sqrt(np.mean((found - truth) ** 2)))
        stated = solver(flow, level, **settings).solver_error_nats
        assert error < 3 * stated + 0.02, settings
        assert stated < 6 * error + 0.1, settings
        assert spearmanr(found, truth).statistic > (0.5 if "euler" in settings.values() else 0.97), settings


def cell(out_dir: Path, flow: Artefact, latents: Artefact) -> Cell:
    out_dir.mkdir()
    config = SurprisalConfig(n_nodes=6).cell(0.3)
    return Cell("signature", "surprisal", config, {"flow": flow, "latents": latents}, out_dir)


def test_the_stage_reads_latents_of_64_channels(
    tmp_path: Path, flow: tuple[Flow, int], trained: Artefact, make_latents: MakeLatents
) -> None:
    assert json.loads(trained.read_bytes("flow.json"))["project"] is True
    assert json.loads(trained.read_bytes("flow.json"))["architecture"]["latent_dim"] == 64
    (result,) = run([cell(tmp_path / "out", trained, make_latents(FRAMES))], Context())
    assert result.failure is None
    found = load_file(tmp_path / "out/ic.safetensors")
    with torch.inference_mode():
        by_hand = InformationContent(
            *flow, SurprisalCell.model_validate(SurprisalConfig(n_nodes=6).cell(0.3)), "signature"
        )
        wanted = by_hand.of({name: projected(frames) for name, frames in FRAMES.items()})
    for name, values in wanted.items():
        assert found[name].tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda frames: frames + 0.1, "only those of bottleneck layernorm"),
        (lambda frames: frames[:, ::2] - frames[:, ::2].mean(1, keepdims=True), "64 channels, and these have 32"),
        (lambda frames: frames[:, :48], "latents of 48 channels can't be projected"),
    ],
)
def test_other_latents_are_one_line(
    tmp_path: Path, trained: Artefact, make_latents: MakeLatents, spoil: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    latents = make_latents({"short": spoil(FRAMES["short"])})
    (result,) = run([cell(tmp_path / "out", trained, latents)], Context())
    assert said in (result.failure or "")
    assert "\n" not in (result.failure or "")
