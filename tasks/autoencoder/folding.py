"""Convolutions on maps whose neighbouring rows lie in channels.

At full resolution a map of very few channels costs a CPU far more than its arithmetic. Folding groups of four rows
into channels, (batch, c, 4 m, frames) to (batch, 4 c, m, frames), makes the same convolutions dense; their kernels are
rearranged on the fly, so weights, results and gradients are those of the plain convolution (up to rounding). Repeating
rows before a convolution, and skipping rows after one, become part of the kernel.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

ROWS = 4
Kind = Literal["same", "down", "up"]


def fold(x: Tensor) -> Tensor:
    """Rows to channels: (batch, c, 4 m, frames) to (batch, 4 c, m, frames)."""
    batch, channels, rows, frames = x.shape
    return x.reshape(batch, channels, rows // ROWS, ROWS, frames).transpose(2, 3).flatten(1, 2)


def unfold(x: Tensor) -> Tensor:
    """Back from `fold`."""
    batch, channels, rows, frames = x.shape
    return x.reshape(batch, channels // ROWS, ROWS, rows, frames).transpose(2, 3).flatten(2, 3)


def fold_rows(values: Tensor, channels: int) -> Tensor:
    """One value per row, (batch, 4 m), as a map that multiplies folded maps: (batch, 4 channels, m, 1)."""
    return values.reshape(len(values), -1, ROWS).transpose(1, 2).repeat(1, channels, 1)[..., None]


def _selection(kind: Kind, height: int) -> Tensor:
    """Which tap of a kernel of `height` rows joins which rows: 0 or 1, (row out, row in, block, tap)."""
    rows_out, rows_in = (1 if kind == "down" else ROWS), (1 if kind == "up" else ROWS)
    chosen = torch.zeros(rows_out, rows_in, 3, height)
    for row in range(rows_out):
        for tap in range(height):
            place = row + tap - height // 2
            chosen[row, 0 if kind == "up" else place % ROWS, 1 + place // ROWS, tap] = 1
    return chosen


class FoldedConv(nn.Conv2d):
    """A convolution of odd kernel with its own padding, on folded maps if `kind` is given.

    Parameters
    ----------
    width_in, width_out : int
        Channels of the unfolded maps.
    kernel : (int, int)
        Rows and columns, both odd.
    kind : {"same", "down", "up"}, optional
        ``same`` maps folded to folded; ``down`` folded to plain, keeping every fourth row; ``up`` plain to folded,
        each row repeated four times before the convolution. None: an ordinary convolution, plain to plain.
    """

    def __init__(self, width_in: int, width_out: int, kernel: tuple[int, int], kind: Kind | None) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(width_in, width_out, kernel, padding=padding)
        self.kind = kind
        if kind is not None:
            self.register_buffer("selection", _selection(kind, kernel[0]), persistent=False)
            self.selection: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps (batch, channels, rows, frames), folded as `kind` says."""
        if self.kind is None or self.bias is None:
            return super().forward(x)
        wide = torch.einsum("oikw,pqdk->opiqdw", self.weight, self.selection)
        wide = wide.flatten(0, 1).flatten(1, 2)
        bias = self.bias if self.kind == "down" else self.bias.repeat_interleave(ROWS)
        if self.kernel_size[0] == 1:
            return nn.functional.conv2d(x, wide[:, :, 1:2], bias, padding=(0, self.kernel_size[1] // 2))
        return nn.functional.conv2d(x, wide, bias, padding=(1, self.kernel_size[1] // 2))


class FoldedNorm(nn.GroupNorm):
    """The group norm of an unfolded map, on a folded one."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (batch, 4 channels, rows / 4, frames)."""
        weight, bias = self.weight.repeat_interleave(ROWS), self.bias.repeat_interleave(ROWS)
        return nn.functional.group_norm(x, self.num_groups, weight, bias, self.eps)
