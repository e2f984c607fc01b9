"""Coordinates of latents in the hyperplane that a layer norm leaves them: those whose channels have zero mean.

Of D = 64 channels 63 are free, so that a density on all 64 is degenerate in the direction (1, ..., 1). With
``flow.project`` the flow is trained on, and IC computed of, D - 1 coordinates in a fixed orthonormal basis. Latents on
disk keep their D channels: whoever reads them for such a flow projects them, with the functions of this file.

The basis are the rows of Sylvester's Hadamard matrix but the first, the constant one, divided by sqrt(D) = 8: every
entry is -1/8 or 1/8, so that every channel weighs the same in every coordinate, and a coordinate is a sum of numbers of
like size, which float64 holds exactly: it has the same bits whatever is projected with it.

Shapes: T frames, D latent channels, a power of 2.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tasks.contract import TaskError
from tasks.flow.probes import hadamard

MEAN_MAX = 1e-2
"""Largest mean over channels that latents of the hyperplane may have; the latents' own standard deviation is 1."""


def n_coordinates(n_channels: int) -> int:
    """Dimensions of the hyperplane.

    Raises
    ------
    TaskError
        `n_channels` is no power of 2.
    """
    if n_channels < 2 or n_channels & (n_channels - 1):
        raise TaskError(f"flow.project: latents of {n_channels} channels can't be projected; a power of 2 is needed")
    return n_channels - 1


def basis(n_channels: int) -> npt.NDArray[np.float64]:
    """Orthonormal rows ``(D - 1, D)``, each with zero sum."""
    n_coordinates(n_channels)
    rows: npt.NDArray[np.float64] = hadamard(n_channels)[1:] / math.sqrt(n_channels)
    return rows


def projected(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Coordinates ``(T, D - 1)`` of ``frames (T, D)``; lengths and distances within the hyperplane stay.

    Raises
    ------
    TaskError
        The frames aren't of the hyperplane, so that a projection would lose what they differ in.
    """
    wide = frames.astype(np.float64)
    with np.errstate(invalid="ignore"):  # frames that aren't finite are named by who reads them
        means, coordinates = wide.mean(-1), (wide @ basis(frames.shape[-1]).T).astype(np.float32)
    largest = np.abs(means[np.isfinite(means)]).max(initial=0.0)
    if largest > MEAN_MAX:
        raise TaskError(
            f"flow.project: these latents have means over channels of up to {largest:.3g}; only those of bottleneck "
            "layernorm, whose mean is 0, lie in the hyperplane: use their autoencoder, or train with project: false"
        )
    return coordinates
