"""A flow checkpoint of the published layout with random weights, and what the published network makes of it.

The names are those of x-transformers 1.42 and pa-audioic; the arithmetic is stated here once more, in float64 and one
channel pair and one query at a time, so that it shares nothing with tasks/flow/network.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Sizes:
    """Of a small model that has every part of the published one."""

    latent_dim: int = 64
    width: int = 48
    depth: int = 2
    heads: int = 2
    head_dim: int = 64
    rotary_dims: int = 32
    mult: int = 4
    blocks: int = 2
    unit_offset: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def kwargs(self) -> dict[str, Any]:
        decoder: dict[str, Any] = {
            "dim": self.width,
            "attn_flash": True,
            "attn_dropout": 0.1,
            "ff_dropout": 0.1,
            "rotary_pos_emb": True,
            "depth": self.depth,
            "heads": self.heads,
            "attn_dim_head": self.head_dim,
            "rotary_emb_dim": self.rotary_dims,
            "ff_mult": self.mult,
            **({} if self.unit_offset else {"norm_add_unit_offset": False}),
        }
        return {"causal_transformer_hparams": {**decoder, **self.extra}}


def random_weights(sizes: Sizes, seed: int = 0) -> Weights:
    """Every tensor of the state dict, by its published name."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(shape, generator=random) / math.sqrt(shape[-1] if len(shape) > 1 else 4)

    width, inner = sizes.width, sizes.heads * sizes.head_dim
    hidden = sizes.mult * width
    decoder: Weights = {}
    for layer in range(sizes.depth):
        attention, feedforward = f"layers.{2 * layer}", f"layers.{2 * layer + 1}"
        decoder |= {f"{part}.0.0.gamma": draw(width) for part in (attention, feedforward)}
        decoder |= {f"{attention}.1.to_{name}.weight": draw(inner, width) for name in "qkv"}
        decoder |= {
            f"{attention}.1.to_out.weight": draw(width, inner),
            f"{feedforward}.1.ff.0.0.weight": draw(hidden, width),
            f"{feedforward}.1.ff.0.0.bias": draw(hidden),
            f"{feedforward}.1.ff.2.weight": draw(width, hidden),
            f"{feedforward}.1.ff.2.bias": draw(width),
        }
    even = torch.arange(0, sizes.rotary_dims, 2).float()
    decoder["rotary_pos_emb.inv_freq"] = 1 / 10_000 ** (even / sizes.rotary_dims)
    decoder["final_norm.gamma"] = draw(width)
    backbone = {f"backbone.attn_layers.{name}": value for name, value in decoder.items()}
    backbone["backbone.project_in.weight"] = draw(width, sizes.latent_dim)
    head: Weights = {"time_emb.freqs": 2 * math.pi * 16 * torch.randn(width // 2, generator=random)}
    linear = {"linear_input": (width, width + sizes.latent_dim), "linear_output": (sizes.latent_dim, width)}
    linear |= {f"emb_proj.{index}": (width, width) for index in (0, 2, 4)}
    linear |= {f"norm_output.{part}_proj": (width, width) for part in ("scale", "shift")}
    linear |= {f"layers.{block}.norm.scale_proj": (width, width) for block in range(sizes.blocks)}
    for name, shape in linear.items():
        head |= {f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])}
    for block in range(sizes.blocks):
        head[f"layers.{block}.ff.to_mlp.weight"] = draw(4 * width, width)
        head[f"layers.{block}.ff.to_out.weight"] = draw(width, 2 * width)
    both = {f"{prefix}{name}": value for prefix in ("diff_mlp.", "ode.ode_approx.") for name, value in head.items()}
    return backbone | both


def checkpoint(sizes: Sizes | None = None, seed: int = 0, window: int = 128) -> dict[str, Any]:
    """The content of a file as the authors write it."""
    sizes = sizes or Sizes()
    return {
        "model_state_dict": random_weights(sizes, seed),
        "max_seq_length": window,
        "model_type": "LTM-rectflows",
        "model_kwargs": sizes.kwargs,
    }


