"""A causal transformer over latent frames and the rectified-flow head that says how the next frame is distributed.

Shapes: B sequences, T frames, D latent channels (64; 63 coordinates where the flow projects them), C width of a
context, K draws per context, H width of the head.
Inside the flow tau = 1 is data and tau = 0 is noise.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.nn import functional

from tasks.contract import Artefact, TaskError
from tasks.flow.config import ARCHITECTURES, Architecture, Size
from tasks.flow.hyperplane import n_coordinates

NORM_EPS = 1e-5


def rotate(x: Tensor, rotary_dims: int, positions: Tensor | None = None) -> Tensor:
    """Rotary positions (Su et al. 2021, RoFormer) on the first `rotary_dims` channels of ``x (..., T, head_dim)``.

    `positions` are those of the T frames, by default 0, 1, 2, ...
    """
    half = rotary_dims // 2
    frequency = 10_000.0 ** (-torch.arange(half, dtype=torch.float32, device=x.device) / half)
    if positions is None:
        positions = torch.arange(x.shape[-2], dtype=torch.float32, device=x.device)
    angle = positions[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    a, b, rest = x[..., :half], x[..., half:rotary_dims], x[..., rotary_dims:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and without biases."""

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        inner = size.heads * size.head_dim
        self.heads, self.rotary_dims, self.dropout = size.heads, size.rotary_dims, size.dropout
        self.query = nn.Linear(size.width, inner, bias=False)
        self.key = nn.Linear(size.width, inner, bias=False)
        self.value = nn.Linear(size.width, inner, bias=False)
        self.out = nn.Linear(inner, size.width, bias=False)

    def forward(self, x: Tensor, positions: Tensor | None, visible: Tensor | None) -> Tensor:
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(
            rotate(query, self.rotary_dims, positions),
            rotate(key, self.rotary_dims, positions),
            value,
            attn_mask=visible,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=visible is None,
        )
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(-2))
        return mixed


class Layer(nn.Module):
    """Pre-LayerNorm attention and GELU feed-forward, each with a residual."""

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size.width, eps=NORM_EPS, bias=False)
        self.attention = Attention(size)
        self.feedforward_norm = nn.LayerNorm(size.width, eps=NORM_EPS, bias=False)
        self.feedforward = nn.Sequential(
            nn.Linear(size.width, size.feedforward),
            nn.GELU(),
            nn.Dropout(size.dropout),
            nn.Linear(size.feedforward, size.width),
        )

    def forward(self, x: Tensor, positions: Tensor | None, visible: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), positions, visible)
        out: Tensor = x + self.feedforward(self.feedforward_norm(x))
        return out


class Backbone(nn.Module):
    """Frames to contexts: position t of the output has seen frames 0..t and is the context of frame t + 1."""

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self.inlet = nn.Linear(size.latent_dim, size.width, bias=False)
        self.dropout = nn.Dropout(size.dropout)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=NORM_EPS, bias=False)

    def forward(self, frames: Tensor, positions: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
        """``frames (B, T, D)`` to contexts ``(B, T, C)``.

        With `positions` (T,) and `visible` (T, T), frames that aren't one sequence go through together: row t of
        `visible` says which frames are the past of frame t, itself included.
        """
        x = self.dropout(self.inlet(frames))
        for layer in self.layers:
            x = layer(x, positions, visible)
        context: Tensor = self.norm(x)
        return context


class TimeEmbedding(nn.Module):
    """Random Fourier features of 2 tau - 1 (Tancik et al. 2020), then three Linear + SiLU."""

    frequencies: Tensor

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * size.fourier_scale * torch.randn(size.fourier_features))
        widths = (2 * size.fourier_features, size.flow_width, size.flow_width, size.flow_width)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, tau: Tensor) -> Tensor:
        """``tau (...)`` to ``(..., H)``."""
        angle = (2 * tau - 1)[..., None] * self.frequencies
        x = torch.cat([angle.cos(), angle.sin()], dim=-1)
        for layer in self.layers:
            x = functional.silu(layer(x))
        return x


class FlowBlock(nn.Module):
    """LayerNorm scaled by time, gated SiLU feed-forward without biases, residual."""

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self.scale = nn.Linear(size.flow_width, size.flow_width)
        self.gate = nn.Linear(size.flow_width, 2 * size.flow_hidden, bias=False)
        self.out = nn.Linear(size.flow_hidden, size.flow_width, bias=False)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        normed = functional.layer_norm(h, h.shape[-1:], eps=NORM_EPS) * (1 + self.scale(embedding))
        a, b = self.gate(normed).chunk(2, dim=-1)
        out: Tensor = h + self.out(functional.silu(a) * b)
        return out


