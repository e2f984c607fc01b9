"""Reduced models that hold more than acoustics: IC without context, the step of the latents, features of one's own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_force import nested
from made_up_world import RATE, Array, World, artefact
from safetensors.numpy import load, save

from tasks.contract import Artefact, Cell, Context, TaskError
from tasks.eeg import permutation, trf
from tasks.eeg.group import run_tests
from tasks.eeg.jobs import Bench, FitConfig, by_bench
from tasks.eeg.lags import lag_samples, lagged
from tasks.eeg.latent_step import read_latent_step
from tasks.eeg.regressors import Regressor, ic_regressor, standardised
from tasks.eeg.residual import OnsetExplainer
from tasks.eeg.verdict import verdict
from tasks.seeds import numpy_stream


def latents_artefact(world: World) -> Artefact:
    """Latents of three channels whose steps are as unequal as IC."""
    arrays = {}
    for piece, ic in world.ic(0.0).items():
        random = numpy_stream("latents", piece)
        moves = random.normal(size=(len(ic), 3)) * random.gamma(2.0, size=(len(ic), 1))
        arrays[piece] = np.cumsum(moves, axis=0).astype(np.float32)
    about = {piece: {"lead_samples": 0, "trail_samples": 0, "n_frames": len(own)} for piece, own in arrays.items()}
    return artefact(
        "latents", "latents", {"latents.safetensors": save(arrays), "latents.json": json.dumps(about).encode()}
    )


def own_artefact(world: World, name: str) -> Artefact:
    arrays = {f"{piece}/{name}": numpy_stream(name, piece).normal(size=(world.n_samples, 2)) for piece in world.pieces}
    table = {"sample_rate_hz": RATE, "recordings": {}, "own": name}
    files = {"features.json": json.dumps(table).encode(), "features.safetensors": save(arrays)}
    return artefact("features", name, files)


def cell_of(
    world: World, folder: Path, stage: str, eeg: Artefact, level: float, config: Mapping[str, Any], plus: list[str]
) -> Cell:
    """A cell of the world whose model has `plus`, with the inputs that it asks for."""
    config = {**config, "model": {**config["model"], "plus": plus}}
    cell = world.cell(folder, stage, eeg, level, config)
    null = {piece: 50 + 3 * numpy_stream("null", piece).normal(size=len(ic)) for piece, ic in world.ic(level).items()}
    more: dict[str, Any] = {
        "ic_null": replace(world.surprisal_artefact(level, null), signature=f"null{level}"),
        "latents": latents_artefact(world),
        "own": (own_artefact(world, "loudness"),),
    }
    asked = {"ic_null": "ic_null", "latent_step": "latents", "loudness": "own"}
    return replace(cell, config=config, inputs={**cell.inputs, **{asked[name]: more[asked[name]] for name in plus}})


@pytest.mark.parametrize("form", ["onset", "hold"])
def test_a_larger_reduced_model_equals_explicit_fits(tmp_path: Path, form: str) -> None:
    world = World(n_pieces=3, seconds=12, form=form, lambdas=(1e-4, 1e-1))
    eeg = world.eeg("S01", lambda piece: np.outer(np.roll(world.standard_ic(0.3)[piece], 3), [1.0, -0.5, 0.2]))
    plus = ["ic_null", "latent_step", "loudness"]
    cell = cell_of(world, tmp_path, "trf", eeg, 0.3, world.config(), plus)
    [result] = trf.run([cell], Context())
    assert result.failure is None
    lengths = dict.fromkeys(world.pieces, world.n_samples)
    own = load(cell.collection("own")[0].read_bytes("features.safetensors"))
    loudness = standardised({piece: own[f"{piece}/loudness"] for piece in world.pieces})
    step = ic_regressor(read_latent_step(cell.input("latents")), lengths, world.notes, form, RATE).values
    null_series = {
        piece: replace_first(values)
        for piece, values in load(cell.input("ic_null").read_bytes("ic.safetensors")).items()
    }
    series = {piece: replace(one, values=null_series[piece]) for piece, one in world.ic_series(0.3).items()}
    null = ic_regressor(series, lengths, world.notes, form, RATE).values
    lags = lag_samples(0.0, 0.35, RATE)
    sound, ic = world.standard_reduced(), world.standard_ic(0.3)
    heard = load(eeg.read_bytes("eeg.safetensors"))
    responses = [heard[f"{piece}/0"].astype(np.float64) for piece in world.pieces]
    stimuli = [np.column_stack([sound[p], loudness[p], null[p], step[p]]) for p in world.pieces]
    reduced = [lagged(values, lags) for values in stimuli]
    full = [lagged(np.column_stack([values, ic[p]]), lags) for values, p in zip(stimuli, world.pieces, strict=True)]
    arrays = load((cell.out_dir / "trf.safetensors").read_bytes())
    for name, designs in (("r_full", full), ("r_reduced", reduced)):
        np.testing.assert_allclose(arrays[name], nested(designs, responses, world.lambdas)[0], atol=1e-10)


def replace_first(values: Array) -> Array:
    """IC that lacks its first frame, as IC with context does."""
    return np.concatenate([[np.nan], values[1:]])


def judged(
    world: World,
    folder: Path,
    subjects: list[Artefact],
    surprisal: Artefact,
    plus: list[str],
    null: str = "residual_shift",
) -> float:
    """The smallest corrected p of both tests over channels."""
    parts: dict[str, list[Array]] = {"trf": [], "permutations": []}
    for stage, run, config in (
        ("trf", trf.run, world.config()),
        ("permutations", permutation.run, {**world.null_config(40), "null": null}),
    ):
        cells = [cell_of(world, folder / "-".join(plus), stage, eeg, 0.0, config, plus) for eeg in subjects]
        cells = [replace(cell, inputs={**cell.inputs, "surprisal": surprisal}) for cell in cells]
        for cell, result in zip(cells, run(cells, Context()), strict=True):
            if result.failure is not None:
                raise TaskError(result.failure)
            found = load((cell.out_dir / ("trf.safetensors" if stage == "trf" else "null.safetensors")).read_bytes())
            parts[stage].append(
                (found["r_full"] - found["r_reduced"]).mean(axis=0)[None]
                if stage == "trf"
                else found["delta_r"][:, None]
            )
    p = run_tests(np.array(parts["trf"]), np.array(parts["permutations"]), 0.05).p
    assert p is not None
    return float(p.min())


def test_what_is_change_of_the_latents_alone_is_not_claimed_beside_their_step(tmp_path: Path) -> None:
    """IC that copies the step is found where the step isn't in the reduced model, and not where it is."""
    world = World(n_pieces=3, seconds=16, form="hold", lambdas=(1e-3, 1e-1))
    steps = read_latent_step(latents_artefact(world))
    noise = {piece: numpy_stream("noise", piece).normal(size=own.values.size) for piece, own in steps.items()}
    lengths = dict.fromkeys(world.pieces, world.n_samples)
    driven = ic_regressor(steps, lengths, world.notes, "hold", RATE).values
    subjects = [
        world.eeg(f"S{number}", lambda piece: 0.5 * np.outer(np.roll(driven[piece], 3), [1.0, -1.0]), n_channels=2)
        for number in range(5)
    ]
    nearly, exactly = (
        world.surprisal_artefact(
            0.0, {piece: 100 + 10 * own.values + sd * noise[piece] for piece, own in steps.items()}
        )
        for sd in (0.5, 0.0)
    )
    assert judged(world, tmp_path, subjects, nearly, []) <= 0.05
    assert judged(world, tmp_path, subjects, nearly, ["latent_step"]) > 0.05
    with pytest.raises(TaskError, match=r"the reduced model explains IC wholly \(it leaves over .*e-\d+ of its SD\)"):
        judged(world, tmp_path, subjects, exactly, ["latent_step"])


