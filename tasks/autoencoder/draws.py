"""What chance decides of a training batch beside its crops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.autoencoder.config import LATENT_CHANNELS
from tasks.autoencoder.network import FRAMES_PER_LATENT, FREQUENCIES
from tasks.seeds import torch_stream


@dataclass(frozen=True)
class Draws:
    """Noise of spectra and latents, two uniform and one normal number per item."""

    spectra: Tensor
    latents: Tensor
    uniform: Tensor
    normal: Tensor


def draw(size: int, frames: int, *stream: str | int) -> Draws:
    """The draws of a batch; those of an item depend on its stream and number alone, on any device."""
    generators = [torch_stream(*stream, item) for item in range(size)]
    spectra = [torch.randn(2, FREQUENCIES, frames * FRAMES_PER_LATENT, generator=g) for g in generators]
    latents = [torch.randn(LATENT_CHANNELS, frames, generator=g) for g in generators]
    uniform = [torch.rand(2, generator=g) for g in generators]
    normal = [torch.randn((), generator=g) for g in generators]
    return Draws(torch.stack(spectra), torch.stack(latents), torch.stack(uniform), torch.stack(normal))
