"""The autoencoder's sizes, bottleneck, latent noise and trainings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.config import Config

LATENT_CHANNELS = 64
LATENT_HOP_SAMPLES = 4096
CROP_SAMPLES = 34_304
"""A training crop: 64 STFT frames, 8 latent frames, 0.778 s."""

Size = Literal["tiny", "small", "paper"]
Bottleneck = Literal["tanh", "layernorm"]


class Architecture(Config):
    """Widths and depths of one size; everything else is the same in all of them.

    Levels run from full resolution (1024 frequencies, every STFT frame) to the coarsest (32 frequencies, every eighth
    frame). Size ``paper`` has the widths and depths of Music2Latent (Pasini, Lattner and Fazekas, ISMIR 2024).

    Attributes
    ----------
    channels : tuple of int
        Width of each of the five levels.
    encoder_blocks, decoder_blocks, unet_blocks : tuple of int
        Residual blocks per level; the U-Net has them both on its way down and on its way up.
    attention_levels : int
        So many of the coarsest levels have self-attention along frequency.
    bottleneck_channels, bottleneck_blocks : int
        Width and residual blocks of the one-dimensional part on either side of the latents.
    embedding_channels : int
        Width of the embedding of sigma.
    """

    channels: tuple[int, int, int, int, int]
    encoder_blocks: tuple[int, int, int, int, int]
    decoder_blocks: tuple[int, int, int, int, int]
    unet_blocks: tuple[int, int, int, int, int]
    attention_levels: int = Field(ge=0, le=5)
    attention_heads: int = Field(ge=1)
    bottleneck_channels: int = Field(ge=1)
    bottleneck_blocks: int = Field(ge=0)
    embedding_channels: int = Field(ge=2)


ARCHITECTURES: dict[Size, Architecture] = {
    "tiny": Architecture(
        channels=(4, 8, 16, 32, 32),
        encoder_blocks=(0, 0, 1, 1, 1),
        decoder_blocks=(0, 0, 1, 1, 1),
        unet_blocks=(0, 0, 1, 1, 1),
        attention_levels=0,
        attention_heads=4,
        bottleneck_channels=64,
        bottleneck_blocks=1,
        embedding_channels=64,
    ),
    "small": Architecture(
        channels=(16, 32, 64, 64, 64),
        encoder_blocks=(1, 1, 1, 1, 1),
        decoder_blocks=(1, 1, 1, 1, 1),
        unet_blocks=(1, 1, 1, 1, 1),
        attention_levels=2,
        attention_heads=4,
        bottleneck_channels=128,
        bottleneck_blocks=2,
        embedding_channels=128,
    ),
    "paper": Architecture(
        channels=(64, 128, 256, 256, 256),
        encoder_blocks=(1, 1, 1, 1, 1),
        decoder_blocks=(1, 1, 1, 1, 1),
        unet_blocks=(2, 2, 2, 2, 2),
        attention_levels=3,
        attention_heads=4,
        bottleneck_channels=512,
        bottleneck_blocks=4,
        embedding_channels=256,
    ),
}


class LatentNoiseConfig(Config):
    """Noise between encoder and decoder while an arm trains.

    The data share is tau = sigmoid(N(logit_mean, logit_std^2)), the noise time t = 1 - tau: a lower mean is more noise.
    """

    applied_to: Literal["none", "decoder", "encoder+decoder"] = "none"
    logit_mean: float = 0.0
    logit_std: float = Field(1.0, ge=0)


class TrainingConfig(Config):
    """One training: steps of `batch_size` crops of 34 304 samples with RAdam.

    After the warm-up the learning rate of a base follows a cosine down to a hundredth; that of an arm stays constant.
    A checkpoint and a validation happen every `checkpoint_every` steps.
    """

    steps: int = Field(800_000, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(10_000, ge=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    checkpoint_every: int = Field(1_000, ge=1)


class AutoencoderConfig(Config):
    """One variant's autoencoder: the base it starts from, and the arm fine-tuned from that base."""

    size: Size = "paper"
    bottleneck: Bottleneck = "layernorm"
    latent_noise: LatentNoiseConfig = LatentNoiseConfig()
    base_training: TrainingConfig = TrainingConfig()
    arm_training: TrainingConfig = TrainingConfig(steps=100_000)
