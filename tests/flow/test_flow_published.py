from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_checkpoint import Sizes, checkpoint, published_contexts, published_velocity, write

from tasks.config import SurprisalCell, SurprisalConfig
from tasks.contract import Artefact, TaskError
from tasks.flow.config import ARCHITECTURES
from tasks.flow.information import InformationContent
from tasks.flow.network import Flow, read_flow
from tasks.flow.published import convert
from tasks.weights import load_checkpoint


def imported(folder: Path, content: dict[str, Any]) -> tuple[Flow, int]:
    """The model as a later stage reads it, through files."""
    with write(folder / "flow.pt", content).open("rb") as stream:
        model = convert(load_checkpoint(stream))
    model.write(folder)
    return read_flow(Artefact("flow", "flow", {}, {}, lambda name: (folder / name).open("rb")))


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(),
        Sizes(width=32, heads=3, head_dim=40, rotary_dims=36, mult=3, depth=3, blocks=1),
        Sizes(unit_offset=False),
        Sizes(latent_dim=16, head_dim=32),
    ],
)
def test_contexts_and_velocities_are_those_of_the_published_network(tmp_path: Path, sizes: Sizes) -> None:
    content = checkpoint(sizes, seed=3)
    flow, window = imported(tmp_path, content)
    assert window == 128
    random = np.random.default_rng(0)
    frames, x = random.standard_normal((2, 40, sizes.latent_dim)).astype(np.float32)
    wanted = published_contexts(content["model_state_dict"], sizes, frames)
    with torch.no_grad():
        contexts = flow.backbone(torch.from_numpy(frames)[None])[0]
        assert np.abs(contexts.numpy() - wanted).max() < 1e-5 * np.abs(wanted).max()
        for tau in (0.05, 0.7, 1.0):
            velocity = flow.head(torch.from_numpy(x)[None, None], contexts[None], torch.full((1, 1), tau))[0, 0]
            wanted_velocity = published_velocity(content["model_state_dict"], sizes, x, wanted, tau)
            assert np.abs(velocity.numpy() - wanted_velocity).max() < 1e-5 * np.abs(wanted_velocity).max()


def test_the_published_defaults_are_the_size_paper() -> None:
    content = checkpoint(Sizes(width=256, depth=12, heads=8, blocks=8), window=4600)
    del content["model_kwargs"]
    model = convert(content)
    assert (model.size, model.sequence_frames) == ("paper", 4600)
    assert model.architecture == ARCHITECTURES["paper"].model_copy(update={"dropout": 0.0})
    Flow(model.architecture).load_state_dict(dict(model.weights))


def test_other_sizes_are_an_architecture_of_their_own(tmp_path: Path) -> None:
    with write(tmp_path / "flow.pt", checkpoint()).open("rb") as stream:
        model = convert(load_checkpoint(stream))
    metrics = model.write(tmp_path)
    about = json.loads((tmp_path / "flow.json").read_text())
    assert (about["size"], about["architecture"]["width"], about["sequence_frames"]) == ("published", 48, 128)
    assert metrics["n_parameters"] == sum(value.numel() for value in Flow(model.architecture).parameters())


def test_half_precision_becomes_float32() -> None:
    content = checkpoint()
    content["model_state_dict"] = {
        key: value if "inv_freq" in key else value.half() for key, value in content["model_state_dict"].items()
    }
    assert {value.dtype for value in convert(content).weights.values()} == {torch.float32}


def every_key() -> list[str]:
    return sorted(key for key in checkpoint()["model_state_dict"] if not key.startswith("ode."))


@pytest.mark.parametrize("key", every_key())
def test_each_tensor_is_needed_and_named_when_it_is_missing(key: str) -> None:
    content = checkpoint()
    for lost in (key, key.replace("diff_mlp.", "ode.ode_approx.")):
        content["model_state_dict"].pop(lost, None)
    with pytest.raises(TaskError, match=key.replace(".", r"\.")):
        convert(content)


@pytest.mark.parametrize("key", every_key())
def test_each_tensor_has_one_shape(key: str) -> None:
    content = checkpoint()
    for name in (key, key.replace("diff_mlp.", "ode.ode_approx.")):
        if name in content["model_state_dict"]:
            content["model_state_dict"][name] = torch.cat([content["model_state_dict"][name]] * 2)
    with pytest.raises(TaskError, match=r"model_state_dict: \S+ has (shape|other frequencies)"):
        convert(content)


