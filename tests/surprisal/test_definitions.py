"""What the definitions of IC have in common, and what their solvers agree on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tasks.config import Definition, ProbeFile, SurprisalCell, SurprisalConfig
from tasks.contract import Artefact, Context, TaskError
from tasks.flow import contexts as contexts_module
from tasks.flow import control
from tasks.flow.contexts import contexts, windows
from tasks.flow.control import Measured
from tasks.flow.field import HeadAt, HeadField
from tasks.flow.information import InformationContent
from tasks.flow.likelihood import gauss_legendre, quadrature, transported
from tasks.flow.network import Flow, read_flow
from tasks.flow.probes import FrameProbes, exact_probes
from tasks.surprisal import run

if TYPE_CHECKING:
    from conftest import Inputs

MakeLatents = Callable[[Mapping[str, np.ndarray]], Artefact]
DEFINITIONS: tuple[Definition, ...] = ("expectation", "monte_carlo", "probability_flow", "expected")


@pytest.fixture(scope="module")
def flow(inputs: Inputs) -> tuple[Flow, int]:
    return read_flow(inputs.flow)


def cell(level: float, **settings: Any) -> SurprisalCell:
    return SurprisalCell.model_validate(SurprisalConfig.model_validate(settings).cell(level))


@torch.inference_mode()
def ic(flow: tuple[Flow, int], frames: Mapping[str, np.ndarray], wanted: SurprisalCell, **more: Any) -> dict[str, Any]:
    return InformationContent(*flow, wanted, "seed", **more).of(frames)


def test_all_definitions_agree_where_there_is_no_noise(flow: tuple[Flow, int], inputs: Inputs) -> None:
    for solver in ({"n_nodes": 6}, {"solver": "euler", "n_steps": 6}):
        found = [ic(flow, inputs.frames, cell(0.0, definition=name, n_draws=2, **solver)) for name in DEFINITIONS]
        for other in found[1:]:
            assert np.allclose(other["long"], found[0]["long"], rtol=1e-6, equal_nan=True)


def test_all_noise_leaves_the_normal_density_of_each_definition(flow: tuple[Flow, int], inputs: Inputs) -> None:
    found = {name: ic(flow, inputs.frames, cell(1.0, definition=name, n_draws=4))["long"][1:] for name in DEFINITIONS}
    zero = 32 * math.log(2 * math.pi)
    assert set(found["expectation"].tolist()) == {zero}
    assert found["monte_carlo"].mean() == pytest.approx(zero + 32 / 4, rel=0.05)  # the mean of four draws
    assert found["expected"].mean() == pytest.approx(zero + 32, rel=0.05)
    assert zero < found["probability_flow"].mean() < zero + 64


def test_one_draw_is_the_same_in_both_monte_carlo_definitions(flow: tuple[Flow, int], inputs: Inputs) -> None:
    first, second = (
        ic(flow, inputs.frames, cell(0.4, definition=name, n_draws=1))["long"] for name in ("monte_carlo", "expected")
    )
    assert np.allclose(first, second, rtol=1e-6, equal_nan=True)
    assert not np.allclose(first, ic(flow, inputs.frames, cell(0.4))["long"], rtol=1e-2, equal_nan=True)


def test_expected_is_the_mean_over_draws_and_not_the_ic_of_the_mean(flow: tuple[Flow, int], inputs: Inputs) -> None:
    several = {draws: ic(flow, inputs.frames, cell(0.6, definition="expected", n_draws=draws)) for draws in (1, 2, 8)}
    mixed = ic(flow, inputs.frames, cell(0.6, definition="monte_carlo", n_draws=8))
    assert np.nanmean(several[8]["long"]) > np.nanmean(mixed["long"]) + 5
    assert not np.allclose(several[1]["long"], several[2]["long"], equal_nan=True)


def test_probability_flow_is_the_density_along_one_path(flow: tuple[Flow, int], inputs: Inputs) -> None:
    """Between the clean frame and the noise level the log-density changes by the integral of the divergence."""
    model, level = flow[0], 0.4
    found = ic(flow, inputs.frames, cell(level, definition="probability_flow", n_nodes=64, probes="exact"))["short"][1:]
    frames = torch.from_numpy(inputs.frames["short"])
    with torch.inference_mode():
        field = HeadField(HeadAt(model.head), model.backbone(frames[None, :-1])[0])
        x, every = frames[1:], exact_probes(11, 64)
        whole = quadrature(field, x, 1.0, gauss_legendre(1.0, 64), lambda node: every)
        steps, gain = 200, torch.zeros(11, dtype=torch.float64)
        for k in range(steps):
            middle = 1 - level * (k + 0.5) / steps
            at = transported(field, x, 1.0, middle, k + 1)
            gain += level / steps * (every * field.jvp(at, middle, every)[1]).sum(-1).mean(0)
    assert np.allclose(found, (-whole - gain).numpy(), atol=0.05)


def test_context_decides_what_precedes_the_frame(flow: tuple[Flow, int], inputs: Inputs) -> None:
    model, short = flow[0], inputs.frames["short"]
    exact = {"n_nodes": 48, "probes": "exact"}
    found = {
        name: ic(flow, inputs.frames, cell(0.5, context=name, **exact))["short"][1:]
        for name in ("transformed", "clean", "none")
    }
    frames = torch.from_numpy(short)
    with torch.inference_mode():
        rows = {
            "transformed": model.backbone(0.5 * frames[None, :-1])[0],
            "clean": model.backbone(frames[None, :-1])[0],
            "none": model.null_contexts(11),
        }
        for name, context in rows.items():
            field, every = HeadField(HeadAt(model.head), context), exact_probes(11, 64)
            wanted = quadrature(field, 0.5 * frames[1:], 0.5, gauss_legendre(0.5, 48), lambda node, e=every: e)
            assert np.allclose(found[name], -wanted.numpy(), atol=0.01), name
    assert np.abs(found["transformed"] - found["clean"]).max() > 0.1
    assert np.abs(found["none"] - found["clean"]).max() > 0.1


def test_a_flow_without_null_context_is_refused(flow: tuple[Flow, int]) -> None:
    bare = Flow("tiny", null_context=False).eval()
    with pytest.raises(TaskError, match="null context"):
        InformationContent(bare, 16, cell(0.5, context="none"), "seed")


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_solvers_agree_within_the_errors_that_they_state(flow: tuple[Flow, int], inputs: Inputs, level: float) -> None:
    truth = ic(flow, inputs.frames, cell(level, n_nodes=96, probes="exact"))["long"][1:]
    errors = {}
    for settings in ({"solver": "quadrature"}, {"solver": "exact"}, {"solver": "euler"}, {"n_probes": 1, "n_nodes": 8}):
        with torch.inference_mode():
            solver = InformationContent(*flow, cell(level, **settings), "seed")
            found = solver.of(inputs.frames)["long"][1:]
        name = settings.get("solver", "coarse")
        errors[name] = float(np.sqrt(np.mean((found - truth) ** 2)))
        assert errors[name] < 3 * solver.solver_error_nats + 0.02, name
        assert solver.solver_error_nats < (0.1 if name == "exact" else 6 * errors[name] + 0.05), name
        assert spearmanr(found, truth).statistic > {"exact": 0.999, "quadrature": 0.97}.get(name, 0.5), name
    assert errors["exact"] < 0.05
    assert errors["exact"] < errors["quadrature"] < errors["euler"]


def test_recordings_of_unequal_lengths_together_equal_each_alone(
    flow: tuple[Flow, int], inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"{name} {cut}": frames[:cut] for name, frames in inputs.frames.items() for cut in (2, 9, 12)}
    many |= dict(inputs.frames)
    alone = {name: ic(flow, {name: frames}, cell(0.3))[name] for name, frames in many.items()}
    for room in (1, 64, 4096):  # one window at a time, as on a CPU; batches, as on a GPU
        monkeypatch.setitem(contexts_module.BATCH_FRAMES, "cpu", room)
        together = ic(flow, many, cell(0.3))
        for name, values in alone.items():
            assert len(together[name]) == len(many[name])
            assert np.allclose(together[name], values, rtol=2e-5, equal_nan=True), (name, room)


def test_batched_windows_give_the_same_contexts(flow: tuple[Flow, int], monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    sequences = {(str(n), 0): torch.randn(n, 64, generator=random) for n in (2, 16, 17, 40, 3)}

    def all_contexts() -> dict[tuple[str, int], torch.Tensor]:
        read = (window for name, frames in sequences.items() for window in windows(name, frames, 16))
        found: dict[tuple[str, int], list[torch.Tensor]] = {}
        with torch.inference_mode():
            for window, rows in contexts(flow[0], read):
                found.setdefault(window.name, []).append(rows)
        return {name: torch.cat(rows) for name, rows in found.items()}

    alone = all_contexts()
    monkeypatch.setitem(contexts_module.BATCH_FRAMES, "cpu", 100)
    for name, rows in all_contexts().items():
        assert rows.shape == (len(sequences[name]) - 1, 64)
        assert torch.allclose(rows, alone[name], atol=1e-5)


def test_given_probes_are_used(flow: tuple[Flow, int], inputs: Inputs) -> None:
    short = {"short": inputs.frames["short"]}
    euler = cell(0.3, solver="euler", n_steps=5)
    exact = ic(flow, short, cell(0.3, solver="euler", n_steps=5, probes="exact"))["short"]
    unit = (8 * np.eye(64)).astype(np.float32)
    assert np.allclose(ic(flow, short, euler, probes=unit)["short"], exact, rtol=1e-5, equal_nan=True)
    each = np.repeat(unit[:, None], 11, axis=1)
    assert np.allclose(ic(flow, short, euler, probes=each)["short"], exact, rtol=1e-5, equal_nan=True)
    with pytest.raises(TaskError, match="long: the given probes are for 11 frames"):
        ic(flow, inputs.frames, euler, probes=each)
    named = cell(0.3, solver="euler", probes={"path": "p", "sha256": "s"})
    assert named.probes == ProbeFile(sha256="s")
    with pytest.raises(ValueError, match="no probes are given"):
        ic(flow, short, named)


def given(path: Path) -> dict[str, Any]:
    """What a cell has of a file of probes: its content, and its place, which isn't signed."""
    return {"places": {"probes": str(path)}, "probes": {"sha256": sha256(path.read_bytes()).hexdigest()}}


