"""Training crops of latents: which frames a step sees, and the noise and times it meets them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tasks.contract import Artefact, TaskError
from tasks.seeds import numpy_stream, torch_stream

TauSampling = Literal["uniform", "logit_normal"]


@dataclass(frozen=True)
class Batch:
    """`frames` (B, S, D) and which of them are real, `mask` (B, S); the rest is padding at the end."""

    frames: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(self.frames.to(device), self.mask.to(device))


def read_latents(artefact: Artefact) -> tuple[dict[str, np.ndarray], list[str]]:
    """Standardised latents ``(T, D)`` by recording id, in the order of the ids, and sentences on those left out.

    Left out are recordings of fewer than two frames and recordings with NaN or infinite values.
    """
    from safetensors.numpy import load

    latents = load(artefact.read_bytes("latents.safetensors"))
    usable, skipped = {}, []
    for name in sorted(latents):
        frames = latents[name].astype(np.float32, copy=False)
        if len(frames) < 2:
            skipped.append(f"{name}: {len(frames)} latent frame(s), at least 2 are needed to predict one from another")
        elif not np.isfinite(frames).all():
            bad = int((~np.isfinite(frames).all(axis=1)).sum())
            skipped.append(f"{name}: {bad} of {len(frames)} latent frames are not finite")
        else:
            usable[name] = frames
    return usable, skipped


class Crops:
    """Random crops of `sequence_frames` from recordings, each recording as often as it has frames to predict.

    The crops of a step depend on the seed, the step and the recordings, not on the steps before.
    """

    def __init__(self, latents: Mapping[str, np.ndarray], sequence_frames: int, batch_size: int, seed: int) -> None:
        if not latents:
            raise TaskError(
                "No usable recording among the training latents; at least one of 2 or more frames is needed."
            )
        self.recordings = [latents[name] for name in sorted(latents)]
        self.sequence_frames, self.batch_size, self.seed = sequence_frames, batch_size, seed
        weights = np.array([len(frames) - 1 for frames in self.recordings], dtype=np.float64)
        self.shares = weights / weights.sum()

    def batch(self, step: int) -> Batch:
        """The crops of `step`."""
        random = numpy_stream(self.seed, "flow", "crops", step)
        crops = []
        for index in random.choice(len(self.recordings), size=self.batch_size, p=self.shares):
            frames = self.recordings[index]
            start = int(random.integers(0, max(len(frames) - self.sequence_frames, 0) + 1))
            crops.append(frames[start : start + self.sequence_frames])
        return pad(crops, self.sequence_frames)


def consecutive(
    latents: Mapping[str, np.ndarray], sequence_frames: int, batch_size: int, n_batches: int
) -> list[Batch]:
    """At most `n_batches` batches of crops spread evenly over all recordings, for validation."""
    crops = [
        frames[start : start + sequence_frames]
        for frames in (latents[name] for name in sorted(latents))
        for start in range(0, len(frames) - 1, sequence_frames)
    ]
    chosen = np.unique(np.linspace(0, len(crops) - 1, min(len(crops), n_batches * batch_size)).round().astype(int))
    crops = [crops[index] for index in chosen]
    return [pad(crops[i : i + batch_size], sequence_frames) for i in range(0, len(crops), batch_size)]


def pad(crops: Sequence[np.ndarray], sequence_frames: int) -> Batch:
    """Stack crops, zeros behind the short ones."""
    frames = np.zeros((len(crops), sequence_frames, crops[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(crops), sequence_frames), dtype=bool)
    for row, crop in enumerate(crops):
        frames[row, : len(crop)] = crop
        mask[row, : len(crop)] = True
    return Batch(torch.from_numpy(frames), torch.from_numpy(mask))


def draw_times(n_draws: int, batch_size: int, sampling: TauSampling, random: torch.Generator) -> Tensor:
    """tau ``(n_draws, batch_size)``, one from each of equally likely strata, in random order.

    ``uniform`` on [0, 1], or ``logit_normal``: sigmoid of a standard normal (Esser et al. 2024).
    """
    count = n_draws * batch_size
    order = torch.randperm(count, generator=random).double()
    share = (order + torch.rand(count, generator=random, dtype=torch.float64)) / count
    if sampling == "logit_normal":
        share = torch.sigmoid(torch.special.ndtri(share.clamp(1e-9, 1 - 1e-9)))
    return share.float().view(n_draws, batch_size)


def draw_noise(n_draws: int, target: Tensor, random: torch.Generator) -> Tensor:
    """Standard normal noise, `n_draws` for each of ``target (B, T, D)``."""
    return torch.randn((n_draws, *target.shape), generator=random)


def step_stream(seed: int, *names: str | int) -> torch.Generator:
    """The generator of one step's noise and times."""
    return torch_stream(seed, "flow", "noise", *names)
