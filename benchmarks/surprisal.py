"""Information content: how fast and how exact our solvers are, against a plain version of the published method.

Run alone: `python benchmarks/surprisal.py [--quick]`. The last lines are one JSON object per figure.

The model is of size paper, trained on chorales by the study in surprisal.yaml (about an hour on one CPU core, once; its
weights stay in ./results/benchmarks, or in the folder that BENCHMARK_LEDGER names); --quick trains a tiny one. The
plain version is Euler with 100 equal steps, four Rademacher probes that stay the same, and a vector-Jacobian product
for each of them. It runs on a share of the frames, since its cost is proportional to them; ours runs on all, with
everything that it does once per level. Both use one thread, and take turns. Errors are in nats per frame, against the
exact divergence on a fine rule.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from orchestrator.ledger import Ledger  # noqa: E402
from orchestrator.manifest import resolve  # noqa: E402
from orchestrator.planner import build  # noqa: E402
from orchestrator.reading import load_experiment  # noqa: E402
from orchestrator.storage import Storage  # noqa: E402
from tasks.config import SurprisalCell, SurprisalConfig  # noqa: E402
from tasks.flow.config import FlowConfig  # noqa: E402
from tasks.flow.contexts import contexts, windows  # noqa: E402
from tasks.flow.crops import read_latents  # noqa: E402
from tasks.flow.field import HeadAt, HeadField  # noqa: E402
from tasks.flow.information import InformationContent  # noqa: E402
from tasks.flow.likelihood import gauss_legendre, quadrature, standard_normal  # noqa: E402
from tasks.flow.network import Flow, default_device, read_flow  # noqa: E402
from tasks.flow.probes import exact_probes  # noqa: E402
from tasks.flow.training import Training  # noqa: E402

STUDY = HERE / "surprisal.yaml"
QUICK = (
    "data.train.pieces=6",
    "data.validation.pieces=4",
    "autoencoder.base_training.steps=20",
    "autoencoder.arm_training.steps=5",
    "flow={size: tiny, steps: 300, batch_size: 8, sequence_frames: 48, learning_rate: 4.0e-3, warmup_steps: 20, "
    "ema_decay: 0.95, context_dropout: 0.0}",
)
SIX_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
STEPS, PROBES = 100, 4
PAIRS = 5


@dataclass
class Model:
    """A trained flow, its window, and recordings that it was not trained on."""

    flow: Flow
    window: int
    frames: dict[str, np.ndarray]
    validation_loss: float
    untrained_loss: float


def trained(quick: bool) -> Model:
    """The model, from the ledger; trained first where it isn't there yet."""
    root = os.environ.get("BENCHMARK_LEDGER", str(HERE.parent / "results/benchmarks"))
    words = [*(QUICK if quick else ()), f"execution.ledger={root}"]
    command = [sys.executable, "-m", "orchestrator", "run", "--inline", str(STUDY), *words]
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    subprocess.run(command, env=place, stdout=sys.stderr, check=True)
    experiment = load_experiment(str(STUDY), words).experiment
    storage = Storage(root)
    ledger = Ledger(storage)
    cells = {
        cell.name.removeprefix("latents layernorm none "): cell
        for cell in build(experiment, resolve(experiment, storage))
    }
    read = {role: cells[role] for role in ("train", "validation", "flow layernorm none")}
    flow_cell = read.pop("flow layernorm none")
    train, validation = (
        read_latents(ledger.artefact("latents", read[role].signature, None))[0] for role in ("train", "validation")
    )
    status = ledger.status("flow", flow_cell.signature)
    assert status is not None
    config = FlowConfig.of_signed(flow_cell.config["flow"])
    untrained = Training(config, experiment.science.seed, train, validation, torch.device("cpu")).validate()
    flow, window = read_flow(ledger.artefact("flow", flow_cell.signature, None))
    frames = {name: validation[name] for name in validation}
    return Model(flow, window, frames, float(status.metrics["validation_loss"]), untrained["validation_loss"])