@pytest.mark.parametrize("key", ["backbone.project_out.weight", "diff_mlp.layers.2.norm.shift_proj.bias", "step"])
def test_a_tensor_without_counterpart_is_named(key: str) -> None:
    content = checkpoint()
    for name in {key, key.replace("diff_mlp.", "ode.ode_approx.")}:
        content["model_state_dict"][name] = torch.zeros(3)
    with pytest.raises(TaskError, match=r"has no counterpart|is missing"):
        convert(content)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_rmsnorm": True}, "causal_transformer_hparams.use_rmsnorm = True is not supported"),
        ({"ff_glu": True}, "causal_transformer_hparams.ff_glu = True"),
        ({"rotary_pos_emb": False}, "causal_transformer_hparams.rotary_pos_emb = False"),
        ({"pre_norm": False}, "causal_transformer_hparams.pre_norm = False"),
        ({"rotary_interpolation_factor": 2.0}, "rotary_interpolation_factor = 2.0"),
        ({"attn_qk_norm": True}, "attn_qk_norm = True"),
        ({"heads": 0}, "heads = 0: a number above 0"),
        ({"depth": "12"}, "depth = '12': a number above 0"),
        ({"attn_dim_head": 16}, "rotary positions on 32 of 16 channels"),
        ({"depth": 3}, r"layers.4.* is missing"),
        ({"depth": 1}, r"backbone.attn_layers.layers.2\S+ has no counterpart here"),
        ({"heads": 4}, r"to_q.weight has shape \(128, 48\), \(256, 48\) is expected"),
    ],
)
def test_settings_that_the_network_has_not_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        convert(checkpoint() | {"model_kwargs": Sizes(extra=settings).kwargs})


@pytest.mark.parametrize("settings", [{"sandwich_norm": False}, {"attn_kv_heads": None}, {"layer_dropout": 0.2}])
def test_settings_that_are_off_or_of_training_only_are_fine(settings: dict[str, Any]) -> None:
    convert(checkpoint() | {"model_kwargs": Sizes(extra=settings).kwargs})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "LTM-givt"}, "model_type 'LTM-givt' is not supported, 'LTM-rectflows' is"),
        ({"max_seq_length": "long"}, "max_seq_length 'long'"),
        ({"model_kwargs": {**Sizes().kwargs, "n_cls": 2}}, "n_cls = 2 is not supported"),
        ({"model_kwargs": {**Sizes().kwargs, "noise_context": "expo"}}, "noise_context = 'expo' is not supported"),
        ({"model_kwargs": {**Sizes().kwargs, "transformer_wrapper_hparams": {"post_emb_norm": True}}}, "post_emb_norm"),
        ({"model_kwargs": [1]}, "model_kwargs is a list"),
        ({"model_kwargs": []}, "model_kwargs is a list, a mapping is needed"),
        ({"model_kwargs": {1: 2}}, "model_kwargs has the key 1, names are needed"),
        ({"model_kwargs": {"causal_transformer_hparams": None}}, "causal_transformer_hparams is a NoneType, a mapping"),
        ({"model_kwargs": {"causal_transformer_hparams": [("dim", 48)]}}, "causal_transformer_hparams is a list"),
        ({"model_kwargs": {"causal_transformer_hparams": {0: 48}}}, "causal_transformer_hparams has the key 0"),
        ({"model_kwargs": {"transformer_wrapper_hparams": None}}, "transformer_wrapper_hparams is a NoneType"),
        ({"model_kwargs": {"transformer_wrapper_hparams": {(1, 2): 0}}}, r"has the key \(1, 2\), names are needed"),
        (
            {"model_kwargs": Sizes(extra={"norm_add_unit_offset": torch.ones(2)}).kwargs},
            "norm_add_unit_offset = a tens",
        ),
        ({"model_type": torch.zeros(300, 300)}, r"model_type a tensor of shape \(300, 300\) is not supported"),
        ({"max_seq_length": torch.zeros(300, 300)}, "max_seq_length a tensor of shape"),
        ({"model_state_dict": {}}, "model_state_dict holds no tensors"),
        ({"model_state_dict": {"a": 1}}, "a is no dense tensor of floats"),
    ],
)
def test_another_layout_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said) as refused:
        convert(checkpoint() | change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dropout", [0.1, math.nan, 2.0, -1.0, "much", None])
def test_dropout_is_of_training_only(tmp_path: Path, dropout: Any) -> None:
    flow, _ = imported(tmp_path, checkpoint() | {"model_kwargs": Sizes(extra={"attn_dropout": dropout}).kwargs})
    assert json.loads((tmp_path / "flow.json").read_text())["architecture"]["dropout"] == 0
    assert all(layer.p == 0 for layer in flow.modules() if isinstance(layer, torch.nn.Dropout))


def spoil_copy(weights: dict[str, torch.Tensor]) -> None:
    weights["ode.ode_approx.linear_input.bias"] = weights["ode.ode_approx.linear_input.bias"] + 1


def lose_part_of_copy(weights: dict[str, torch.Tensor]) -> None:
    del weights["ode.ode_approx.linear_input.bias"]


def make_infinite(weights: dict[str, torch.Tensor]) -> None:
    weights["backbone.project_in.weight"][0, 0] = torch.inf


def turn_faster(weights: dict[str, torch.Tensor]) -> None:
    weights["backbone.attn_layers.rotary_pos_emb.inv_freq"] *= 2


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_copy, "ode.ode_approx.linear_input.bias has no equal counterpart"),
        (lose_part_of_copy, "tensors under diff_mlp., .* under ode.ode_approx."),
        (make_infinite, "backbone.project_in.weight has values that are not finite"),
        (turn_faster, "inv_freq has other frequencies"),
    ],
)
def test_spoiled_weights_are_refused(spoil: Callable[[dict[str, torch.Tensor]], None], said: str) -> None:
    content = checkpoint()
    spoil(content["model_state_dict"])
    with pytest.raises(TaskError, match=said):
        convert(content)


