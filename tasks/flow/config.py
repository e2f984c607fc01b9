"""The autoregressive rectified-flow model's sizes and training (method.md 7)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.config import Config


class FlowConfig(Config):
    """A causal transformer over latent frames with a rectified-flow head, trained by AdamW.

    `tau_sampling` is how the data share tau is drawn in training; `sequence_frames` is the length of training crops.
    """

    size: Literal["tiny", "small", "paper"] = "paper"
    steps: int = Field(200_000, ge=1)
    batch_size: int = Field(32, ge=1)
    sequence_frames: int = Field(4600, ge=2)
    learning_rate: float = Field(2e-4, gt=0)
    warmup_steps: int = Field(1_000, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    tau_sampling: Literal["uniform", "logit_normal"] = "uniform"
    checkpoint_every: int = Field(1_000, ge=1)
