"""The published flow checkpoint (CPJKU/pa-audioic): what it holds, and its weights in this package's layout.

Its backbone is the ``ContinuousTransformerWrapper`` and ``Decoder`` of x-transformers 1.42, its head the
``DiffusionMLPContext`` of pa-audioic. Two things are kept differently there: LayerNorms store their gain minus one
(``norm_add_unit_offset``), and rotary positions turn neighbouring channels (2i, 2i + 1) of a head, where ours turn
channels i and R/2 + i. Both are undone in the weights, so that contexts and velocities agree to rounding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from tasks.contract import TaskError
from tasks.flow.config import ARCHITECTURES, Architecture

MODEL_TYPE = "LTM-rectflows"
KEYS = ("model_state_dict", "max_seq_length", "model_type")
ROTARY_BASE = 10_000.0
MOST_SHOWN = 60
WITHOUT_SIZE = {"dropout", "tau_draws", "fourier_scale"}
"""What of an `Architecture` leaves the inference of given weights as it is."""

_DECODER, _WRAPPER = "causal_transformer_hparams", "transformer_wrapper_hparams"
_DEFAULT_DECODER = {"dim": 256, "depth": 12, "heads": 8, "rotary_pos_emb": True, "attn_dropout": 0.1, "ff_dropout": 0.1}
_DEFAULT_WRAPPER = {"emb_dropout": 0.1}
_SIZES = {"dim", "depth", "heads", "attn_dim_head", "ff_mult", "rotary_emb_dim", "norm_add_unit_offset"}
_WITHOUT_EFFECT = {
    "attn_flash",
    "attn_dropout",
    "ff_dropout",
    "emb_dropout",
    "layer_dropout",
    "attn_zero_init_output",
    "ff_zero_init_output",
    "zero_init_branch_output",
    "use_abs_pos_emb",
    "scaled_sinu_pos_emb",
    "max_mem_len",
}
_ONLY = {
    "rotary_pos_emb": True,
    "pre_norm": True,
    "rotary_interpolation_factor": 1.0,
    "rotary_base_rescale_factor": 1.0,
    "scale_residual_constant": 1.0,
    "causal": True,
}
"""Settings of the decoder that have this value, or aren't what our network computes; all others are off."""


@dataclass(frozen=True)
class Imported:
    """A published model: its sizes, its weights by our names, and its longest training sequence in frames."""

    architecture: Architecture
    weights: Mapping[str, Tensor]
    sequence_frames: int

    @property
    def size(self) -> str:
        """The name of the size whose architecture this is; ``published`` for sizes of its own."""
        own = self.architecture.model_dump(exclude=WITHOUT_SIZE)
        return next(
            (name for name, known in ARCHITECTURES.items() if known.model_dump(exclude=WITHOUT_SIZE) == own),
            "published",
        )

    def write(self, folder: Path) -> dict[str, int]:
        """Write ``flow.safetensors`` and ``flow.json`` as a training does, and give the cell's metrics."""
        (folder / "flow.safetensors").write_bytes(save(dict(self.weights)))
        about = {
            "size": self.size,
            "sequence_frames": self.sequence_frames,
            "architecture": self.architecture.model_dump(),
            "imported": MODEL_TYPE,
        }
        (folder / "flow.json").write_text(json.dumps(about, sort_keys=True, indent=1) + "\n")
        n_parameters = sum(value.numel() for name, value in self.weights.items() if name != "head.time.frequencies")
        return {"n_parameters": n_parameters, "sequence_frames": self.sequence_frames}


