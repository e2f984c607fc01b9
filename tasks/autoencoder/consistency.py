"""Consistency training: noise scales, preconditioning, and the distance between two steps of one path.

After Song and Dhariwal, "Improved Techniques for Training Consistency Models" (2023), with the continuous index of
noise scales of Music2Latent (Pasini, Lattner and Fazekas, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SIGMA_DATA = 0.5
SIGMA_MIN = 0.002
SIGMA_MAX = 80.0
RHO = 7.0
LOG_SIGMA_MEAN = -1.1
LOG_SIGMA_STD = 2.0
INDEX_GRID = 10_000
STEP_FIRST = 0.1
STEP_LAST = 0.001
HUBER_SCALE = 0.00054

Network = Callable[[Tensor, Tensor], Tensor]
"""The raw network: scaled input (batch, 2, 1024, frames) and sigma (batch,) to an output of the input's shape."""


def sigma(index: Tensor) -> Tensor:
    """The noise scale of an index in [0, 1]: `SIGMA_MIN` at 0, `SIGMA_MAX` at 1 (Karras et al. 2022, eq. 5)."""
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    return torch.clamp((low + index * (high - low)) ** RHO, min=SIGMA_MIN)


def step_size(step: int, steps: int) -> float:
    """Distance of the two indices at `step` of `steps`: from 0.1 to 0.001, exponentially."""
    return float(STEP_FIRST * (STEP_LAST / STEP_FIRST) ** (step / steps))


def index_weights() -> Tensor:
    """Probability of each of the grid's indices: a Gaussian density in log sigma (mean -1.1, std 2)."""
    log_sigma = sigma(torch.arange(INDEX_GRID, dtype=torch.float64) / INDEX_GRID).log()
    density = torch.exp(-0.5 * ((log_sigma - LOG_SIGMA_MEAN) / LOG_SIGMA_STD) ** 2)
    return density / density.sum()


def draw_index(uniform: Tensor, jitter: Tensor) -> Tensor:
    """Indices in [0, 1) with the density of `index_weights`, from two uniform draws per item (batch,)."""
    cumulative = index_weights().cumsum(0)
    cell = torch.searchsorted(cumulative, uniform.double().clamp(max=float(cumulative[-1]) * (1 - 1e-12)))
    return ((cell + jitter.double()) / INDEX_GRID).float()


def denoise(network: Network, noisy: Tensor, sigma_of_item: Tensor) -> Tensor:
    """The consistency function f(x, sigma), with f(x, SIGMA_MIN) = x for any network.

    Parameters
    ----------
    network : callable
        See `Network`.
    noisy : Tensor
        Compressed spectra with noise of scale sigma, (batch, 2, 1024, frames).
    sigma_of_item : Tensor
        Noise scale of each item, (batch,).
    """
    scale = sigma_of_item[:, None, None, None]
    above = scale - SIGMA_MIN
    skip = SIGMA_DATA**2 / (above**2 + SIGMA_DATA**2)
    out = SIGMA_DATA * above / torch.sqrt(SIGMA_DATA**2 + scale**2)
    scaled = noisy / torch.sqrt(scale**2 + SIGMA_DATA**2)
    return skip * noisy + out * network(scaled, sigma_of_item)


def pseudo_huber(a: Tensor, b: Tensor) -> Tensor:
    """Distance of each item, (batch,): sqrt(|a - b|^2 + c^2) - c with c = 0.00054 sqrt(elements per item)."""
    squared = (a - b).square().flatten(1).sum(1)
    c = HUBER_SCALE * math.sqrt(a[0].numel())
    return torch.sqrt(squared + c**2) - c


def losses(network: Network, clean: Tensor, noise: Tensor, index: Tensor, step: float) -> Tensor:
    """Consistency loss of each item, (batch,): two points of the same noisy path must be denoised alike.

    Parameters
    ----------
    network : callable
        See `Network`; the nearer point is denoised by the same weights without gradient.
    clean, noise : Tensor
        Spectra and unit noise, (batch, 2, 1024, frames).
    index : Tensor
        Index of the noisier point, (batch,), in [0, 1).
    step : float
        How much smaller the index of the nearer point is (not below 0).

    Returns
    -------
    Tensor
        Not finite where the network's output isn't: such a training can't be saved, and whoever trains has to say so.
    """
    far, near = sigma(index), sigma(torch.clamp(index - step, min=0.0))
    student = denoise(network, clean + far[:, None, None, None] * noise, far)
    with torch.no_grad():
        teacher = denoise(network, clean + near[:, None, None, None] * noise, near)
    weight = 1 / torch.clamp(far - near, min=1e-6)
    return weight * pseudo_huber(student, teacher)
