"""The autoregressive rectified-flow model's sizes and training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.config import Config

Size = Literal["tiny", "small", "paper"]
Precision = Literal["float32", "bfloat16"]


class FlowConfig(Config):
    """A causal transformer over latent frames with a rectified-flow head, trained by AdamW.

    `tau_sampling` is how the data share tau is drawn in training; `sequence_frames` is the length of training crops,
    and of the longest context in evaluation. `context_dropout` is the share of frames that are learned with the null
    context in place of their own: with 0 there is none, and no IC without context. `precision` is that of the training
    step's matrix products; weights, their moving average and every evaluation are float32. With `project` the flow
    models the coordinates of latents in the hyperplane in which a layer norm leaves them, one fewer than channels
    (tasks/flow/hyperplane.py): bottleneck ``layernorm`` only.
    """

    size: Size = "paper"
    steps: int = Field(200_000, ge=1)
    batch_size: int = Field(32, ge=1)
    sequence_frames: int = Field(4600, ge=2)
    learning_rate: float = Field(2e-4, gt=0)
    warmup_steps: int = Field(1_000, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    tau_sampling: Literal["uniform", "logit_normal"] = "uniform"
    context_dropout: float = Field(0.1, ge=0, lt=1, json_schema_extra={"neutral": 0.0})
    precision: Precision = Field("float32", json_schema_extra={"neutral": "float32"})
    project: bool = Field(False, json_schema_extra={"neutral": False})
    checkpoint_every: int = Field(1_000, ge=1)


class Architecture(Config):
    """Widths and depths of one size of the model; never written by a user.

    The `paper` values are those of the published inference code (CPJKU/pa-audioic): a decoder-only transformer of
    12.62 M parameters with rotary positions on `rotary_dims` of each attention head, and a flow head of 4.10 M.
    `tau_draws` is how often each context is used in one training step, with its own noise and tau. `latent_dim` are the
    channels of the latents, of which the model has one fewer where it projects them.
    """

    latent_dim: int = 64
    width: int
    depth: int
    heads: int
    head_dim: int
    rotary_dims: int
    feedforward: int
    dropout: float
    flow_width: int
    flow_blocks: int
    flow_hidden: int
    fourier_features: int
    fourier_scale: float
    tau_draws: int = 4


ARCHITECTURES: dict[Size, Architecture] = {
    "tiny": Architecture(
        width=64,
        depth=2,
        heads=4,
        head_dim=16,
        rotary_dims=8,
        feedforward=256,
        dropout=0.1,
        flow_width=64,
        flow_blocks=2,
        flow_hidden=64,
        fourier_features=32,
        fourier_scale=1.0,
    ),
    "small": Architecture(
        width=128,
        depth=6,
        heads=4,
        head_dim=32,
        rotary_dims=16,
        feedforward=512,
        dropout=0.1,
        flow_width=128,
        flow_blocks=4,
        flow_hidden=256,
        fourier_features=64,
        fourier_scale=4.0,
    ),
    "paper": Architecture(
        width=256,
        depth=12,
        heads=8,
        head_dim=64,
        rotary_dims=32,
        feedforward=1024,
        dropout=0.1,
        flow_width=256,
        flow_blocks=8,
        flow_hidden=512,
        fourier_features=128,
        fourier_scale=16.0,
    ),
}
