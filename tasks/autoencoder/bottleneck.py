"""What keeps latents in bounds: a tanh, or a layer norm that fixes the variance of every frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tasks.autoencoder.config import LATENT_CHANNELS, Bottleneck


class FrameNorm(nn.Module):
    """Each latent frame gets mean 0 and standard deviation 1 over its channels; there is nothing to learn."""

    def forward(self, latents: Tensor) -> Tensor:
        """Normalise latents (batch, 64, frames) along their channels."""
        return nn.functional.layer_norm(latents.transpose(1, 2), (LATENT_CHANNELS,)).transpose(1, 2)


class Tanh(nn.Module):
    """Latents in (-1, 1), with whatever variance the encoder likes."""

    def forward(self, latents: Tensor) -> Tensor:
        """Squash latents of any shape."""
        return torch.tanh(latents)


def make(bottleneck: Bottleneck) -> nn.Module:
    """The bottleneck's activation on latents (batch, 64, frames)."""
    return FrameNorm() if bottleneck == "layernorm" else Tanh()
