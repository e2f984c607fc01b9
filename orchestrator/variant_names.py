"""What variants of a study are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.experiment import Science

SHORT_NOISE = {"none": "none", "decoder": "D", "encoder+decoder": "E+D"}
NAMED_KEYS = ("autoencoder.bottleneck", "autoencoder.latent_noise.applied_to", "autoencoder.latent_noise.logit_mean")


def variant_name(science: Science, settings: Mapping[str, Any]) -> str:
    """A variant in a few words: bottleneck, latent noise, and what else was set."""
    noise = science.autoencoder.latent_noise
    parts = [science.autoencoder.bottleneck, SHORT_NOISE[noise.applied_to]]
    if noise.applied_to != "none":
        parts.append(f"m={noise.logit_mean!r}")
    parts += [_band(science) if key == "band_hz" else f"{key}={value}" for key, value in settings.items()]
    return " ".join(parts)


def _band(science: Science) -> str:
    """The band of a study's EEG, as names have it."""
    if science.eeg is None:
        return ""
    low, high = science.eeg.preprocessing.band_hz
    return f"{low:g}-{high:g} Hz"


def trained_name(variant: str, science: Science) -> str:
    """A variant's name without the band of its EEG: variants that differ in that alone share their models."""
    return variant.replace(band_suffix(variant, science), "", 1)


def band_suffix(variant: str, science: Science) -> str:
    """The part of a variant's name that says its band of EEG, with a space before it; empty where none is swept."""
    band = f" {_band(science)}"
    return band if f"{band} " in f"{variant} " and band != " " else ""