def test_a_file_of_probes_is_read_and_checked(tmp_path: Path, inputs: Inputs) -> None:
    path = tmp_path / "probes.npy"
    np.save(path, (8 * np.eye(64)).astype(np.float32))
    probes = given(path)
    right = inputs.cell(tmp_path / "right", 0.3, **probes)
    exact = inputs.cell(tmp_path / "exact", 0.3, probes="exact")
    assert [result.failure for result in run([right, exact], Context())] == [None, None]
    first, second = ((place.out_dir / "ic.safetensors").read_bytes() for place in (right, exact))
    assert np.allclose(np.frombuffer(first[-80:]), np.frombuffer(second[-80:]), rtol=1e-5)
    np.save(path, np.ones((3, 64), dtype=np.float32))
    (result,) = run([inputs.cell(tmp_path / "changed", 0.3, **probes)], Context())
    assert "its sha256 has changed" in (result.failure or "")
    path.unlink()
    (result,) = run([inputs.cell(tmp_path / "gone", 0.3, **probes)], Context())
    assert result.failure == (
        f"{path}: the probes can't be read (No such file or directory). Restore the file, or give its new path"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.ones((3, 64, 64, 64)), "shape (3, 64, 64, 64)"),
        (np.ones((4, 32)), "shape (4, 32)"),
        (np.ones((0, 64)), "shape (0, 64)"),
        (np.full((2, 64), np.nan), "finite numbers"),
        (np.array([["a"] * 64]), "<U1"),
        ({"two": np.ones((2, 64))}, "several arrays"),
        (b"no array", "not an array"),
    ],
)
def test_files_that_hold_no_probes_are_refused(tmp_path: Path, inputs: Inputs, content: Any, said: str) -> None:
    path = tmp_path / "probes.npy"
    with path.open("wb") as stream:
        if isinstance(content, bytes):
            stream.write(content)
        elif isinstance(content, dict):
            np.savez(stream, **content)
        else:
            np.save(stream, content)
    probes = given(path)
    bad, good = inputs.cell(tmp_path / "bad", 0.3, **probes), inputs.cell(tmp_path / "good", 0.3)
    first, second = run([bad, good], Context())
    assert said in (first.failure or "")
    assert second.failure is None


