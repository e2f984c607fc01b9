"""Stage ``flow``: fit the autoregressive rectified-flow model to latents."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from tasks.contract import Cell, Checkpoints, Context, Result, Stopped, TaskError
from tasks.flow.config import ARCHITECTURES, FlowConfig, Precision
from tasks.flow.crops import (
    Batch,
    Crops,
    LatentFile,
    consecutive,
    draw_dropped,
    draw_noise,
    draw_times,
    read_crops,
    read_latents,
    step_stream,
)
from tasks.flow.loss import Draw, columns, step_loss, validation_losses
from tasks.flow.network import default_device, new_flow
from tasks.seeds import derive_seed

GRADIENT_NORM_MAX = 1.0
VALIDATION_BATCHES = 8


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Train one model per cell.

    Inputs ``train`` and ``validation`` are standardised latents. Files: ``flow.safetensors`` (moving average of the
    weights), ``flow.json``, ``curve.csv``. Metrics: ``train_loss`` (mean of the last row's steps), ``validation_loss``
    and, with context dropout, ``validation_loss_null`` (of the averaged weights), all squared errors summed over the 64
    channels (63 coordinates with `project`), and ``steps``. The curve has the validation loss at each noise level
    beside them.

    Raises
    ------
    Stopped
        When the study was asked to stop; a checkpoint of the last step is kept.
    """
    for cell in cells:
        try:
            yield _train(cell, context)
        except TaskError as problem:
            yield Result(cell.signature, failure=str(problem))


def _train(cell: Cell, context: Context) -> Result:
    config, seed = FlowConfig.of_signed(cell.config["flow"]), int(cell.config["seed"])
    train, skipped = read_latents(cell.input("train"), config.project)
    validation, skipped_too = read_latents(cell.input("validation"), config.project)
    if not validation:
        raise TaskError(
            "No usable recording among the validation latents: " + ("; ".join(skipped_too[:5]) or "none given")
        )
    skipped = [f"train: {line}" for line in skipped] + [f"validation: {line}" for line in skipped_too]
    training = Training(config, seed, train, validation, default_device())
    checkpoints = context.checkpoints(cell.signature)
    training.fit(checkpoints, context)
    metrics = training.write(cell.out_dir)
    return Result(cell.signature, metrics={**metrics, "n_skipped": len(skipped), "skipped": skipped[:20]})


