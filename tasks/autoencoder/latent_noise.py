"""Noise on latents: how much of them is left, and what takes its place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tasks.autoencoder.config import LatentNoiseConfig


def draw_noise_time(normal: Tensor, config: LatentNoiseConfig) -> Tensor:
    """The noise time t = 1 - tau of each item, with a logit-normal data share tau.

    Parameters
    ----------
    normal : Tensor
        Standard normal draws, (batch,).
    config : LatentNoiseConfig
        A lower `logit_mean` leaves less of the latents.
    """
    return 1 - torch.sigmoid(config.logit_mean + config.logit_std * normal)


def add_noise(latents: Tensor, noise: Tensor, noise_time: Tensor, mean: float, std: float) -> Tensor:
    """Mix raw latents with noise of the given mean and std: (1 - t) z + t n on latents standardised by them.

    Parameters
    ----------
    latents, noise : Tensor
        Raw latents and unit noise, (batch, 64, frames).
    noise_time : Tensor
        t of each item, (batch,): 0 gives the latents back bit for bit, 1 gives noise that knows nothing of them.
    mean, std : float
        Those of the base's latents. They stay fixed while the encoder trains, so one that inflates its latents does
        raise its signal-to-noise ratio (`realised_snr_db` shows by how much).
    """
    t = noise_time[:, None, None]
    mixed = (1 - t) * latents + t * (mean + std * noise)
    return torch.where(t == 0, latents, torch.where(t == 1, mean + std * noise, mixed))


def noise_time_of_snr(snr: float) -> float:
    """The noise time t at a power ratio of signal to noise: t = 1 / (1 + sqrt(SNR)); 0 for infinity."""
    return 0.0 if math.isinf(snr) else 1 / (1 + math.sqrt(snr))


def realised_snr_db(latent_std: float, noise_std: float) -> float:
    """Power ratio in dB that latents of `latent_std` have where a ratio of 0 dB is meant."""
    return 20 * math.log10(latent_std / noise_std)
