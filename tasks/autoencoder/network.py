"""Encoder, decoder and consistency U-Net.

The architecture is that of Music2Latent (Pasini, Lattner and Fazekas, ISMIR 2024): spectra (batch, 2, 1024, frames)
become latents (batch, 64, frames / 8); a decoder turns these into one feature map per level, and a U-Net that denoises
spectra reads those maps at each of its blocks. No part of it sees how much noise the latents carry.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from tasks.autoencoder import bottleneck as bottlenecks
from tasks.autoencoder.blocks import (
    Down,
    DownFrequency,
    ResidualBlock,
    SigmaEmbedding,
    Up,
    UpFrequency,
    group_norm,
    zeroed,
)
from tasks.autoencoder.config import LATENT_CHANNELS, Architecture, Bottleneck
from tasks.autoencoder.folding import FoldedConv, Kind, fold, fold_rows, unfold

FREQUENCIES = 1024
LEVELS = 5
COARSEST_FREQUENCIES = 32
FRAMES_PER_LATENT = 8


def _is_folded(size: Architecture) -> bool:
    """Whether full resolution is computed folded: where no part has a block there."""
    return size.encoder_blocks[0] == size.decoder_blocks[0] == size.unet_blocks[0] == 0


def _width_after(channels: tuple[int, ...], blocks: tuple[int, ...], level: int, other: int) -> int:
    """Width of what a resampling into `level` gives: a level's first block changes the width, if it has one."""
    return channels[other] if blocks[level] else channels[level]


def _blocks(width: int, out: int, count: int, size: Architecture, level: int, embedding: int = 0) -> nn.ModuleList:
    attention = size.attention_heads if level >= LEVELS - size.attention_levels else 0
    widths = [width, *([out] * count)]
    return nn.ModuleList(ResidualBlock(a, b, heads=attention, embedding=embedding) for a, b in pairwise(widths))


class Encoder(nn.Module):
    """Spectra (batch, 2, 1024, 8 T) to raw latents (batch, 64, T), after the bottleneck's activation."""

    def __init__(self, size: Architecture, bottleneck: Bottleneck) -> None:
        super().__init__()
        channels, blocks = size.channels, size.encoder_blocks
        self.folded = _is_folded(size)
        self.stem = FoldedConv(2, channels[0], (3, 3), "same" if self.folded else None)
        self.gain = nn.Parameter(torch.ones(FREQUENCIES, 1))
        self.levels, self.norms, self.downs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width = channels[0]
        for level in range(LEVELS):
            self.levels.append(_blocks(width, channels[level], blocks[level], size, level))
            self.norms.append(group_norm(channels[level], folded=self.folded and level == 0))
            if level < LEVELS - 1:
                width = _width_after(channels, blocks, level + 1, level)
                down = Down(channels[level], width) if level else DownFrequency(channels[0], width, self.folded)
                self.downs.append(down)
        inner = size.bottleneck_channels
        self.inward = nn.Conv1d(channels[-1] * COARSEST_FREQUENCIES, inner, 1)
        self.inner = nn.ModuleList(ResidualBlock(inner, inner, flat=True) for _ in range(size.bottleneck_blocks))
        self.inner_norm = group_norm(inner)
        self.to_latents = nn.Conv1d(inner, LATENT_CHANNELS, 1)
        self.activation = bottlenecks.make(bottleneck)

    def features(self, spectra: Tensor) -> Tensor:
        """The widest description of each latent frame, (batch, coarsest channels x 32, T)."""
        gain = fold_rows(self.gain[None, :, 0], self.stem.out_channels) if self.folded else self.gain
        x = self.stem(fold(spectra) if self.folded else spectra) * gain
        for level in range(LEVELS):
            for block in self.levels[level].children():
                x = block(x)
            x = self.norms[level](x)
            if level < LEVELS - 1:
                x = self.downs[level](x)
        features: Tensor = x.flatten(1, 2)
        return features

    def forward(self, spectra: Tensor) -> Tensor:
        """Encode spectra; their frames must be a multiple of 8."""
        x = self.inward(self.features(spectra))
        for block in self.inner:
            x = block(x)
        x = self.to_latents(nn.functional.silu(self.inner_norm(x)))
        latents: Tensor = self.activation(x)
        return latents


class Decoder(nn.Module):
    """Raw latents (batch, 64, T) to one feature map per level, full resolution (perhaps folded) first."""

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        channels, blocks, inner = size.channels, size.decoder_blocks, size.bottleneck_channels
        self.from_latents = nn.Conv1d(LATENT_CHANNELS, inner, 1)
        self.inner = nn.ModuleList(ResidualBlock(inner, inner, flat=True) for _ in range(size.bottleneck_blocks))
        self.outward = nn.Conv1d(inner, channels[-1] * COARSEST_FREQUENCIES, 1)
        self.levels, self.ups = nn.ModuleList(), nn.ModuleList()
        width = channels[-1]
        for level in reversed(range(LEVELS)):
            self.levels.append(_blocks(width, channels[level], blocks[level], size, level))
            if level > 0:
                width = _width_after(channels, blocks, level - 1, level)
                up = Up(channels[level], width) if level > 1 else UpFrequency(channels[1], width, _is_folded(size))
                self.ups.append(up)

    def forward(self, latents: Tensor) -> list[Tensor]:
        """Decode latents into feature maps of the levels' widths."""
        x = self.from_latents(latents)
        for block in self.inner:
            x = block(x)
        x = self.outward(x).unflatten(1, (-1, COARSEST_FREQUENCIES))
        maps: list[Tensor] = []
        for position, level_blocks in enumerate(self.levels):
            for block in level_blocks.children():
                x = block(x)
            maps.append(x)
            if position < LEVELS - 1:
                x = self.ups[position](x)
        return maps[::-1]