def test_probes_for_one_recording_leave_out_the_others(tmp_path: Path, inputs: Inputs) -> None:
    path = tmp_path / "probes.npy"
    np.save(path, np.ones((2, 11, 64), dtype=np.float32))
    probes = given(path)
    (result,) = run([inputs.cell(tmp_path / "out", 0.3, **probes)], Context())
    assert result.metrics["n_recordings"] == 1
    assert result.metrics["skipped"] == ["long: the given probes are for 11 frames, and it has 60 behind its first"]


def test_latents_of_another_size_are_refused(tmp_path: Path, inputs: Inputs, make_latents: MakeLatents) -> None:
    narrow = make_latents({"narrow": inputs.frames["short"][:, :32]})
    (result,) = run([inputs.cell(tmp_path / "out", 0.3, narrow)], Context())
    assert "64 channels, and these have 32" in (result.failure or "")


def test_probes_of_the_nodes_are_rows_used_once_before_any_comes_again() -> None:
    probes = FrameProbes("seed", "recording", 30, 64)
    every = np.concatenate([probes.rows_from(place, 4, 4, 20) for place in range(0, 64, 4)])
    assert every.shape == (64, 20, 64)
    assert set(np.unique(every).tolist()) == {-1, 1}
    for frame in range(20):
        one = every[:, frame].astype(int)
        assert np.array_equal(one @ one.T, 64 * np.eye(64))
    assert np.array_equal(probes.rows_from(64, 4, 0, 30), probes.rows_from(0, 4, 0, 30))
    assert np.array_equal(probes.rows_from(12, 4, 7, 2), probes.rows_from(12, 4, 0, 30)[:, 7:9])
    other = FrameProbes("seed", "other", 30, 64).rows_from(0, 4, 0, 30)
    assert not np.array_equal(other, probes.rows_from(0, 4, 0, 30))