class Evil:
    """Would make a file if it were unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, (self.path,)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    content = checkpoint() | {"model_kwargs": Evil(str(tmp_path / "made"))}
    with (
        write(tmp_path / "evil.pt", content).open("rb") as stream,
        pytest.raises(TaskError, match=r"holds pickled code \(posix\.mkdir\), which is refused"),
    ):
        load_checkpoint(stream)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("kept", [0, 10, 1000, -1, -200])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    whole = write(tmp_path / "flow.pt", checkpoint()).read_bytes()
    with pytest.raises(TaskError, match="not a checkpoint that torch can read: truncated, damaged"):
        load_checkpoint(io.BytesIO(whole[:kept]))


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2]])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    with write(tmp_path / "a.pt", content).open("rb") as stream, pytest.raises(TaskError, match="holds a"):
        load_checkpoint(stream)


def _published_ic(
    weights: dict[str, torch.Tensor], sizes: Sizes, frames: np.ndarray, probes: np.ndarray, steps: dict[str, float]
) -> dict[str, np.ndarray]:
    """IC of frames 1.. by the published method, in float64: a solve per level of (a), a single one for (c).

    `steps` are the names of definitions with their levels; the products of probe, Jacobian and probe are central
    differences.
    """

    def slopes(x: np.ndarray, contexts: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
        def at(y: np.ndarray) -> np.ndarray:
            return published_velocity(weights, sizes, y, contexts, tau)

        small = 1e-5
        products = [((at(x + small * z) - at(x - small * z)) / (2 * small) * z).sum(-1) for z in probes]
        return at(x), np.mean(products, axis=0)

    found = {}
    for name, level in steps.items():
        whole = name.startswith("probability_flow")
        scaled = frames.astype(np.float64) * (1.0 if whole else 1 - level)
        contexts = published_contexts(weights, sizes, scaled)[:-1]
        x, end = scaled[1:], 1.0 if whole else 1 - level
        gain, n_steps = np.zeros(len(x)), 20
        for k in range(n_steps):
            tau = end * (n_steps - k) / n_steps
            velocity, product = slopes(x, contexts, tau)
            x = x - end / n_steps * velocity
            gain += end / n_steps * product * (tau < 1 - level + 1e-9)
        found[name] = 0.5 * (x**2).sum(-1) + 0.5 * x.shape[1] * np.log(2 * np.pi) + gain
    return found


def test_ic_with_the_reference_solver_and_given_probes_is_the_published_ic(tmp_path: Path) -> None:
    sizes = Sizes()
    content = checkpoint(sizes, seed=5)
    flow, window = imported(tmp_path, content)
    random = np.random.default_rng(1)
    frames = random.standard_normal((12, sizes.latent_dim)).astype(np.float32)
    probes = random.choice(np.array([-1.0, 1.0], dtype=np.float32), (3, 11, sizes.latent_dim))
    levels = {"expectation": 0.3, "expectation clean": 0.0, "probability_flow": 0.6, "probability_flow clean": 0.0}
    wanted = _published_ic(content["model_state_dict"], sizes, frames, probes, levels)
    for name, level in levels.items():
        config = SurprisalConfig.model_validate({"definition": name.split()[0], "solver": "euler", "n_steps": 20})
        with torch.inference_mode():
            solver = InformationContent(flow, window, SurprisalCell(**config.cell(level)), "seed", probes)
            ic = solver.of({"recording": frames})["recording"]
        assert np.abs(ic[1:] - wanted[name]).max() < 1e-4, name
    assert np.ptp(wanted["expectation"]) > 1
    assert np.abs(wanted["probability_flow"] - wanted["expectation"]).min() > 0.1
