"""What the finished fits and permutations of a subject hold, as the tests read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from tasks.contract import Artefact, TaskError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """One finished `trf` cell.

    Attributes
    ----------
    r_full, r_reduced : ndarray, shape (pieces, C)
    kernel : ndarray, shape (L, C)
    lags_s : ndarray, shape (L,)
    channels : tuple of str
    pieces : tuple of str
        In the order of the rows of `r_full` and `r_reduced`.
    masked : str
        The samples that were left out of each piece, as JSON.
    """

    r_full: Floats
    r_reduced: Floats
    kernel: Floats
    lags_s: Floats
    channels: tuple[str, ...]
    pieces: tuple[str, ...]
    masked: str = "[]"

    @property
    def gain(self) -> Floats:
        """Mean over pieces of r_full - r_reduced, shape (C,)."""
        gain: Floats = (self.r_full - self.r_reduced).mean(axis=0)
        return gain


def read_fit(trf: Artefact) -> Fit:
    """Read ``trf.safetensors`` and ``trf.json``."""
    arrays = load(trf.read_bytes("trf.safetensors"))
    table = json.loads(trf.read_bytes("trf.json"))
    names = tuple(table["channels"]), tuple(table["pieces"])
    masked = json.dumps(table.get("masked", []))
    return Fit(arrays["r_full"], arrays["r_reduced"], arrays["kernel"], arrays["lags_s"], *names, masked)


def read_null(blocks: Sequence[Artefact]) -> Floats:
    """delta_r of all permutations, in the order of their numbers.

    Returns
    -------
    ndarray, shape (B, C)

    Raises
    ------
    TaskError
        If blocks overlap or leave a gap.
    """
    ordered = sorted(blocks, key=lambda block: int(block.config["first"]))
    expected = 0
    for block in ordered:
        if int(block.config["first"]) != expected:
            raise TaskError(f"permutations: a block starts at {block.config['first']}, expected {expected}")
        expected += int(block.config["count"])
    return np.concatenate([load(block.read_bytes("null.safetensors"))["delta_r"] for block in ordered])


def null_of(blocks: Sequence[Artefact]) -> str:
    """Which null distribution all blocks of permutations are drawn from.

    Raises
    ------
    TaskError
        If they are of different ones.
    """
    found = sorted({str(block.config.get("null", "residual_shift")) for block in blocks})
    if len(found) != 1:
        raise TaskError(
            f"permutations: blocks of one null distribution are needed, not of {', '.join(found) or 'none'}"
        )
    return found[0]


def read_described(eeg: Artefact) -> dict[str, Any]:
    """``eeg.json`` of a subject."""
    described: dict[str, Any] = json.loads(eeg.read_bytes("eeg.json"))
    return described
