"""The autoencoder's sizes, bottleneck, latent noise and trainings (method.md 2-5)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.config import Config

LATENT_CHANNELS = 64
LATENT_HOP_SAMPLES = 4096


class LatentNoiseConfig(Config):
    """Noise between encoder and decoder while an arm trains.

    The data share is tau = sigmoid(N(logit_mean, logit_std^2)), the noise time t = 1 - tau: a lower mean is more noise.
    """

    applied_to: Literal["none", "decoder", "encoder+decoder"] = "none"
    logit_mean: float = 0.0
    logit_std: float = Field(1.0, ge=0)


class TrainingConfig(Config):
    """One training: steps of `batch_size` crops of 34 304 samples; RAdam with warm-up, then cosine."""

    steps: int = Field(800_000, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(10_000, ge=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    checkpoint_every: int = Field(1_000, ge=1)


class AutoencoderConfig(Config):
    """One variant's autoencoder: the base it starts from, and the arm fine-tuned from that base."""

    size: Literal["tiny", "small", "paper"] = "paper"
    bottleneck: Literal["tanh", "layernorm"] = "layernorm"
    latent_noise: LatentNoiseConfig = LatentNoiseConfig()
    base_training: TrainingConfig = TrainingConfig()
    arm_training: TrainingConfig = TrainingConfig(steps=100_000)
