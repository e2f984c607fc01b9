from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tiny_flow import WINDOW

from tasks.contract import Artefact, Cell, Context, Stopped
from tasks.flow.contexts import contexts, windows
from tasks.flow.information import BLOCK_FRAMES
from tasks.flow.network import read_flow
from tasks.flow.probes import draw_probes
from tasks.ic import IcSeries, read_ic
from tasks.surprisal import Surprisal, run

if TYPE_CHECKING:
    from conftest import Inputs

MakeLatents = Callable[[Mapping[str, np.ndarray]], Artefact]
LEVELS = (0.0, 0.3, 0.5, 0.6, 0.9, 1.0)


def ic_of(cell: Cell) -> dict[str, IcSeries]:
    return read_ic(Artefact("ic", "surprisal", {}, {}, lambda name: (cell.out_dir / name).open("rb")))


def test_all_noise_gives_the_same_value_for_every_frame(tmp_path: Path, inputs: Inputs) -> None:
    cell = inputs.cell(tmp_path / "out", 1.0)
    (result,) = run([cell], Context())
    for name, series in ic_of(cell).items():
        assert len(series.values) == len(inputs.frames[name])
        assert math.isnan(series.values[0])
        assert set(series.values[1:].tolist()) == {32 * math.log(2 * math.pi)}
    assert result.metrics["ic_mean"] == pytest.approx(58.81, abs=0.01)
    assert result.metrics["ic_sd"] == pytest.approx(0, abs=1e-9)


def test_a_level_alone_has_the_bits_it_has_among_six_in_any_order(tmp_path: Path, inputs: Inputs) -> None:
    alone = {level: inputs.cell(tmp_path / f"alone {level}", level) for level in LEVELS}
    for cell in alone.values():
        list(run([cell], Context()))
    rising = [inputs.cell(tmp_path / f"rising {level}", level) for level in LEVELS]
    falling = [inputs.cell(tmp_path / f"falling {level}", level) for level in reversed(LEVELS)]
    list(run(rising, Context()))
    list(run(falling, Context()))
    for one, other, level in zip(rising, reversed(falling), LEVELS, strict=True):
        for name in ("ic.safetensors", "ic.json"):
            wanted = (alone[level].out_dir / name).read_bytes()
            assert (one.out_dir / name).read_bytes() == wanted
            assert (other.out_dir / name).read_bytes() == wanted


def test_a_recording_alone_has_the_bits_it_has_among_others(
    tmp_path: Path, inputs: Inputs, make_latents: MakeLatents
) -> None:
    both = inputs.cell(tmp_path / "both", 0.3)
    one = inputs.cell(tmp_path / "one", 0.3, make_latents({"long": inputs.frames["long"]}))
    list(run([both, one], Context()))
    assert ic_of(both)["long"].values.tobytes() == ic_of(one)["long"].values.tobytes()


def test_ic_does_not_depend_on_frames_to_come(tmp_path: Path, inputs: Inputs, make_latents: MakeLatents) -> None:
    changed = inputs.frames["long"].copy()
    changed[40:] += 1
    first, second = inputs.cell(tmp_path / "a", 0.3), inputs.cell(tmp_path / "b", 0.3, make_latents({"long": changed}))
    list(run([first, second], Context()))
    before, after = ic_of(first)["long"].values, ic_of(second)["long"].values
    assert before[1:40].tobytes() == after[1:40].tobytes()
    assert (before[40:] != after[40:]).all()


def test_the_level_scales_frame_and_context(tmp_path: Path, inputs: Inputs) -> None:
    surprisal = Surprisal(inputs.flow, inputs.latents)
    cell = inputs.cell(tmp_path / "out", 0.5)
    list(run([cell], Context()))
    frames = inputs.frames["short"]
    probes = draw_probes(cell.signature, "short", len(frames), 3, 64)
    model, window = read_flow(inputs.flow)
    with torch.no_grad():
        context = model.backbone(torch.from_numpy(frames * np.float32(0.5))[None, :-1])[0]
        x = torch.from_numpy(frames[1:] * np.float32(0.5))
        gain = torch.zeros(len(x))
        probe = torch.from_numpy(probes[1:]).float().transpose(0, 1)
        for k in range(6):
            tau = 0.5 * (6 - k) / 6
            field = lambda v, tau=tau: model.head(v[None, None], context[None], torch.full((1, 1), tau))[0, 0]  # noqa: E731
            for one in probe:
                gain += (torch.autograd.functional.jvp(field, x, one)[1] * one).sum(-1) / len(probe)
            x = x - 0.5 / 6 * field(x)
    wanted = 0.5 * x.square().sum(-1) + 32 * math.log(2 * math.pi) + 0.5 / 6 * gain
    assert window == surprisal.window == WINDOW
    assert np.allclose(ic_of(cell)["short"].values[1:], wanted.numpy(), rtol=1e-4)


def test_half_the_steps_keep_the_ranks(tmp_path: Path, inputs: Inputs) -> None:
    cells = [inputs.cell(tmp_path / str(n), 0.3, n_steps=n, n_probes=4) for n in (25, 50)]
    list(run(cells, Context()))
    coarse, fine = (ic_of(cell)["long"].values[1:] for cell in cells)
    assert not np.array_equal(coarse, fine)
    assert spearmanr(coarse, fine).statistic > 0.99