def test_values_among_onsets_are_told_apart_from_what_stands_beside_them(tmp_path: Path) -> None:
    """However small a part of the features' variance the step is, its own values at onsets are always explained."""
    world = World(n_pieces=3, seconds=16)
    heights = {piece: numpy_stream("heights", piece).normal(size=world.n_samples) for piece in world.pieces}
    counts = {piece: (world.features[f"{piece}/onsets"][:, 0] > 0).astype(np.int64) for piece in world.pieces}
    values = {piece: 1e-3 * heights[piece] * counts[piece] for piece in world.pieces}
    reduced = {p: np.column_stack([own, values[p]]) for p, own in world.standard_reduced().items()}
    regressor = Regressor({p: 1e3 * own for p, own in values.items()}, dict.fromkeys(world.pieces, np.ones(1, bool)))
    sd = np.concatenate(list(regressor.values.values())).std()
    left = [
        np.concatenate(list(OnsetExplainer(reduced, counts, 12, n).split(regressor).residual.values())).std() / sd
        for n in (0, 1)
    ]
    assert left[0] > 0.5
    assert left[1] < 1e-9
    surprisal = world.surprisal_artefact(
        0.0, {piece: 100 + own.values for piece, own in read_latent_step(latents_artefact(world)).items()}
    )
    with pytest.raises(TaskError, match="the reduced model explains IC wholly"):
        judged(world, tmp_path, [world.eeg("S01")], surprisal, ["latent_step"], "onset_values")


