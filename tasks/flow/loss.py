"""The loss of the rectified flow: of a training step in parts that fit into memory, and at every noise level.

Shapes: B crops, S frames of a crop, D latent channels, K draws of noise and time per frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.flow.crops import Batch
from tasks.flow.network import Flow

MOST_FRAMES = {"cpu": 2**12, "cuda": 2**14}
"""Most padded frames that go through the network at once, by kind of device: whole tracks have to fit into memory."""
LEVELS = tuple(k / 10 for k in range(10))
"""Noise levels s = 1 - tau at which the validation loss is told."""


@dataclass(frozen=True)
class Draw:
    """What a step meets its crops with.

    `tau` (K, B), `noise` (K, B, S - 1, D), and `dropped` (B, S - 1): frames that get the null context, None for none.
    """

    batch: Batch
    tau: Tensor
    noise: Tensor
    dropped: Tensor | None = None

    @property
    def n_targets(self) -> int:
        """Real frames that are predicted."""
        return int(self.batch.mask[:, 1:].sum())

    def to(self, device: torch.device) -> Draw:
        """The same on `device`."""
        dropped = None if self.dropped is None else self.dropped.to(device)
        return Draw(self.batch.to(device), self.tau.to(device), self.noise.to(device), dropped)

    def parts(self, most_frames: int) -> Iterator[Draw]:
        """The draw in parts of at most `most_frames` frames (one crop at least), each padded to its own longest crop.

        A draw that is no larger is one part, as it is.
        """
        n_crops, n_padded = self.batch.mask.shape
        if n_crops * n_padded <= most_frames:
            yield self
            return
        lengths = self.batch.mask.sum(1)
        rows = torch.argsort(lengths, descending=True, stable=True)
        while len(rows):
            longest = int(lengths[rows[0]])
            count = max(most_frames // longest, 1)
            yield self._of(rows[:count], longest)
            rows = rows[count:]

    def _of(self, rows: Tensor, length: int) -> Draw:
        return Draw(
            Batch(self.batch.frames[rows, :length], self.batch.mask[rows, :length]),
            self.tau[:, rows],
            self.noise[:, rows, : length - 1],
            None if self.dropped is None else self.dropped[rows, : length - 1],
        )


def flow_loss(flow: Flow, batch: Batch, tau: Tensor, noise: Tensor, dropped: Tensor | None = None) -> Tensor:
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
    dropped : (B, S - 1) tensor of bool, optional
        Frames whose context is hidden from the head: it gets the null context.
    """
    context = flow.backbone(batch.frames[:, :-1])
    if dropped is not None:
        context = torch.where(dropped[..., None], flow.null_contexts(1, 1), context)
    return _mean_error(flow, batch, context, tau, noise)


def _mean_error(flow: Flow, batch: Batch, context: Tensor, tau: Tensor, noise: Tensor) -> Tensor:
    target = batch.frames[:, 1:]
    share = tau[:, :, None, None]
    velocity = flow.head(share * target + (1 - share) * noise, context, tau)
    error = (velocity - (target - noise)).square().sum(-1)
    mask = batch.mask[:, 1:]
    loss: Tensor = (error * mask).sum() / (mask.sum() * len(tau))
    return loss


def step_loss(flow: Flow, draw: Draw, device: torch.device, precision: torch.dtype) -> float:
    """The mean loss of a training step; its gradients are added to the parameters', part by part."""
    total, n_targets = 0.0, draw.n_targets
    for part in draw.parts(MOST_FRAMES[device.type]):
        here = part.to(device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            loss = flow_loss(flow, here.batch, here.tau, here.noise, here.dropped)
        loss = loss * (part.n_targets / n_targets)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def validation_losses(flow: Flow, draws: Iterable[Draw], device: torch.device) -> dict[str, float]:
    """Mean losses over real frames by name; empty without any.

    ``validation_loss`` is that of the draws' own times, ``validation_loss_s<level>`` that of all frames at one noise
    level, and ``validation_loss_null`` that of the draws' own times without any context.
    """
    sums: dict[str, float] = {}
    n_targets = 0
    with torch.no_grad():
        for draw in draws:
            for part in draw.parts(MOST_FRAMES[device.type]):
                for name, loss in _losses(flow, part.to(device)).items():
                    sums[name] = sums.get(name, 0.0) + loss * part.n_targets
                n_targets += part.n_targets
    return {name: total / n_targets for name, total in sums.items()}


def _losses(flow: Flow, draw: Draw) -> Mapping[str, float]:
    batch, noise = draw.batch, draw.noise
    context = flow.backbone(batch.frames[:, :-1])
    losses = {"validation_loss": float(_mean_error(flow, batch, context, draw.tau, noise))}
    for level in LEVELS:
        tau = torch.full_like(draw.tau[:1], 1 - level)
        losses[f"validation_loss_s{level}"] = float(_mean_error(flow, batch, context, tau, noise[:1]))
    if flow.has_null_context:
        null = flow.null_contexts(1, 1)
        losses["validation_loss_null"] = float(_mean_error(flow, batch, null, draw.tau, noise))
    return losses


def columns(null_context: bool) -> tuple[str, ...]:
    """The columns of a training's curve, `validation_loss_null` only where there is a null context."""
    levels = (f"validation_loss_s{level}" for level in LEVELS)
    return ("step", "train_loss", "validation_loss", *levels, *(["validation_loss_null"] if null_context else []))
