"""Directions along which divergences are estimated: random, but the same for a frame whatever is computed with it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tasks.seeds import numpy_stream


def hadamard(dim: int) -> np.ndarray:
    """Sylvester's matrix of -1 and 1 with orthogonal columns, ``(R, dim)`` int8: R = `dim` rows for a power of 2.

    For one below a power of 2 (63) it is the matrix of that power without its constant column: R = dim + 1 rows, which
    are no longer orthogonal, but all together still give the exact trace.
    """
    rows = np.ones((1, 1), dtype=np.int8)
    while len(rows) < dim:
        rows = np.block([[rows, rows], [rows, -rows]])
    assert len(rows) - dim in (0, 1), f"{dim} is neither a power of 2 nor one below"
    return rows[:, len(rows) - dim :]


def n_rows(dim: int) -> int:
    """How many probes there are before one comes again: all of them together give the exact trace."""
    return len(hadamard(dim))


def draw_probes(signature: str, recording: str, n_frames: int, n_probes: int, dim: int) -> np.ndarray:
    """Rademacher probes ``(T, P, D)``, values -1 and 1, of one recording in one cell.

    Each frame gets rows of a Hadamard matrix in random order, its columns multiplied by random signs: every probe is
    Rademacher, up to D probes of a frame are orthogonal, and with D of them the divergence is exact. `dim` is a power
    of 2, or one below (then they are nearly orthogonal, and D + 1 are exact).
    """
    rows = hadamard(dim)
    rounds = -(-n_probes // len(rows))
    signs = numpy_stream(signature, "probe signs", recording).integers(0, 2, (n_frames, rounds, dim), dtype=np.int8)
    order = numpy_stream(signature, "probe rows", recording).random((n_frames, rounds, len(rows))).argsort(axis=-1)
    probes = rows[order[:, :, :n_probes]] * (2 * signs - 1)[:, :, None, :]
    return probes.reshape(n_frames, -1, dim)[:, :n_probes]


class FrameProbes:
    """Probes of one recording that are others at every node: rows of a Hadamard matrix in an order of the frame's own.

    The signs stay the same along the path, and no row comes again before all have been used: what one node's rows get
    wrong of a Jacobian that changes little, the next nodes' rows make good.
    """

    def __init__(self, seed: str, recording: str, n_frames: int, dim: int) -> None:
        self.rows = hadamard(dim)
        self.signs = 2 * numpy_stream(seed, "probe signs", recording).integers(0, 2, (n_frames, dim), np.int8) - 1
        random = numpy_stream(seed, "probe rows", recording).random((n_frames, len(self.rows)), np.float32)
        self.order = random.argsort(axis=-1).astype(np.uint16)

    def rows_from(self, place: int, n_probes: int, first: int, count: int) -> np.ndarray:
        """The next `n_probes` probes from `place` in the order on, ``(P, count, D)``, of the frames from `first` on."""
        part = slice(first, first + count)
        places = (place + np.arange(n_probes)) % len(self.rows)
        probes: np.ndarray = self.rows[self.order[part][:, places].T] * self.signs[part]
        return probes


def exact_probes(n_frames: int, dim: int) -> Tensor:
    """Probes ``(D, N, D)`` with which the estimated divergence is the exact trace, at D times the cost of one."""
    return (math.sqrt(dim) * torch.eye(dim))[:, None, :].expand(dim, n_frames, dim).contiguous()