def off_diagonal(*nats: float, n_frames: int = 400) -> Measured:
    """Frames of which one probe leaves so much at each node, in two directions that each node has for itself."""
    rests = torch.zeros(len(nats), n_frames, 64, 64)
    for node, one in enumerate(nats):
        rests[node, :, 2 * node, 2 * node + 1] = rests[node, :, 2 * node + 1, 2 * node] = one / 2
    weights = (math.sqrt(1 - 1 / n_frames),) * len(nats)
    return Measured(torch.zeros(len(nats), 64, 64), torch.eye(64), rests, weights, 0.0, 0.1, 0.3)


def test_probes_go_where_they_leave_most() -> None:
    measured = off_diagonal(8.0, 4.0, 2.0, 0.0)
    assert measured.probe_nats == pytest.approx((8.0, 4.0, 2.0, 0.0))
    assert measured.shared_out(8) == (5, 2, 1, 1)
    assert measured.shared_out(256) == (64, 64, 37, 1)
    assert off_diagonal(0.0, 0.0).shared_out(6) == (3, 3)


def test_what_probes_leave_is_tried_on_generated_frames() -> None:
    measured = off_diagonal(8.0, 4.0, 2.0, 0.0)
    assert measured.error_nats((64, 64, 64, 64)) == pytest.approx(0.3)
    assert measured.error_nats((1, 1, 1, 1)) == pytest.approx(math.sqrt(0.09 + 84), rel=0.05)


def test_probes_lie_along_the_axes_that_frames_share() -> None:
    """In the basis that is found, Jacobians with the same eigenvectors are diagonal: any probe gives their trace."""
    random = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(64, 64, generator=random))[0]
    diagonals = torch.randn(3, 8, 64, generator=random) * torch.linspace(1, 4, 64)
    rests = axes @ torch.diag_embed(diagonals) @ axes.T
    basis = control._basis(rests, torch.ones(3))
    assert torch.allclose(basis.T @ basis, torch.eye(64), atol=1e-5)
    found = Measured(torch.zeros(3, 64, 64), basis, basis.T @ rests @ basis, (1.0,) * 3, 0.0, 0.0, 0.0)
    plain = Measured(torch.zeros(3, 64, 64), torch.eye(64), rests, (1.0,) * 3, 0.0, 0.0, 0.0)
    assert found.error_nats((1, 1, 1)) < 1e-3 * plain.error_nats((1, 1, 1))


def test_keys_that_cannot_matter_are_no_part_of_a_cell() -> None:
    config = SurprisalConfig()
    assert config.cell(0.5) == {
        "noise_level": 0.5,
        "definition": "expectation",
        "solver": "quadrature",
        "n_nodes": config.setting("n_nodes"),
        "n_probes": config.setting("n_probes"),
        "order": 2,
        "precision": "float32",
    }
    assert SurprisalConfig(n_draws=3).cell(0.5) == config.cell(0.5)
    flowing = SurprisalConfig(definition="probability_flow", context="clean")
    assert "context" not in flowing.cell(0.5)
    assert SurprisalConfig(definition="probability_flow", context="none").cell(0.5)["context"] == "none"
    assert SurprisalConfig(definition="expected", n_draws=3).cell(0.5)["n_draws"] == 3
    assert SurprisalConfig(definition="expected", n_draws=3).cell(0.0).keys() == config.cell(0.0).keys()
    assert SurprisalConfig(context="clean").cell(0.0) == config.cell(0.0)
    assert config.cell(1.0).keys() == {"noise_level", "definition", "solver"}
    assert SurprisalConfig(solver="exact").cell(0.5) == SurprisalConfig(
        n_nodes=20, n_probes=9, order=3, precision="bfloat16"
    ).cell(0.5)
    with pytest.raises(ValueError, match="has no n_probes"):
        SurprisalConfig(n_probes=3, probes="exact")
    assert SurprisalConfig(solver="euler", probes="exact").cell(0.5) == {
        "noise_level": 0.5,
        "definition": "expectation",
        "solver": "euler",
        "n_steps": 100,
        "probes": "exact",
    }
    for setting in ({"order": 3}, {"precision": "float32"}):
        with pytest.raises(ValueError, match=f"solver euler has no {next(iter(setting))}"):
            SurprisalConfig.model_validate({"solver": "euler", **setting})
    with pytest.raises(ValueError, match="has no n_steps"):
        SurprisalConfig(n_steps=7)
    with pytest.raises(ValueError, match="solver euler, not exact"):
        SurprisalConfig.model_validate({"solver": "exact", "probes": {"path": "p", "sha256": "s"}})