def convert(content: Mapping[str, Any]) -> Imported:
    """Bring a published flow checkpoint into our layout.

    Parameters
    ----------
    content : mapping
        ``model_state_dict``, ``max_seq_length``, ``model_type`` ("LTM-rectflows"), and perhaps ``model_kwargs``.

    Raises
    ------
    TaskError
        The layout is another one, a key has no counterpart (it is named), or a setting isn't supported.
    """
    lacking = [key for key in KEYS if key not in content]
    if lacking:
        raise TaskError(f"no flow checkpoint of the published layout: it has no {', '.join(lacking)}")
    if not isinstance(content["model_type"], str) or content["model_type"] != MODEL_TYPE:
        raise TaskError(f"model_type {_shown(content['model_type'])} is not supported, {MODEL_TYPE!r} is")
    window = content["max_seq_length"]
    if isinstance(window, bool) or not isinstance(window, int) or window < 2:
        raise TaskError(f"max_seq_length {_shown(window)}: a number of frames, at least 2, is needed")
    decoder = _decoder({} if content.get("model_kwargs") is None else content["model_kwargs"])
    tensors = _Tensors(content["model_state_dict"])
    architecture = _architecture(decoder, tensors)
    weights = {**_backbone(architecture, decoder, tensors), **_head(architecture, tensors)}
    tensors.finish()
    return Imported(architecture, weights, window)


def _decoder(kwargs: Any) -> dict[str, Any]:
    """The settings of the transformer, once every one of them is known to be supported."""
    kwargs = _settings("model_kwargs", kwargs)
    decoder = _settings(f"model_kwargs.{_DECODER}", kwargs.get(_DECODER, _DEFAULT_DECODER))
    wrapper = _settings(f"model_kwargs.{_WRAPPER}", kwargs.get(_WRAPPER, _DEFAULT_WRAPPER))
    others = {key: value for key, value in kwargs.items() if not key.endswith("_hparams")}
    _refuse_unsupported("", others, known=_WITHOUT_EFFECT)
    _refuse_unsupported(f"{_WRAPPER}.", wrapper, known=_WITHOUT_EFFECT)
    _refuse_unsupported(f"{_DECODER}.", {"rotary_pos_emb": False, **decoder}, _SIZES | _WITHOUT_EFFECT)
    offset = decoder.get("norm_add_unit_offset", True)
    if not isinstance(offset, bool):
        raise TaskError(f"model_kwargs: {_DECODER}.norm_add_unit_offset = {_shown(offset)}: true or false is needed")
    return dict(decoder)


def _settings(where: str, found: Any) -> Mapping[str, Any]:
    """A mapping by name, or an error that says what is there instead."""
    if not isinstance(found, Mapping):
        raise TaskError(f"{where} is a {type(found).__name__}, a mapping is needed")
    unnamed = next((key for key in found if not isinstance(key, str)), None)
    if unnamed is not None:
        raise TaskError(f"{where} has the key {_shown(unnamed)}, names are needed")
    return found


def _refuse_unsupported(where: str, settings: Mapping[str, Any], known: set[str]) -> None:
    for key, value in settings.items():
        wanted = _ONLY.get(key, False)
        if key in known or (not isinstance(value, Tensor) and (value == wanted or not (value or wanted))):
            continue
        raise TaskError(f"model_kwargs: {where}{key} = {_shown(value)} is not supported (supported: {wanted!r})")


def _shown(value: Any) -> str:
    """A value in one line."""
    text = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else " ".join(repr(value).split())
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "..."