class FlowHead(nn.Module):
    """Velocity of the next frame's rectified flow (Liu et al. 2022) given its context."""

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self.latent_dim = size.latent_dim
        self.time = TimeEmbedding(size)
        self.inlet = nn.Linear(size.latent_dim + size.width, size.flow_width)
        self.blocks = nn.ModuleList(FlowBlock(size) for _ in range(size.flow_blocks))
        self.modulation = nn.Linear(size.flow_width, 2 * size.flow_width)
        self.out = nn.Linear(size.flow_width, size.latent_dim)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, FlowBlock)
            nn.init.zeros_(block.scale.weight)
            nn.init.zeros_(block.out.weight)
        nn.init.zeros_(self.modulation.weight)

    def inlet_parts(self) -> tuple[Tensor, Tensor]:
        """The first layer's weights for the frame ``(H, D)`` and for the context ``(H, C)``."""
        return self.inlet.weight[:, : self.latent_dim], self.inlet.weight[:, self.latent_dim :]

    def forward(self, x: Tensor, context: Tensor, tau: Tensor) -> Tensor:
        """Velocity at ``x (K, B, T, D)`` given ``context (B, T, C)``; ``tau (K, B)`` is shared by a sequence."""
        of_x, of_context = self.inlet_parts()
        h = functional.linear(x, of_x) + functional.linear(context, of_context, self.inlet.bias)
        embedding = self.time(tau)[:, :, None, :]
        for block in self.blocks:
            h = block(h, embedding)
        scale, shift = self.modulation(embedding).chunk(2, dim=-1)
        velocity: Tensor = self.out(functional.layer_norm(h, h.shape[-1:], eps=NORM_EPS) * (1 + scale) + shift)
        return velocity


class Flow(nn.Module):
    """The whole model: `backbone` makes contexts, `head` is the velocity field of the frame after each.

    `null_context` (C,) is what the head knows of a frame whose context it isn't told; None where it wasn't trained.
    With `project` the frames are coordinates in the hyperplane of a layer norm's latents: who reads latents for this
    flow projects them (`read_latents`, `tasks.flow.hyperplane`). `latent_dim` is the size of its frames.
    """

    null_context: nn.Parameter | None

    def __init__(self, size: Size | Architecture, null_context: bool = False, project: bool = False) -> None:
        super().__init__()
        architecture = size if isinstance(size, Architecture) else ARCHITECTURES[size]
        if project:
            architecture = architecture.model_copy(update={"latent_dim": n_coordinates(architecture.latent_dim)})
        self.project = project
        self.tau_draws = architecture.tau_draws
        self.latent_dim = architecture.latent_dim
        self.backbone = Backbone(architecture)
        self.head = FlowHead(architecture)
        zeros = nn.Parameter(torch.zeros(architecture.width)) if null_context else None
        self.register_parameter("null_context", zeros)

    @property
    def has_null_context(self) -> bool:
        """Whether IC without context can be computed: the flow was trained with context dropout."""
        return self.null_context is not None

    def null_contexts(self, *shape: int) -> Tensor:
        """The null context for any number of frames, ``(*shape, C)``.

        Raises
        ------
        TaskError
            The flow was trained without context dropout.
        """
        if self.null_context is None:
            raise TaskError(
                "This flow has no null context, so there is no IC without context (ic_null): it was trained with "
                "flow.context_dropout 0; train one with a value above 0, such as 0.1."
            )
        return self.null_context.expand(*shape, -1)


def new_flow(size: Size | Architecture, seed: int, null_context: bool = False, project: bool = False) -> Flow:
    """A freshly initialised model; `seed` alone decides its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Flow(size, null_context, project)


def read_flow(artefact: Artefact) -> tuple[Flow, int]:
    """A trained model in evaluation mode on the CPU, and the number of frames of its training crops."""
    about = json.loads(artefact.read_bytes("flow.json"))
    architecture = Architecture.model_validate(about["architecture"])
    flow = new_flow(architecture, 0, about.get("has_null_context", False), about.get("project", False))
    flow.load_state_dict(load_tensors(artefact.read_bytes("flow.safetensors")))
    flow.eval().requires_grad_(False)
    return flow, int(about["sequence_frames"])


def default_device() -> torch.device:
    """The first GPU that this process may use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