class UNet(nn.Module):
    """Denoises spectra of a known noise scale with the help of the decoder's feature maps.

    A map enters at every block by a 1 x 1 convolution and an average that keeps the variance; on the way up the
    blocks' outputs of the way down enter too. A level without blocks is joined once, on the way up.
    """

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        channels, blocks, wide = size.channels, size.unet_blocks, size.embedding_channels
        self.embedding = SigmaEmbedding(wide)
        self.scale_in, self.scale_out = zeroed(nn.Linear(wide, FREQUENCIES)), zeroed(nn.Linear(wide, FREQUENCIES))
        self.folded = _is_folded(size)
        kind: Kind | None = "same" if self.folded else None
        self.stem = FoldedConv(2, channels[0], (3, 3), kind)
        self.down_blocks, self.down_maps, self.downs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.up_blocks, self.up_maps, self.ups = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width = channels[0]
        for level, out in enumerate(channels):
            self.down_blocks.append(_blocks(width, out, blocks[level], size, level, wide))
            self.down_maps.append(
                nn.ModuleList(nn.Conv2d(out, w, 1) for w in [width, *([out] * blocks[level])][: blocks[level]])
            )
            self.up_blocks.append(_blocks(out, out, blocks[level], size, level, wide))
            of_level = kind if level == 0 else None
            self.up_maps.append(
                nn.ModuleList(FoldedConv(out, out, (1, 1), of_level) for _ in range(max(blocks[level], 1)))
            )
            if level < LEVELS - 1:
                width = _width_after(channels, blocks, level + 1, level)
                self.downs.append(Down(out, width) if level else DownFrequency(out, width, self.folded))
                wider = channels[level + 1]
                self.ups.append(Up(wider, out) if level else UpFrequency(wider, out, self.folded))
        self.last_map = FoldedConv(channels[0], channels[0], (1, 1), kind)
        self.last_norm = group_norm(channels[0], folded=self.folded)
        self.last = zeroed(FoldedConv(channels[0], 2, (3, 3), kind))

    def forward(self, spectra: Tensor, sigma: Tensor, maps: list[Tensor]) -> Tensor:
        """Raw output for spectra (batch, 2, 1024, frames), noise scales (batch,) and the decoder's maps."""
        embedding = self.embedding(sigma)
        x = self.stem(self._scaled(fold(spectra) if self.folded else spectra, self.scale_in(embedding)))
        skips: list[list[Tensor]] = []
        for level in range(LEVELS):
            x, kept = self._down(level, x, maps[level], embedding)
            skips.append(kept)
            if level < LEVELS - 1:
                x = self.downs[level](x)
        for level in reversed(range(LEVELS)):
            x = self._up(level, x, maps[level], skips[level], embedding)
            if level > 0:
                x = self.ups[level - 1](x)
        x = (x + self.last_map(maps[0])) / math.sqrt(2)
        x = self.last(nn.functional.silu(self.last_norm(x)))
        x = self._scaled(x, self.scale_out(embedding))
        return unfold(x) if self.folded else x

    def _scaled(self, spectra: Tensor, by: Tensor) -> Tensor:
        """Spectra (perhaps folded) times 1 + `by`, (batch, 1024)."""
        return spectra * (1 + (fold_rows(by, 2) if self.folded else by[:, None, :, None]))

    def _down(self, level: int, x: Tensor, level_map: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        kept: list[Tensor] = []
        for block, enter in zip(self.down_blocks[level].children(), self.down_maps[level].children(), strict=True):
            x = block((x + enter(level_map)) / math.sqrt(2), embedding)
            kept.append(x)
        return x, kept or [x]

    def _up(self, level: int, x: Tensor, level_map: Tensor, kept: list[Tensor], embedding: Tensor) -> Tensor:
        blocks: list[nn.Module | None] = [*self.up_blocks[level].children()] or [None]
        for block, enter, skip in zip(blocks, self.up_maps[level].children(), reversed(kept), strict=True):
            x = (x + skip + enter(level_map)) / math.sqrt(3)
            x = x if block is None else block(x, embedding)
        return x


class Autoencoder(nn.Module):
    """The three parts together."""

    def __init__(self, size: Architecture, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.encoder = Encoder(size, bottleneck)
        self.decoder = Decoder(size)
        self.unet = UNet(size)