@torch.inference_mode()
def prepared(model: Model, level: float, count: int) -> tuple[Tensor, Tensor]:
    """Targets and contexts of `count` frames spread over all recordings, with definition ``expectation``."""
    targets, found = [], []
    for name, frames in model.frames.items():
        scaled = torch.from_numpy(frames) * (1 - level)
        targets.append(scaled[1:])
        found.append(torch.cat([rows for _, rows in contexts(model.flow, windows((name, 0), scaled, model.window))]))
    x, context = torch.cat(targets), torch.cat(found)
    chosen = torch.linspace(0, len(x) - 1, count).long()
    return x[chosen].clone(), context[chosen].clone()


def plain(flow: Flow, x: Tensor, context: Tensor, tau: float, probes: Tensor) -> Tensor:
    """Log-density of ``x (N, D)`` by the published method: every probe solves the ODE by itself, frame by frame."""

    def at_frame(one: Tensor, its_context: Tensor, probe: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        def velocity(y: Tensor) -> Tensor:
            out: Tensor = flow.head(y[None, None, None], its_context[None, None], time.view(1, 1))
            return out[0, 0, 0]

        value, pull = torch.func.vjp(velocity, one)
        return value, (pull(probe)[0] * probe).sum()

    over_frames = torch.func.vmap(at_frame, in_dims=(0, 0, 0, None))
    step, found = tau / STEPS, []
    for probe in probes:
        y, gain = x, torch.zeros(len(x), dtype=torch.float64)
        for k in range(STEPS):
            velocity, product = over_frames(y, context, probe, torch.tensor(tau * (STEPS - k) / STEPS))
            y = y - step * velocity
            gain += product
        found.append(standard_normal(y) - step * gain)
    return torch.stack(found).mean(0)


def drawn(count: int, seed: int) -> Tensor:
    """Rademacher probes ``(P, N, D)``."""
    return torch.randint(0, 2, (PROBES, count, 64), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1


@torch.inference_mode()
def truth(model: Model, x: Tensor, context: Tensor, tau: float, nodes: int) -> Tensor:
    """Log-density with the exact divergence on a fine rule."""
    every, field = exact_probes(*x.shape), HeadField(HeadAt(model.flow.head), context)
    return quadrature(field, x, tau, gauss_legendre(tau, nodes), lambda node: every)


def cell(level: float, **settings: Any) -> SurprisalCell:
    return SurprisalCell.model_validate(SurprisalConfig.model_validate(settings).cell(level))


@torch.inference_mode()
def ours(model: Model, level: float, x: Tensor, context: Tensor, seed: int, **settings: Any) -> tuple[Tensor, float]:
    """Our log-density of given frames, and the solver's own estimate of its error."""
    solver = InformationContent(model.flow, model.window, cell(level, **settings), f"seed {seed}")
    found = solver.given("frames", len(x) + 1, range(1, len(x) + 1), x, context)
    return -torch.from_numpy(found), solver.solver_error_nats


def seconds(work: Callable[..., object], *arguments: Any, **settings: Any) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work(*arguments, **settings)
    return time.perf_counter() - began


def errors(model: Model, levels: Sequence[float], count: int, nodes: int, **settings: Any) -> dict[str, Any]:
    """RMSE and mean bias of both methods over `levels`, with two seeds of probes each; and what ours says of itself."""
    of: dict[str, list[Tensor]] = {"plain": [], "ours": []}
    said, spread = [], []
    for level in levels:
        x, context = prepared(model, level, count)
        exact = truth(model, x, context, 1 - level, max(12, round(nodes * (1 - level))))
        spread.append(float(exact.std()))
        for seed in (0, 1):
            of["plain"].append(plain(model.flow, x, context, 1 - level, drawn(count, seed)) - exact)
            found, error = ours(model, level, x, context, seed, **settings)
            of["ours"].append(found - exact)
            said.append(error)
    flat = {name: torch.cat(parts) for name, parts in of.items()}
    return {
        **{f"{name}_rmse_nats": round(float(part.square().mean().sqrt()), 3) for name, part in flat.items()},
        **{f"{name}_bias_nats": round(-float(part.mean()), 3) for name, part in flat.items()},
        "stated_error_nats": round(float(np.sqrt(np.mean(np.square(said)))), 3),
        "ic_sd_nats": [round(sd, 3) for sd in spread],
        **{
            f"{name}_rmse_by_level_nats": [
                round(float(torch.cat(parts[2 * k : 2 * k + 2]).square().mean().sqrt()), 3) for k in range(len(levels))
            ]
            for name, parts in of.items()
        },
    }


def speedup(
    model: Model, levels: Sequence[float], frames: int, share: int, pairs: int, **settings: Any
) -> dict[str, Any]:
    """Median over pairs of the ratio of times per frame, contexts included on neither side."""
    made = {level: prepared(model, level, frames) for level in levels}
    ratios, ours_s, plain_s = [], [], []
    for pair in range(pairs):
        slow = fast = 0.0
        for level in levels:
            x, context = made[level]
            every = frames // share
            few = x[::every][:share], context[::every][:share]
            slow += seconds(plain, model.flow, *few, 1 - level, drawn(share, pair)) / share
            fast += seconds(ours, model, level, x, context, pair, **settings) / frames
        ratios.append(slow / fast)
        ours_s.append(fast)
        plain_s.append(slow)
    return {
        "ratio": float(np.median(ratios)),
        "frames_per_second": round(len(levels) / float(np.median(ours_s)), 1),
        "peer_ms_per_frame": round(1000 * float(np.median(plain_s)) / len(levels), 1),
        "ratios": [round(ratio, 1) for ratio in ratios],
    }


def rank_correlations(model: Model, levels: Sequence[float], count: int) -> list[float]:
    """Spearman correlation of ``exact`` IC with products in bfloat16 and in float32, the same probes, per level."""
    found = []
    for level in levels:
        x, context = prepared(model, level, count)
        half, full = (
            ours(model, level, x, context, 0, solver="exact", precision=precision)[0]
            for precision in ("bfloat16", "float32")
        )
        found.append(float(spearmanr(half, full).statistic))
    return found


def say(figure: str, value: float, unit: str, goal: float, ok: bool, **more: object) -> None:
    """One line."""
    line = {"figure": figure, "value": round(value, 3), "unit": unit, "goal": goal, "ok": ok, **more}
    print(json.dumps(line), flush=True)


def main() -> None:
    """All figures; `--quick` trains and measures a tiny model, whose figures say nothing about size paper."""
    torch.set_num_threads(1)
    quick = "--quick" in sys.argv
    model = trained(quick)
    assert model.validation_loss < 0.9 * model.untrained_loss, (model.validation_loss, model.untrained_loss)
    frames, share, count, nodes, pairs = (256, 32, 16, 64, 2) if quick else (4096, 128, 32, 256, PAIRS)
    about: dict[str, Any] = {"size": "tiny" if quick else "paper", "device": default_device().type}
    about |= {"validation_loss": round(model.validation_loss, 2), "untrained_loss": round(model.untrained_loss, 2)}
    how = {**about, "frames": frames, "peer_frames": share, "peer_extrapolated": True, "pairs": pairs}
    for levels, name, least in (((0.0,), "1_level", 15.0), (SIX_LEVELS, "6_levels", 20.0)):
        error = errors(model, levels, count, nodes)
        ratio = error["ours_rmse_nats"] / error["plain_rmse_nats"]
        fast = speedup(model, levels, frames, share, pairs)
        value = fast.pop("ratio")
        say(f"speedup_{name}", value, "ratio", least, value >= least, levels=list(levels), **how, **fast)
        say(f"rmse_ratio_{name}", ratio, "ratio", 0.25, ratio <= 0.25, levels=list(levels), **about, **error)
    error = errors(model, (0.0,), count, nodes, solver="exact")
    fast = speedup(model, (0.0,), frames, share, min(pairs, 3), solver="exact")
    value = fast.pop("ratio")
    say("exact_speedup", value, "ratio", 6.0, value >= 6, **how, **fast)
    say("exact_rmse_nats", error["ours_rmse_nats"], "nats", 0.1, error["ours_rmse_nats"] < 0.1, **about, **error)
    ranks = rank_correlations(model, (0.0, 0.6, 0.9), 8 * count)
    how = {**about, "levels": [0.0, 0.6, 0.9], "frames": 8 * count, "by_level": [round(rank, 5) for rank in ranks]}
    say("bfloat16_rank_correlation", min(ranks), "Spearman", 0.999, min(ranks) >= 0.999, **how)


if __name__ == "__main__":
    main()