def test_the_size_of_blocks_matters_only_in_the_last_digits(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, blocks = inputs.cell(tmp_path / "whole", 0.3), inputs.cell(tmp_path / "blocks", 0.3)
    list(run([whole], Context()))
    monkeypatch.setitem(BLOCK_FRAMES, "cpu", 7)
    list(run([blocks], Context()))
    assert np.allclose(ic_of(whole)["long"].values, ic_of(blocks)["long"].values, rtol=1e-5, equal_nan=True)


def test_a_jump_surprises(tmp_path: Path, inputs: Inputs, make_latents: MakeLatents) -> None:
    jumping = inputs.frames["long"].copy()
    jumping[30:] = -jumping[30:]
    cell = inputs.cell(tmp_path / "out", 0.3, make_latents({"jumping": jumping}), n_steps=25)
    list(run([cell], Context()))
    assert int(np.nanargmax(ic_of(cell)["jumping"].values)) == 30


def test_contexts_in_windows_equal_those_of_the_frames_they_show(inputs: Inputs) -> None:
    flow, _ = read_flow(inputs.flow)
    frames = torch.from_numpy(inputs.frames["long"])
    with torch.no_grad():
        windowed = torch.cat([found for _, found in contexts(flow, windows(("long", 0), frames, WINDOW))])
        assert windowed.shape == (60, 64)
        for t in (1, 15, 16, 23, 24, 47, 60):
            first = 0 if t < 16 else 8 * ((t - 8) // 8)
            alone = flow.backbone(frames[None, first:t])[0, -1]
            assert torch.allclose(windowed[t - 1], alone, atol=1e-5), t
        ((_, whole),) = contexts(flow, windows(("long", 0), frames, 61))
        assert torch.allclose(whole, flow.backbone(frames[None, :-1])[0])


def test_recordings_without_usable_latents_are_named(tmp_path: Path, inputs: Inputs, make_latents: MakeLatents) -> None:
    spoiled = inputs.frames["short"].copy()
    spoiled[5, 1] = np.nan
    latents = make_latents(
        {"spoiled": spoiled, "one": spoiled[:1], "none": spoiled[:0], "good": inputs.frames["short"]}
    )
    cell = inputs.cell(tmp_path / "out", 0.0, latents)
    (result,) = run([cell], Context())
    assert list(ic_of(cell)) == ["good"]
    assert result.metrics["n_recordings"] == 1
    assert result.metrics["n_frames"] == 11
    assert result.metrics["n_skipped"] == 3
    assert [line.split(":")[0] for line in result.metrics["skipped"]] == ["none", "one", "spoiled"]
    assert json.loads((cell.out_dir / "ic.json").read_text())["skipped"] == result.metrics["skipped"]


def test_no_usable_recording_is_a_failure(tmp_path: Path, inputs: Inputs, make_latents: MakeLatents) -> None:
    latents = make_latents({"one": inputs.frames["short"][:1]})
    results = list(run([inputs.cell(tmp_path / "a", 0.0, latents), inputs.cell(tmp_path / "b", 0.0)], Context()))
    assert results[0].failure is not None
    assert "one: 1 latent frame" in results[0].failure
    assert results[1].failure is None


def test_it_tells_how_far_it_is_and_stops_when_asked(tmp_path: Path, inputs: Inputs) -> None:
    seen: list[tuple[int, int]] = []
    context = Context(progress=lambda done, total, _: seen.append((done, total)))
    list(run([inputs.cell(tmp_path / "a", 0.9), inputs.cell(tmp_path / "b", 1.0)], context))
    assert seen[-1] == (142, 142)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {142}
    with pytest.raises(Stopped):
        list(run([inputs.cell(tmp_path / "c", 0.9)], Context(should_stop=lambda: True)))


def test_probes_are_signs_that_depend_on_their_names() -> None:
    probes = draw_probes("cell", "recording", 50, 4, 64)
    assert probes.shape == (50, 4, 64)
    assert set(np.unique(probes).tolist()) == {-1, 1}
    assert abs(probes.mean()) < 0.03
    assert np.array_equal(probes, draw_probes("cell", "recording", 50, 4, 64))
    assert np.array_equal(probes[:20], draw_probes("cell", "recording", 20, 4, 64))
    assert not np.array_equal(probes, draw_probes("cell", "other", 50, 4, 64))
    assert not np.array_equal(probes, draw_probes("other", "recording", 50, 4, 64))


@pytest.mark.parametrize("n_probes", [1, 16, 64, 100])
def test_probes_of_a_frame_are_orthogonal_and_unbiased(n_probes: int) -> None:
    probes = draw_probes("cell", "recording", 400, n_probes, 64).astype(float)
    assert probes.shape == (400, n_probes, 64)
    first = probes[:, :64]
    assert np.array_equal(first @ first.transpose(0, 2, 1), np.tile(64 * np.eye(first.shape[1]), (400, 1, 1)))
    second_moment = np.einsum("tpi,tpj->ij", probes, probes) / (400 * n_probes)
    assert np.abs(second_moment - np.eye(64)).max() < 5 / math.sqrt(400 * n_probes)


def test_sixty_four_probes_are_exact(tmp_path: Path, inputs: Inputs) -> None:
    cells = [inputs.cell(tmp_path / str(i), 0.3, n_probes=n) for i, n in enumerate((64, 32, 64))]
    cells[2] = dataclasses.replace(cells[2], signature="another")
    list(run(cells, Context()))
    exact, estimated, again = (ic_of(cell)["short"].values[1:] for cell in cells)
    assert np.allclose(exact, again, rtol=1e-5)
    assert not np.allclose(exact, estimated, rtol=1e-3)
