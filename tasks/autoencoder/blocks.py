"""The pieces the networks are made of."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from tasks.autoencoder.folding import FoldedConv, FoldedNorm

Layer = TypeVar("Layer", bound=nn.Module)


def group_norm(channels: int, folded: bool = False) -> nn.GroupNorm:
    """Group norm with at least four channels a group, and at most 32 groups."""
    return (FoldedNorm if folded else nn.GroupNorm)(max(1, min(channels // 4, 32)), channels)


def zeroed(layer: Layer) -> Layer:
    """The same layer with all parameters zero: the branch it ends starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class FrequencyAttention(nn.Module):
    """Self-attention along frequency, separately in every STFT frame, added to its input."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Attend within maps (batch, channels, frequencies, frames)."""
        batch, channels, frequencies, frames = x.shape
        tokens = self.norm(x).permute(0, 3, 2, 1).reshape(batch * frames, frequencies, channels)
        q, k, v = self.to_qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        attended: Tensor = self.out(mixed)
        return x + attended.reshape(batch, frames, frequencies, channels).permute(0, 3, 2, 1)


class ResidualBlock(nn.Module):
    """Norm, SiLU and convolution twice, added to the input; the second convolution starts at zero.

    Parameters
    ----------
    width_in, width_out : int
        Channels; a 1 x 1 convolution carries the input over where they differ.
    heads : int
        Heads of a self-attention along frequency after the block; 0 for none.
    embedding : int
        Width of an embedding that is added between the convolutions; 0 for none.
    flat : bool
        One-dimensional, on (batch, channels, frames).
    """

    def __init__(self, width_in: int, width_out: int, heads: int = 0, embedding: int = 0, flat: bool = False) -> None:
        super().__init__()
        convolution = nn.Conv1d if flat else nn.Conv2d
        self.norm_1, self.norm_2 = group_norm(width_in), group_norm(width_out)
        self.conv_1 = convolution(width_in, width_out, 3, padding=1)
        self.conv_2 = zeroed(convolution(width_out, width_out, 3, padding=1))
        self.carry = nn.Identity() if width_in == width_out else convolution(width_in, width_out, 1)
        self.from_embedding = zeroed(nn.Linear(embedding, width_out)) if embedding else None
        self.attention = FrequencyAttention(width_out, heads) if heads else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Map (batch, width_in, ...) to (batch, width_out, ...)."""
        y = self.conv_1(nn.functional.silu(self.norm_1(x)))
        if self.from_embedding is not None and embedding is not None:
            y = y + self.from_embedding(embedding)[:, :, None, None]
        y = self.conv_2(nn.functional.silu(self.norm_2(y)))
        out: Tensor = self.attention(self.carry(x) + y)
        return out


class DownFrequency(nn.Module):
    """Four times fewer frequencies."""

    def __init__(self, width_in: int, width_out: int, folded: bool) -> None:
        super().__init__()
        self.folded = folded
        self.conv = FoldedConv(width_in, width_out, (5, 1), "down" if folded else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width_in, 4 m, frames), perhaps folded, to (batch, width_out, m, frames)."""
        if self.folded:
            out: Tensor = self.conv(x)
            return out
        return nn.functional.conv2d(x, self.conv.weight, self.conv.bias, stride=(4, 1), padding=(2, 0))


class UpFrequency(nn.Module):
    """Each frequency four times, then a convolution."""

    def __init__(self, width_in: int, width_out: int, folded: bool) -> None:
        super().__init__()
        self.folded = folded
        self.conv = FoldedConv(width_in, width_out, (5, 1), "up" if folded else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width_in, m, frames) to (batch, width_out, 4 m, frames), perhaps folded."""
        out: Tensor = self.conv(x if self.folded else _repeat(x, 4, 1))
        return out


class Down(nn.Conv2d):
    """Half the frequencies and half the frames."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, 3, stride=2, padding=1)


class Up(nn.Conv2d):
    """Each frequency and each frame twice, then a convolution."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width_in, frequencies, frames) to twice as many frequencies and frames."""
        return super().forward(_repeat(x, 2, 2))


def _repeat(x: Tensor, rows: int, columns: int) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=(float(rows), float(columns)), mode="nearest")


class SigmaEmbedding(nn.Module):
    """Sines and cosines of log(sigma) / 4, through two layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU())

    def forward(self, sigma: Tensor) -> Tensor:
        """Embed noise scales (batch,) as (batch, channels)."""
        half = self.channels // 2
        rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=sigma.device) / half)
        angles = 1000 * (sigma.log() / 4)[:, None] * rates
        out: Tensor = self.layers(torch.cat([angles.sin(), angles.cos()], dim=1))
        return out