class _Tensors:
    """The tensors of a state dict, each taken once and by its shape; what is left over is an error."""

    def __init__(self, found: Any) -> None:
        if not isinstance(found, Mapping) or not found:
            raise TaskError("model_state_dict holds no tensors")
        for key, value in found.items():
            if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout != torch.strided:
                raise TaskError(f"model_state_dict: {key} is no dense tensor of floats")
            if not value.isfinite().all():
                raise TaskError(f"model_state_dict: {key} has values that are not finite")
        self._left = dict(found)
        self._drop_copy("diff_mlp.", "ode.ode_approx.")

    def _drop_copy(self, prefix: str, copied_to: str) -> None:
        """The head is saved under two names, for two modules hold it; both must say the same."""
        copies = [key for key in self._left if str(key).startswith(copied_to)]
        for key in copies:
            first = self._left.get(prefix + key.removeprefix(copied_to))
            if first is None or not torch.equal(first, self._left[key]):
                raise TaskError(f"model_state_dict: {key} has no equal counterpart under {prefix}")
            del self._left[key]
        lost = [key for key in self._left if str(key).startswith(prefix)] if copies else []
        if len(lost) != len(copies):
            raise TaskError(f"model_state_dict: {len(lost)} tensors under {prefix}, {len(copies)} under {copied_to}")

    def shape(self, key: str, dims: int) -> tuple[int, ...]:
        """The shape of a tensor that must be there with so many dimensions."""
        if key not in self._left:
            raise TaskError(f"model_state_dict: {key} is missing")
        shape = tuple(self._left[key].shape)
        if len(shape) != dims:
            raise TaskError(f"model_state_dict: {key} has shape {shape}, {dims} dimension(s) are expected")
        return shape

    def take(self, key: str, *shape: int) -> Tensor:
        """A tensor as contiguous float32."""
        found = self.shape(key, len(shape))
        if found != shape:
            raise TaskError(f"model_state_dict: {key} has shape {found}, {shape} is expected")
        tensor: Tensor = self._left.pop(key)
        return tensor.detach().float().contiguous()

    def count(self, prefix: str) -> int:
        """How many numbered modules there are below `prefix`."""
        numbers = {str(key).removeprefix(prefix).split(".")[0] for key in self._left if str(key).startswith(prefix)}
        return len(numbers)

    def finish(self) -> None:
        """Refuse what nothing of ours stands for."""
        if self._left:
            more = f" (and {len(self._left) - 1} more)" if len(self._left) > 1 else ""
            raise TaskError(f"model_state_dict: {next(iter(self._left))} has no counterpart here{more}")


