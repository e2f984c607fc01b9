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
from tasks.flow.config import ARCHITECTURES, FlowConfig
from tasks.flow.crops import Batch, Crops, consecutive, draw_noise, draw_times, read_latents, step_stream
from tasks.flow.network import Flow, default_device, new_flow
from tasks.seeds import derive_seed

COLUMNS = ("step", "train_loss", "validation_loss")
GRADIENT_NORM_MAX = 1.0
VALIDATION_BATCHES = 8


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Train one model per cell.

    Inputs ``train`` and ``validation`` are standardised latents. Files: ``flow.safetensors`` (moving average of the
    weights), ``flow.json``, ``curve.csv``. Metrics: ``train_loss`` (mean of the last row's steps), ``validation_loss``
    (of the averaged weights), both squared errors summed over the 64 channels, and ``steps``.

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
    config, seed = FlowConfig.model_validate(cell.config["flow"]), int(cell.config["seed"])
    train, skipped = read_latents(cell.input("train"))
    validation, skipped_too = read_latents(cell.input("validation"))
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


def flow_loss(flow: Flow, batch: Batch, tau: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the velocity of the next frame, summed over channels, mean over real frames and draws.

    ``x_tau = tau x_1 + (1 - tau) x_0`` with target ``x_1 - x_0`` (Liu et al. 2022, Flow straight and fast).

    Parameters
    ----------
    flow : Flow
    batch : Batch
        ``frames (B, S, D)``; frames 0..t-1 are the context of frame t, for t = 1..S-1.
    tau : (K, B) tensor
        One time per draw and crop.
    noise : (K, B, S - 1, D) tensor
    """
    context = flow.backbone(batch.frames[:, :-1])
    target = batch.frames[:, 1:]
    share = tau[:, :, None, None]
    velocity = flow.head(share * target + (1 - share) * noise, context, tau)
    error = (velocity - (target - noise)).square().sum(-1)
    mask = batch.mask[:, 1:]
    loss: Tensor = (error * mask).sum() / (mask.sum() * len(tau))
    return loss


class Training:
    """A model, its optimiser, its moving average and its curve: all that a checkpoint holds.

    Every random draw of a step derives from (seed, step), so a training that resumes from a checkpoint ends in the same
    bits as one that was never interrupted.
    """

    def __init__(
        self,
        config: FlowConfig,
        seed: int,
        train: Mapping[str, np.ndarray],
        validation: Mapping[str, np.ndarray],
        device: torch.device,
    ) -> None:
        self.config, self.seed, self.device = config, seed, device
        self.crops = Crops(train, config.sequence_frames, config.batch_size, seed)
        batches = consecutive(validation, config.sequence_frames, config.batch_size, VALIDATION_BATCHES)
        self.validation = [batch.to(device) for batch in batches]
        self.flow = new_flow(config.size, derive_seed(seed, "flow", "initial weights")).to(device)
        self.average = new_flow(config.size, derive_seed(seed, "flow", "initial weights")).to(device).eval()
        self.optimizer = torch.optim.AdamW(self.flow.parameters(), lr=config.learning_rate)
        self.step = 0
        self.losses: list[float] = []
        self.curve: list[tuple[int, float, float]] = []
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
        batch = self.crops.batch(step)
        random = step_stream(self.seed, step)
        tau = draw_times(self.flow.tau_draws, config.batch_size, config.tau_sampling, random)
        noise = draw_noise(self.flow.tau_draws, batch.frames[:, 1:], random)
        self.flow.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.seed, "flow", "dropout", step))
            loss = flow_loss(self.flow, batch.to(self.device), tau.to(self.device), noise.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.flow.parameters(), GRADIENT_NORM_MAX)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1))
        self.optimizer.step()
        self.step += 1
        self._follow()
        self.losses.append(float(loss.detach()))
        if not math.isfinite(self.losses[-1]):
            raise TaskError(
                f"The flow's training loss is {self.losses[-1]} at step {self.step}: try a smaller learning_rate "
                f"(now {config.learning_rate}) or a longer warmup_steps (now {config.warmup_steps})."
            )

    def _follow(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.flow.parameters(), strict=True)
            for kept, new in pairs:
                kept.lerp_(new, 1 - decay)

    def add_row(self) -> dict[str, float]:
        """A new row of the curve: mean training loss since the last, validation loss at every fifth and the last."""
        total = self.config.steps
        due = self.step == total or (self.step // self.row_every) % 5 == 0
        self.curve.append((self.step, float(np.mean(self.losses)), self.validate() if due else math.nan))
        self.losses = []
        named = dict(zip(COLUMNS[1:], self.curve[-1][1:], strict=True))
        return {name: value for name, value in named.items() if not math.isnan(value)}

    @torch.no_grad()
    def validate(self) -> float:
        """Loss of the averaged weights on the validation crops, always with the same noise and times."""
        total, count = 0.0, 0
        for index, batch in enumerate(self.validation):
            random = step_stream(self.seed, "validation", index)
            tau = draw_times(self.average.tau_draws, len(batch.frames), self.config.tau_sampling, random)
            noise = draw_noise(self.average.tau_draws, batch.frames[:, 1:], random)
            n_frames = int(batch.mask[:, 1:].sum())
            total += float(flow_loss(self.average, batch, tau.to(self.device), noise.to(self.device))) * n_frames
            count += n_frames
        return total / count if count else math.nan

    def metrics(self) -> dict[str, float]:
        """Last training and validation loss of the curve."""
        last = {"train_loss": self.curve[-1][1]}
        validated = [row[2] for row in self.curve if not math.isnan(row[2])]
        return {**last, "validation_loss": validated[-1]} if validated else last

    def write(self, folder: Path) -> dict[str, float | int]:
        """Write the cell's files and give its metrics."""
        config = self.config
        (folder / "flow.safetensors").write_bytes(save(_on_cpu(self.average.state_dict())))
        about = {
            "size": config.size,
            "sequence_frames": config.sequence_frames,
            "tau_sampling": config.tau_sampling,
            "architecture": ARCHITECTURES[config.size].model_dump(),
        }
        (folder / "flow.json").write_text(json.dumps(about, sort_keys=True, indent=1) + "\n")
        rows = [",".join(map(repr, row)) for row in self.curve]
        (folder / "curve.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
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
        self.curve = [(row[0], row[1], row[2]) for row in state["curve"]]
        self.flow.load_state_dict(_part(tensors, "flow"))
        self.average.load_state_dict(_part(tensors, "average"))
        first, second = _part(tensors, "exp_avg"), _part(tensors, "exp_avg_sq")
        for name, parameter in self.flow.named_parameters():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": first[name],
                "exp_avg_sq": second[name],
            }


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix + "/"): value for name, value in tensors.items() if name.startswith(prefix + "/")}


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