class Training:
    """A model, its optimiser, its moving average and its curve: all that a checkpoint holds.

    Every random draw of a step derives from (seed, step), so a training that resumes from a checkpoint ends in the same
    bits as one that was never interrupted.
    """

    def __init__(
        self, config: FlowConfig, seed: int, train: LatentFile, validation: LatentFile, device: torch.device
    ) -> None:
        self.config, self.seed, self.device = config, seed, device
        self.precision = _precision(config.precision, device)
        self.crops = Crops(train, config.sequence_frames, config.batch_size, seed)
        self.validation = validation
        self.validated = consecutive(validation, config.sequence_frames, config.batch_size, VALIDATION_BATCHES)
        null_context, first_seed = config.context_dropout > 0, derive_seed(seed, "flow", "initial weights")
        self.flow = new_flow(config.size, first_seed, null_context, config.project).to(device)
        self.average = new_flow(config.size, first_seed, null_context, config.project).to(device).eval()
        self.optimizer = torch.optim.AdamW(self.flow.parameters(), lr=config.learning_rate)
        self.step = 0
        self.losses: list[float] = []
        self.columns = columns(null_context)
        self.curve: list[tuple[float, ...]] = []
        self.row_every = max(1, config.steps // 50)

    def fit(self, checkpoints: Checkpoints, context: Context) -> None:
        """Train from the last checkpoint to the last step.

        Raises
        ------
        Stopped
            The study was asked to stop.
        TaskError
            The loss is no longer finite.
        """
        latest = checkpoints.latest()
        if latest is not None:
            self.load(latest[1])
        total, saved = self.config.steps, self.step
        while self.step < total:
            self.advance()
            row = self.add_row() if self.step % self.row_every == 0 or self.step == total else {}
            if row or self.step % max(1, min(10, total // 100)) == 0:
                context.progress(self.step, total, row)
            if self.step % self.config.checkpoint_every == 0 and self.step < total:
                checkpoints.save(self.step, self.save)
                saved = self.step
            if self.step < total and context.should_stop():
                if saved < self.step:
                    checkpoints.save(self.step, self.save)
                raise Stopped

    def advance(self) -> None:
        """One step of AdamW, and of the moving average."""
        config, step = self.config, self.step
        draw = self._draw(self.crops.batch(step), config.context_dropout, step)
        self.flow.train()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.seed, "flow", "dropout", step))
            loss = step_loss(self.flow, draw, self.device, self.precision)
        torch.nn.utils.clip_grad_norm_(self.flow.parameters(), GRADIENT_NORM_MAX)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1))
        self.optimizer.step()
        self.step += 1
        self._follow()
        self.losses.append(loss)
        if not math.isfinite(self.losses[-1]):
            raise TaskError(
                f"The flow's training loss is {self.losses[-1]} at step {self.step}: try a smaller learning_rate "
                f"(now {config.learning_rate}) or a longer warmup_steps (now {config.warmup_steps})."
            )

    def _draw(self, batch: Batch, dropout: float, *stream: str | int) -> Draw:
        """Times, noise and dropped contexts of a batch, from the stream of that name."""
        random = step_stream(self.seed, *stream)
        n_draws, target = self.flow.tau_draws, batch.frames[:, 1:]
        tau = draw_times(n_draws, len(target), self.config.tau_sampling, random)
        noise = draw_noise(n_draws, target, random)
        return Draw(batch, tau, noise, draw_dropped(dropout, batch.mask[:, 1:], random) if dropout else None)

    def _follow(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.flow.parameters(), strict=True)
            for kept, new in pairs:
                kept.lerp_(new, 1 - decay)

    def add_row(self) -> dict[str, float]:
        """A new row of the curve: mean training loss since the last, validation losses at every fifth and the last."""
        total = self.config.steps
        due = self.step == total or (self.step // self.row_every) % 5 == 0
        row = {"train_loss": float(np.mean(self.losses)), **(self.validate() if due else {})}
        self.curve.append((self.step, *(row.get(name, math.nan) for name in self.columns[1:])))
        self.losses = []
        return {name: value for name, value in row.items() if not math.isnan(value)}

    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights on the validation crops by name, always with the same noise and times."""
        batches = (read_crops(self.validation, chosen, self.config.sequence_frames) for chosen in self.validated)
        draws = (self._draw(batch, 0.0, "validation", index) for index, batch in enumerate(batches))
        return validation_losses(self.average, draws, self.device)

    def metrics(self) -> dict[str, float]:
        """Last training and validation losses of the curve, apart from those of single noise levels."""
        last = dict(zip(self.columns, self.curve[-1], strict=True))
        wanted = ("train_loss", "validation_loss", "validation_loss_null")
        return {name: last[name] for name in wanted if not math.isnan(last.get(name, math.nan))}

    def write(self, folder: Path) -> dict[str, float | int]:
        """Write the cell's files and give its metrics."""
        config = self.config
        (folder / "flow.safetensors").write_bytes(save(_on_cpu(self.average.state_dict())))
        about = {
            "size": config.size,
            "sequence_frames": config.sequence_frames,
            "tau_sampling": config.tau_sampling,
            "has_null_context": self.average.has_null_context,
            "project": config.project,
            "architecture": ARCHITECTURES[config.size].model_dump(),
        }
        (folder / "flow.json").write_text(json.dumps(about, sort_keys=True, indent=1) + "\n")
        rows = [",".join(map(repr, row)) for row in self.curve]
        (folder / "curve.csv").write_text("\n".join([",".join(self.columns), *rows]) + "\n")
        return {**self.metrics(), "steps": self.step}

    def save(self, folder: Path) -> None:
        """Write a checkpoint into `folder`."""
        moments = {
            f"{kind}/{name}": self.optimizer.state[parameter][kind]
            for name, parameter in self.flow.named_parameters()
            for kind in ("exp_avg", "exp_avg_sq")
        }
        weights = {f"flow/{name}": value for name, value in self.flow.state_dict().items()}
        averages = {f"average/{name}": value for name, value in self.average.state_dict().items()}
        save_file(_on_cpu({**weights, **averages, **moments}), folder / "training.safetensors")
        state = {"step": self.step, "losses": self.losses, "curve": self.curve}
        (folder / "training.json").write_text(json.dumps(state))

    def load(self, folder: Path) -> None:
        """Go back to the checkpoint in `folder`."""
        tensors = load_file(folder / "training.safetensors", device=str(self.device))
        state = json.loads((folder / "training.json").read_text())
        self.step, self.losses = state["step"], state["losses"]
        missing = (math.nan,) * len(self.columns)  # a checkpoint may be older than a column
        self.curve = [(*row, *missing[len(row) :]) for row in state["curve"]]
        self.flow.load_state_dict(_part(tensors, "flow"))
        self.average.load_state_dict(_part(tensors, "average"))
        first, second = _part(tensors, "exp_avg"), _part(tensors, "exp_avg_sq")
        for name, parameter in self.flow.named_parameters():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": first[name],
                "exp_avg_sq": second[name],
            }


def _precision(name: Precision, device: torch.device) -> torch.dtype:
    """The numbers of a training step's products; `TaskError` where the device has none of them."""
    if name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TaskError(f"flow.precision: this GPU ({torch.cuda.get_device_name(device)}) has no bfloat16; use float32")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix + "/"): value for name, value in tensors.items() if name.startswith(prefix + "/")}


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