def _architecture(decoder: Mapping[str, Any], tensors: _Tensors) -> Architecture:
    """Sizes: of the transformer as its settings say, of the rest as the shapes say."""
    width, depth = _whole(decoder, "dim", None), _whole(decoder, "depth", None)
    heads, head_dim = _whole(decoder, "heads", 8), _whole(decoder, "attn_dim_head", 64)
    rotary_dims = max(_whole(decoder, "rotary_emb_dim", max(head_dim // 2, 1)), 32)
    if rotary_dims > head_dim or rotary_dims % 2:
        raise TaskError(f"rotary positions on {rotary_dims} of {head_dim} channels of a head are not supported")
    mult = decoder.get("ff_mult", 4)
    if isinstance(mult, bool) or not isinstance(mult, int | float) or not 0 < width * mult < 1e9:
        raise TaskError(f"model_kwargs: causal_transformer_hparams.ff_mult = {_shown(mult)} is not supported")
    return Architecture(
        latent_dim=tensors.shape("backbone.project_in.weight", 2)[1],
        width=width,
        depth=depth,
        heads=heads,
        head_dim=head_dim,
        rotary_dims=rotary_dims,
        feedforward=int(width * mult),
        dropout=0.0,  # of training only
        flow_width=tensors.shape("diff_mlp.linear_input.weight", 2)[0],
        flow_blocks=tensors.count("diff_mlp.layers."),
        flow_hidden=tensors.shape("diff_mlp.layers.0.ff.to_out.weight", 2)[1],
        fourier_features=tensors.shape("diff_mlp.time_emb.freqs", 1)[0],
        fourier_scale=16.0,
    )


def _whole(decoder: Mapping[str, Any], key: str, default: int | None) -> int:
    value = decoder.get(key, default)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**20:
        raise TaskError(f"model_kwargs: causal_transformer_hparams.{key} = {_shown(value)}: a number above 0 is needed")
    return value


def _backbone(size: Architecture, decoder: Mapping[str, Any], tensors: _Tensors) -> dict[str, Tensor]:
    width, inner = size.width, size.heads * size.head_dim
    offset = 1.0 if decoder.get("norm_add_unit_offset", True) else 0.0
    layers = "backbone.attn_layers.layers"
    _check_rotary(tensors.take("backbone.attn_layers.rotary_pos_emb.inv_freq", size.rotary_dims // 2))
    weights = {
        "inlet.weight": tensors.take("backbone.project_in.weight", width, size.latent_dim),
        "norm.weight": tensors.take("backbone.attn_layers.final_norm.gamma", width) + offset,
    }
    for layer in range(size.depth):
        ours, attention, feedforward = f"layers.{layer}", f"{layers}.{2 * layer}", f"{layers}.{2 * layer + 1}"
        query, key = (tensors.take(f"{attention}.1.to_{name}.weight", inner, width) for name in "qk")
        weights |= {
            f"{ours}.attention_norm.weight": tensors.take(f"{attention}.0.0.gamma", width) + offset,
            f"{ours}.attention.query.weight": _halves(query, size),
            f"{ours}.attention.key.weight": _halves(key, size),
            f"{ours}.attention.value.weight": tensors.take(f"{attention}.1.to_v.weight", inner, width),
            f"{ours}.attention.out.weight": tensors.take(f"{attention}.1.to_out.weight", width, inner),
            f"{ours}.feedforward_norm.weight": tensors.take(f"{feedforward}.0.0.gamma", width) + offset,
            f"{ours}.feedforward.0.weight": tensors.take(f"{feedforward}.1.ff.0.0.weight", size.feedforward, width),
            f"{ours}.feedforward.0.bias": tensors.take(f"{feedforward}.1.ff.0.0.bias", size.feedforward),
            f"{ours}.feedforward.3.weight": tensors.take(f"{feedforward}.1.ff.2.weight", width, size.feedforward),
            f"{ours}.feedforward.3.bias": tensors.take(f"{feedforward}.1.ff.2.bias", width),
        }
    return {f"backbone.{name}": value for name, value in weights.items()}


def _halves(weight: Tensor, size: Architecture) -> Tensor:
    """Rows of a query or key projection, the turned pairs (2i, 2i + 1) of each head brought to (i, R/2 + i)."""
    turned = torch.arange(size.rotary_dims)
    order = torch.cat([turned[::2], turned[1::2], torch.arange(size.rotary_dims, size.head_dim)])
    heads = weight.view(size.heads, size.head_dim, -1)
    return heads[:, order].flatten(0, 1).contiguous()


def _check_rotary(found: Tensor) -> None:
    wanted = ROTARY_BASE ** (-torch.arange(len(found), dtype=torch.float64) / len(found))
    if not torch.allclose(found.double(), wanted, rtol=1e-5):
        raise TaskError(
            "model_state_dict: backbone.attn_layers.rotary_pos_emb.inv_freq has other frequencies than 10000^(-2i/R), "
            "which is not supported"
        )


def _head(size: Architecture, tensors: _Tensors) -> dict[str, Tensor]:
    width, hidden, embedded = size.flow_width, size.flow_hidden, 2 * size.fourier_features
    inlet = size.latent_dim + size.width
    weights = {
        "time.frequencies": tensors.take("diff_mlp.time_emb.freqs", size.fourier_features),
        "inlet.weight": tensors.take("diff_mlp.linear_input.weight", width, inlet),
        "inlet.bias": tensors.take("diff_mlp.linear_input.bias", width),
        "out.weight": tensors.take("diff_mlp.linear_output.weight", size.latent_dim, width),
        "out.bias": tensors.take("diff_mlp.linear_output.bias", size.latent_dim),
    }
    for index, columns in enumerate((embedded, width, width)):
        weights[f"time.layers.{index}.weight"] = tensors.take(f"diff_mlp.emb_proj.{2 * index}.weight", width, columns)
        weights[f"time.layers.{index}.bias"] = tensors.take(f"diff_mlp.emb_proj.{2 * index}.bias", width)
    for block in range(size.flow_blocks):
        ours, theirs = f"blocks.{block}", f"diff_mlp.layers.{block}"
        weights |= {
            f"{ours}.scale.weight": tensors.take(f"{theirs}.norm.scale_proj.weight", width, width),
            f"{ours}.scale.bias": tensors.take(f"{theirs}.norm.scale_proj.bias", width),
            f"{ours}.gate.weight": tensors.take(f"{theirs}.ff.to_mlp.weight", 2 * hidden, width),
            f"{ours}.out.weight": tensors.take(f"{theirs}.ff.to_out.weight", width, hidden),
        }
    for name, shape in (("weight", (width, width)), ("bias", (width,))):
        parts = [tensors.take(f"diff_mlp.norm_output.{part}_proj.{name}", *shape) for part in ("scale", "shift")]
        weights[f"modulation.{name}"] = torch.cat(parts)
    return {f"head.{name}": value for name, value in weights.items()}
