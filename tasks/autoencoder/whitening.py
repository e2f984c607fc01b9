"""A start for short trainings: the untrained encoder's latents are decorrelated on the training material.

An untrained encoder puts nearly all of its latents' variance into loudness, and in a few hundred steps training doesn't
undo that. Scaling a layer by the statistics of its own outputs before the first step is data-dependent initialisation
(Krähenbühl et al., ICLR 2016; Mishkin and Matas, ICLR 2016).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from tasks.autoencoder.network import Encoder

SMALLEST_SHARE = 1e-5
"""Directions with less than this share of the largest variance are taken to have it."""


@torch.no_grad()
def whiten(encoder: Encoder, spectra: Iterable[Tensor], std: float, power: float = 0.5) -> None:
    """Change the encoder's last layer so that its outputs have mean 0, and less unequal variances.

    Parameters
    ----------
    encoder : Encoder
        Changed in place.
    spectra : iterable of (B, 2, 1024, 8 T) tensors
        Training material.
    std : float
        Root mean square of the outputs afterwards, before the bottleneck's activation.
    power : float
        Directions of variance v get variance v^(1 - 2 power): 0.5 makes all equal.
    """
    outputs: list[np.ndarray] = []
    layer = encoder.to_latents
    hook = layer.register_forward_hook(
        lambda _module, _inputs, out: outputs.append(out.transpose(1, 2).flatten(0, 1).double().cpu().numpy())
    )
    try:
        for batch in spectra:
            encoder(batch)
    finally:
        hook.remove()
    values = np.concatenate(outputs)
    mean = values.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(values.T))
    variances = np.maximum(variances, SMALLEST_SHARE * variances[-1])
    scale = variances ** -power
    scale *= std / np.sqrt(np.mean(variances * scale**2))
    change = (directions * scale) @ directions.T
    weight = layer.weight[:, :, 0].double().cpu().numpy()
    assert layer.bias is not None
    bias = layer.bias.double().cpu().numpy()
    layer.weight.copy_(torch.from_numpy(change @ weight)[:, :, None])
    layer.bias.copy_(torch.from_numpy(change @ (bias - mean)))