def write(path: Path, content: Any) -> Path:
    """Write it as torch does."""
    torch.save(content, path)
    return path


def published_contexts(weights: Weights, sizes: Sizes, frames: np.ndarray) -> np.ndarray:
    """Contexts ``(T, C)`` of ``frames (T, D)``."""
    w = {name.removeprefix("backbone."): value.double().numpy() for name, value in weights.items()}
    offset = 1.0 if sizes.unit_offset else 0.0
    x = frames.astype(np.float64) @ w["project_in.weight"].T
    for layer in range(sizes.depth):
        part = f"attn_layers.layers.{2 * layer}"
        normed = _norm(x) * (w[f"{part}.0.0.gamma"] + offset)
        query, key, value = (normed @ w[f"{part}.1.to_{name}.weight"].T for name in "qkv")
        heads = []
        for head in range(sizes.heads):
            own = slice(head * sizes.head_dim, (head + 1) * sizes.head_dim)
            turned = [_turn(vectors[:, own], w["attn_layers.rotary_pos_emb.inv_freq"]) for vectors in (query, key)]
            heads.append(_attend(*turned, value[:, own]))
        x = x + np.concatenate(heads, axis=1) @ w[f"{part}.1.to_out.weight"].T
        part = f"attn_layers.layers.{2 * layer + 1}"
        normed = _norm(x) * (w[f"{part}.0.0.gamma"] + offset)
        hidden = normed @ w[f"{part}.1.ff.0.0.weight"].T + w[f"{part}.1.ff.0.0.bias"]
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = x + hidden @ w[f"{part}.1.ff.2.weight"].T + w[f"{part}.1.ff.2.bias"]
    contexts: np.ndarray = _norm(x) * (w["attn_layers.final_norm.gamma"] + offset)
    return contexts


def published_velocity(weights: Weights, sizes: Sizes, x: np.ndarray, contexts: np.ndarray, tau: float) -> np.ndarray:
    """Velocities ``(T, D)`` at ``x (T, D)`` given ``contexts (T, C)``."""
    w = {name.removeprefix("diff_mlp."): value.double().numpy() for name, value in weights.items()}

    def linear(name: str, vectors: np.ndarray) -> np.ndarray:
        result: np.ndarray = vectors @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)
        return result

    angle = (2 * tau - 1) * w["time_emb.freqs"]
    time = np.concatenate([np.cos(angle), np.sin(angle)])
    for index in (0, 2, 4):
        time = _silu(linear(f"emb_proj.{index}", time))
    h = linear("linear_input", np.concatenate([x.astype(np.float64), contexts.astype(np.float64)], axis=1))
    for block in range(sizes.blocks):
        normed = _norm(h) * (1 + linear(f"layers.{block}.norm.scale_proj", time))
        both = linear(f"layers.{block}.ff.to_mlp", normed)
        half = both.shape[1] // 2
        h = h + linear(f"layers.{block}.ff.to_out", _silu(both[:, :half]) * both[:, half:])
    scale, shift = (linear(f"norm_output.{part}_proj", time) for part in ("scale", "shift"))
    return linear("linear_output", _norm(h) * (1 + scale) + shift)


def _norm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    normed: np.ndarray = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return normed


def _silu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = x / (1 + np.exp(-x))
    return result


def _turn(vectors: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Each pair of neighbouring channels as a complex number, turned by position times frequency."""
    turned = vectors.copy()
    for index, frequency in enumerate(frequencies):
        pair = vectors[:, 2 * index] + 1j * vectors[:, 2 * index + 1]
        pair = pair * np.exp(1j * frequency * np.arange(len(vectors)))
        turned[:, 2 * index], turned[:, 2 * index + 1] = pair.real, pair.imag
    return turned


def _attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    rows = []
    for t in range(len(query)):
        logits = key[: t + 1] @ query[t] / math.sqrt(query.shape[1])
        share = np.exp(logits - logits.max())
        rows.append(share @ value[: t + 1] / share.sum())
    return np.stack(rows)
