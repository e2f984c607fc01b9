"""The base of every config, and the configs of the stages that are one file: surprisal, reconstruction, pitch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Frozen, and a key that it doesn't know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, validate_default=True)


class SurprisalConfig(Config):
    """Information content at noise levels.

    `noise_levels` are s in [0, 1]: 0 is the clean latent, 1 is all noise. `definition` says which quantity is computed:
    ``expectation`` is the IC of the mean noised frame, with the whole sequence, context included, scaled by 1 - s.
    """

    noise_levels: tuple[Level, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    definition: Literal["expectation"] = "expectation"
    solver: Literal["euler"] = "euler"
    n_steps: int = Field(100, ge=1)
    n_probes: int = Field(4, ge=1)


class ReconstructionConfig(Config):
    """What survives latent noise. `snr` are power ratios; ``inf`` is the clean latent."""

    snr: tuple[Annotated[float, Field(gt=0)], ...] = (float("inf"), 4.0, 1.0)
    metrics: tuple[Literal["si_sdr", "log_spectral_distance"], ...] = ("si_sdr", "log_spectral_distance")
    excerpt_s: float = Field(5.0, gt=0)
    n_excerpts: int = Field(60, ge=1)
    n_draws: int = Field(4, ge=1)


class PitchConfig(Config):
    """Pitch surprisal from a variable-order Markov model (interpolated PPM), and IC aligned with notes.

    `order_max` bounds the contexts of the model (None: unbounded). `ic_frames` says which frames of IC a note gets: the
    frame of its onset, or the mean of that one and the next.
    """

    order_max: Annotated[int, Field(ge=0)] | None = 4
    escape: Literal["C"] = "C"
    ic_frames: Literal["onset", "onset_and_next"] = "onset_and_next"
