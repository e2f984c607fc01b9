from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from tasks.contract import Artefact, Cell, Context, Result, Stopped
from tasks.flow import loss
from tasks.flow.config import FlowConfig
from tasks.flow.crops import Batch, Crops, LatentFile, consecutive, draw_times, pad, read_crops, step_stream
from tasks.flow.loss import flow_loss
from tasks.flow.network import new_flow, read_flow
from tasks.flow.training import run

Latents = dict[str, np.ndarray]
MakeLatents = Callable[[str, Mapping[str, np.ndarray]], Artefact]
QUICK = FlowConfig(
    size="tiny",
    steps=24,
    batch_size=4,
    sequence_frames=16,
    learning_rate=1e-3,
    warmup_steps=4,
    ema_decay=0.9,
    checkpoint_every=10,
)


class Folder:
    """Checkpoints in a local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def latest(self) -> tuple[int, Path] | None:
        steps = sorted((int(path.name) for path in self.folder.glob("*")), reverse=True)
        return (steps[0], self.folder / str(steps[0])) if steps else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        (self.folder / str(step)).mkdir(parents=True)
        write(self.folder / str(step))


def cell(out_dir: Path, train: Artefact, validation: Artefact, config: FlowConfig = QUICK, seed: int = 0) -> Cell:
    out_dir.mkdir()
    settings: dict[str, Any] = {"seed": seed, "flow": config.model_dump(mode="json")}
    return Cell(out_dir.name, "flow", settings, {"train": train, "validation": validation}, out_dir)


def stored(latents: Mapping[str, np.ndarray]) -> LatentFile:
    return LatentFile(io.BytesIO(save(dict(latents))))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def inputs(latents: Latents, latents_artefact: MakeLatents) -> tuple[Artefact, Artefact]:
    """Latents whose channels have zero mean, so that they can be projected."""
    centred = {name: frames - frames.mean(1, keepdims=True) for name, frames in latents.items()}
    return latents_artefact("train", centred), latents_artefact("validation", {"v": centred["c"][::-1].copy()})


OPTIONS: dict[str, dict[str, Any]] = {
    "as they come": {},
    "no null context": {"context_dropout": 0.0},
    "other times": {"tau_sampling": "logit_normal", "context_dropout": 0.5},
    "bfloat16": {"precision": "bfloat16"},
    "in parts": {"sequence_frames": 64, "batch_size": 6},
    "projected": {"project": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_training_that_was_stopped_ends_in_the_same_bits(
    tmp_path: Path, inputs: tuple[Artefact, Artefact], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loss.MOST_FRAMES, "cpu", 100)
    config = QUICK.model_copy(update=options)
    whole = cell(tmp_path / "whole", *inputs, config=config)
    results = list(run([whole], Context()))
    checkpoints = Folder(tmp_path / "checkpoints")
    halves = cell(tmp_path / "halves", *inputs, config=config)
    for stop_after in (7, 6):  # at step 7, then at step 13, past a regular checkpoint
        calls = iter(range(1000))
        stopping = Context(
            should_stop=lambda calls=calls, last=stop_after - 1: next(calls) >= last,
            checkpoints=lambda _: checkpoints,
        )
        with pytest.raises(Stopped):
            list(run([halves], stopping))
    assert {path.name for path in checkpoints.folder.iterdir()} == {"7", "10", "13"}
    torch.manual_seed(99)
    resumed = list(run([halves], Context(checkpoints=lambda _: checkpoints)))
    assert files(whole.out_dir) == files(halves.out_dir)
    assert resumed[0].metrics == results[0].metrics


def test_resume_from_a_regular_checkpoint_after_a_kill(tmp_path: Path, inputs: tuple[Artefact, Artefact]) -> None:
    checkpoints = Folder(tmp_path / "checkpoints")
    first = cell(tmp_path / "first", *inputs)
    list(run([first], Context(checkpoints=lambda _: checkpoints)))
    shutil.rmtree(checkpoints.folder / "20")
    second = cell(tmp_path / "second", *inputs)
    list(run([second], Context(checkpoints=lambda _: checkpoints)))
    assert files(first.out_dir) == files(second.out_dir)


def test_a_checkpoint_from_before_there_were_losses_per_level_is_gone_on_from(
    tmp_path: Path, inputs: tuple[Artefact, Artefact]
) -> None:
    config = QUICK.model_copy(update={"context_dropout": 0.0})
    checkpoints = Folder(tmp_path / "checkpoints")
    whole = cell(tmp_path / "whole", *inputs, config=config)
    list(run([whole], Context(checkpoints=lambda _: checkpoints)))
    state = json.loads((checkpoints.folder / "20/training.json").read_text())
    state["curve"] = [row[:3] for row in state["curve"]]
    (checkpoints.folder / "20/training.json").write_text(json.dumps(state))
    resumed = cell(tmp_path / "resumed", *inputs, config=config)
    list(run([resumed], Context(checkpoints=lambda _: checkpoints)))
    assert files(resumed.out_dir)["flow.safetensors"] == files(whole.out_dir)["flow.safetensors"]
    before, after = (
        folder.joinpath("curve.csv").read_text().splitlines() for folder in (whole.out_dir, resumed.out_dir)
    )
    assert [line.split(",")[:3] for line in after] == [line.split(",")[:3] for line in before]
    assert after[20].split(",")[3:] == ["nan"] * 10
    assert after[21:] == before[21:]


def test_a_group_gives_the_bits_of_its_cells_alone(tmp_path: Path, inputs: tuple[Artefact, Artefact]) -> None:
    alone = cell(tmp_path / "alone", *inputs, seed=1)
    list(run([alone], Context()))
    group = [cell(tmp_path / f"group{seed}", *inputs, seed=seed) for seed in (0, 1)]
    list(run(group, Context()))
    assert files(alone.out_dir) == files(group[1].out_dir)
    assert files(group[0].out_dir)["flow.safetensors"] != files(group[1].out_dir)["flow.safetensors"]


def test_training_lowers_the_loss_and_writes_its_curve(tmp_path: Path, inputs: tuple[Artefact, Artefact]) -> None:
    config = QUICK.model_copy(update={"steps": 100})
    seen: list[tuple[int, int, Mapping[str, float]]] = []
    trained = cell(tmp_path / "trained", *inputs, config=config)
    (result,) = run([trained], Context(progress=lambda *progress: seen.append(progress)))
    lines = (trained.out_dir / "curve.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    levels = ",".join(f"validation_loss_s0.{k}" for k in range(10))
    assert lines[0] == f"step,train_loss,validation_loss,{levels},validation_loss_null"
    assert [int(row[0]) for row in rows] == list(range(2, 101, 2))
    assert float(rows[-1][1]) < 0.8 * float(rows[0][1])
    assert result.metrics["train_loss"] == float(rows[-1][1])
    assert result.metrics["validation_loss"] == float(rows[-1][2])
    assert result.metrics["validation_loss_null"] == float(rows[-1][-1])
    assert result.metrics["steps"] == 100
    assert seen[-1][:2] == (100, 100)


def test_what_is_told_while_it_trains_is_the_curve_row_by_row(
    tmp_path: Path, inputs: tuple[Artefact, Artefact]
) -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    trained = cell(tmp_path / "trained", *inputs, config=QUICK.model_copy(update={"steps": 120}))
    list(run([trained], Context(progress=lambda step, total, metrics: seen.append((step, dict(metrics))))))
    with (trained.out_dir / "curve.csv").open(newline="") as stream:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    curve = [
        (int(row["step"]), {name: value for name, value in row.items() if name != "step" and not math.isnan(value)})
        for row in rows
    ]
    assert [told for told in seen if told[1]] == curve
    assert len(seen) > len(curve)  # how far it is, is told more often


def test_the_written_model_is_read_back(tmp_path: Path, inputs: tuple[Artefact, Artefact]) -> None:
    trained = cell(tmp_path / "trained", *inputs)
    list(run([trained], Context()))
    artefact = Artefact("f", "flow", {}, {}, lambda name: (trained.out_dir / name).open("rb"))
    flow, window = read_flow(artefact)
    assert window == 16
    assert not flow.training
    assert not torch.equal(flow.head.out.weight, new_flow("tiny", 0).head.out.weight)
    assert json.loads((trained.out_dir / "flow.json").read_text())["architecture"]["width"] == 64


def test_padding_weighs_nothing(latents: Latents) -> None:
    flow = new_flow("tiny", seed=0).eval()
    short = pad([latents["b"]], 16)
    spoiled = Batch(short.frames.clone(), short.mask)
    spoiled.frames[0, 9:] = 5.0
    exact = pad([latents["b"]], 9)
    random = torch.Generator().manual_seed(0)
    tau, noise = torch.rand(2, 1, generator=random), torch.randn(2, 1, 15, 64, generator=random)
    with torch.no_grad():
        losses = [flow_loss(flow, short, tau, noise), flow_loss(flow, spoiled, tau, noise)]
        without = flow_loss(flow, exact, tau, noise[:, :, :8])
    assert losses[0] == losses[1]
    assert float(losses[0]) == pytest.approx(float(without), rel=1e-5)


def test_crops_come_from_the_seed_and_the_step_alone(latents: Latents) -> None:
    crops = Crops(stored(latents), sequence_frames=16, batch_size=200, seed=5)
    later = crops.batch(3)
    assert torch.equal(later.frames, Crops(stored(dict(reversed(latents.items()))), 16, 200, 5).batch(3).frames)
    assert not torch.equal(later.frames, crops.batch(4).frames)
    lengths = later.mask.sum(1)
    assert set(lengths.tolist()) == {9, 16}
    assert float((lengths == 9).float().mean()) == pytest.approx(8 / (39 + 8 + 69), abs=0.06)


def test_validation_crops_cover_every_recording(latents: Latents) -> None:
    there = stored(latents)
    batches = [read_crops(there, chosen, 16) for chosen in consecutive(there, 16, batch_size=4, n_batches=8)]
    assert sum(int(batch.mask.sum()) for batch in batches) == 40 + 9 + 70
    assert len(consecutive(there, sequence_frames=16, batch_size=4, n_batches=1)) == 1


@pytest.mark.parametrize(("sampling", "spread"), [("uniform", 1 / math.sqrt(12)), ("logit_normal", 0.2083)])
def test_times_follow_their_distribution(sampling: Any, spread: float) -> None:
    tau = draw_times(4, 500, sampling, step_stream(0, 0))
    assert tau.shape == (4, 500)
    assert 0 < tau.min() < tau.max() < 1
    assert float(tau.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(tau.std()) == pytest.approx(spread, rel=0.02)
    assert float(tau[0].mean()) == pytest.approx(0.5, abs=0.05)


def test_recordings_that_cannot_be_used_are_named(
    tmp_path: Path, latents: Latents, latents_artefact: MakeLatents
) -> None:
    broken = latents["a"].copy()
    broken[4, 2] = np.nan
    train = latents_artefact("some", {**latents, "broken": broken, "short": latents["a"][:1]})
    (result,) = run([cell(tmp_path / "some_out", train, train)], Context())
    assert result.failure is None
    assert result.metrics["n_skipped"] == 4
    assert "train: broken: 1 of 40 latent frames are not finite" in result.metrics["skipped"]
    none = latents_artefact("none", {"broken": broken})
    failed, done = run(
        [cell(tmp_path / "failed", none, train), cell(tmp_path / "done", train, train)],
        Context(),
    )
    assert failed.failure is not None
    assert "No usable recording" in failed.failure
    assert isinstance(done, Result)
    assert done.failure is None


def test_latents_off_the_hyperplane_train_no_projected_flow(
    tmp_path: Path, latents: Latents, latents_artefact: MakeLatents
) -> None:
    train = latents_artefact("train", latents)
    (result,) = run([cell(tmp_path / "out", train, train, QUICK.model_copy(update={"project": True}))], Context())
    assert result.failure is not None
    assert result.failure.startswith("flow.project: these latents have means over channels of up to ")


def test_a_loss_that_diverges_is_told(tmp_path: Path, inputs: tuple[Artefact, Artefact]) -> None:
    config = QUICK.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    (result,) = run([cell(tmp_path / "diverged", *inputs, config=config)], Context())
    assert result.failure is not None
    assert "smaller learning_rate" in result.failure