def test_features_of_ones_own_stay_with_their_onsets(tmp_path: Path) -> None:
    """What is shuffled among onsets has nothing to do with them; where IC without context has no value, IC has none."""
    world = World(n_pieces=3, seconds=24, form="hold")
    cell = cell_of(world, tmp_path, "trf", world.eeg("S01"), 0.3, world.config(), ["ic_null", "loudness"])
    values = load(cell.input("ic_null").read_bytes("ic.safetensors"))
    values["piece1"][100:110] = np.nan
    lossy = replace(world.surprisal_artefact(0.3, values), signature="lossy")
    bench = Bench(replace(cell, inputs={**cell.inputs, "ic_null": lossy}), FitConfig.of_signed(cell.config))
    regressor = bench.regressor(cell.input("surprisal"))
    [span] = regressor.missing["piece1"]
    assert np.array_equal(span, np.ceil(np.array([100, 110]) * 4096 / 44100 * RATE)), "the frames' samples"
    assert not regressor.present["piece1"][slice(*span)].any()
    assert regressor.missing.keys() == {"piece1"}
    assert bench.n_beside == 3, "two series of loudness, and IC without context"
    counts = {piece: (world.features[f"{piece}/onsets"][:, 0] > 0).astype(np.int64) for piece in world.pieces}
    split = OnsetExplainer(bench.reduced, counts, bench.lags.size, bench.n_beside).split(regressor)
    at = {piece: np.flatnonzero(own) for piece, own in counts.items()}
    left = np.concatenate([split.residual[piece][where] for piece, where in at.items()])
    beside = np.concatenate([bench.reduced[piece][where, -3:] for piece, where in at.items()])
    assert np.abs((beside - beside.mean(axis=0)).T @ left).max() < 1e-9 * left.size
    assert left.std() > 0.1


def test_cells_share_a_reduced_model_only_where_it_reads_the_same(tmp_path: Path) -> None:
    """With ic_null each level has its own, with the step of one variant's latents all levels share one."""
    world = World(n_pieces=2, seconds=8)
    for plus, groups in ((["latent_step"], [4]), (["ic_null"], [2, 2]), ([], [4])):
        cells = [
            cell_of(world, tmp_path, "trf", world.eeg(name), level, world.config(), plus)
            for name in ("S01", "S02")
            for level in (0.0, 0.3)
        ]
        assert [len(group) for group in by_bench(cells)] == groups
    other = replace(cells[0], config={**cells[0].config, "sample_rate_hz": 64})
    assert len(list(by_bench([cells[0], other]))) == 2


def test_a_series_that_is_constant_in_a_piece_is_named(tmp_path: Path) -> None:
    world = World(n_pieces=3, seconds=8)
    values = world.ic(0.6)
    values["piece1"][1:] = 3.5
    said = r"piece1 \(3\.5 nats in each of the \d+ frames of piece1\).* leave out these stimuli, or this noise level"
    [cell] = [cell_of(world, tmp_path, "trf", world.eeg("S01"), 0.6, world.config(), ["ic_null"])]
    still = replace(world.surprisal_artefact(0.6, values), signature="still")
    for role, name in (("surprisal", "IC"), ("ic_null", "IC without context")):
        [result] = trf.run([replace(cell, inputs={**cell.inputs, role: still})], Context())
        assert result.failure is not None
        assert result.failure.startswith(f"{name} is constant in ")
        assert re.search(said, result.failure)
    latents = latents_artefact(world)
    arrays = load(latents.read_bytes("latents.safetensors"))
    arrays["piece2"] = np.ones_like(arrays["piece2"])
    files = {"latents.safetensors": save(arrays), "latents.json": latents.read_bytes("latents.json")}
    lengths = dict.fromkeys(world.pieces, world.n_samples)
    steps = read_latent_step(artefact("latents", "flat", files))
    with pytest.raises(TaskError, match=r"the step of the latents is constant in piece2 \(0 SD in each of"):
        ic_regressor(steps, lengths, world.notes, "hold", RATE, "the step of the latents", "SD")
    arrays["piece0"][5] = np.nan
    files["latents.safetensors"] = save(arrays)
    with pytest.raises(TaskError, match=r"piece0: 1 of \d+ latent frames aren't finite \(the first is frame 5\)"):
        read_latent_step(artefact("latents", "bad", files))


def test_a_verdict_names_all_that_ic_adds_to() -> None:
    n = {"subjects": 5, "subjects_known": 5, "pieces": [4, 4], "pieces_known": 4}
    for model, words in (
        ({"reduced": "acoustic_plus"}, "IC over the listed acoustic features in 5"),
        ({"reduced": "envelope"}, "IC over the envelope in 5"),
        (
            {"reduced": "acoustic_plus", "plus": ["ic_null", "latent_step", "loudness"]},
            "IC over the listed acoustic features, IC without context, the step of the latents and loudness in 5",
        ),
    ):
        assert words in verdict({"tested": False, "simulated": False, "model": model, "n": n})
