"""Canaries sing when they must and only then, on EEG that went through the fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_world import FRAME_S, RATE, World, finished

from tasks.contract import Artefact, Cell, Context
from tasks.eeg.canaries import judge_channels, run
from tasks.eeg.permutation import run as permute
from tasks.eeg.trf import run as fit

Array = np.ndarray[Any, Any]
LEVEL = 0.4
N_PERMUTATIONS = 99
LAGS_S = np.arange(-4, 17) / RATE


def planted_kernel() -> Array:
    z = (LAGS_S - 0.15) / 0.05
    return np.asarray(np.where(LAGS_S >= 0, (1 - z**2) * np.exp(-(z**2) / 2), 0.0))


def answering(world: World, series: dict[str, Array], weights: Array) -> Callable[[str], Array]:
    from scipy.signal import butter, sosfiltfilt

    sections = butter(2, (1.0, 8.0), "bandpass", fs=RATE, output="sos")

    def respond(piece: str) -> Array:
        full = np.convolve(series[piece], planted_kernel())[4 : 4 + world.n_samples]
        return sosfiltfilt(sections, full)[:, None] * weights

    return respond


def setting(world: World) -> dict[str, Any]:
    return {"model": world.config()["model"], "alpha": 0.05, "variant": "v", "noise_level": LEVEL}


def judged(world: World, eegs: dict[str, Artefact], folder: Path, ic: Artefact | None = None) -> dict[str, Any]:
    """Verdict after both stages; `ic` takes the place of the level's own."""
    trf: list[Artefact] = []
    null: list[Artefact] = []
    listeners = []
    for place, (kind, eeg) in enumerate(eegs.items()):
        for into, stage, entry, config in (
            (trf, "trf", fit, world.config()),
            (null, "permutations", permute, world.null_config(N_PERMUTATIONS)),
        ):
            cell = world.cell(folder, stage, eeg, LEVEL, config)
            if ic is not None:
                cell = replace(cell, inputs={**cell.inputs, "surprisal": ic})
            [result] = entry([cell], Context())
            into.append(finished(cell, result))
        listeners.append({"kind": kind, "trf": place, "permutations": [place], "eeg": place})
    config = {**setting(world), "listeners": listeners}
    inputs = {"trf": tuple(trf), "permutations": tuple(null), "eeg": tuple(eegs.values())}
    out = folder / "canaries"
    out.mkdir()
    [result] = run([Cell("c", "canaries", config, inputs, out)], Context())
    assert result.failure is None, result.failure
    written: dict[str, Any] = json.loads((out / "canaries.json").read_text())
    assert result.metrics["verdict"] == written["verdict"]
    for listener in written["listeners"]:
        if listener["kind"] == "positive":
            assert result.metrics["positive_delta_r"] == listener["delta_r"] == trf[-1].metrics["delta_r"]
            assert listener["delta_r_max"] == trf[-1].metrics["delta_r_max"]
            assert f"delta_r = {listener['delta_r']:.2g}, " in written["sentence"]
    return written


def positive(world: World, strength: float, sign: float = 1.0) -> Artefact:
    weights = np.array([1.0, -0.5, 0.2])
    planted = {"kernel": (sign * planted_kernel()).tolist(), "latency_s": 0.15, "weights": weights.tolist()}
    truth = {"lags_s": LAGS_S.tolist(), "drivers": {"ic": planted}, "snr_db": 0.0}
    responding = answering(world, world.standard_ic(LEVEL), strength * weights)
    return world.eeg("canary-positive", responding, described={"truth": truth})


@pytest.fixture(scope="module")
def world() -> World:
    return World(n_pieces=4, seconds=20, lambdas=(1e-2, 1e-1))


def acoustics(world: World, n_channels: int) -> Callable[[str], Array]:
    random = np.random.default_rng(2)
    kernels = random.normal(size=(8, n_channels))
    sound = world.standard_reduced()

    def respond(piece: str) -> Array:
        columns = [np.convolve(sound[piece][:, c % 17], kernels[:, c])[: world.n_samples] for c in range(n_channels)]
        return np.column_stack(columns)

    return respond


def test_green_when_all_is_well(world: World, tmp_path: Path) -> None:
    eegs = {
        "noise": world.eeg("canary-noise", n_channels=40),
        "acoustic": world.eeg("canary-acoustic", acoustics(world, 20), n_channels=20),
        "positive": positive(world, 1.0),
    }
    result = judged(world, eegs, tmp_path)
    assert result["verdict"] == "green", result["sentence"]
    assert result["sentence"].startswith("Green: ")
    noise, acoustic, found = result["listeners"]
    assert noise["bound"] == 7
    assert acoustic["channels"] == 20
    assert found["p"] == 0.01
    assert found["kernel_r"] > 0.9


def test_red_when_acoustics_leak_through_ic(tmp_path: Path) -> None:
    """Listeners follow a feature of the sound that the reduced model lacks and IC holds: many must be rejected."""
    world = World(n_pieces=4, seconds=20, form="hold", lambdas=(1e-2, 1e-1))
    eeg = world.eeg("canary-acoustic", answering(world, world.standard_ic(LEVEL), np.full(20, 0.7)), n_channels=20)
    result = judged(world, {"acoustic": eeg}, tmp_path)
    assert result["verdict"] == "red"
    assert result["listeners"][0]["rejections"] > result["listeners"][0]["bound"]
    assert result["sentence"].startswith("Red, do not trust the other results: ")
    assert "ABOVE the bound" in result["sentence"]


def test_red_when_the_planted_response_is_lost(world: World, tmp_path: Path) -> None:
    result = judged(world, {"positive": positive(world, 0.0)}, tmp_path)
    assert result["verdict"] == "red"
    assert "NOT recovered" in result["sentence"]


SMALL = 0.15
"""Strength that makes a delta_r of some hundredths, as the study's default does."""


def test_green_at_a_small_effect(world: World, tmp_path: Path) -> None:
    result = judged(world, {"positive": positive(world, SMALL)}, tmp_path)
    assert 0.02 < result["listeners"][0]["delta_r"] < 0.06
    assert result["verdict"] == "green", result["sentence"]


def test_red_when_responses_are_cut_to_a_tenth(world: World, tmp_path: Path) -> None:
    result = judged(world, {"positive": positive(world, SMALL / 10)}, tmp_path)
    assert result["verdict"] == "red", result["sentence"]


def test_red_when_ic_comes_two_seconds_late(world: World, tmp_path: Path) -> None:
    late = {}
    for piece, values in world.ic(LEVEL).items():
        late[piece] = np.roll(values, round(2 / FRAME_S))
        late[piece][np.isnan(late[piece])] = np.nanmean(values)
        late[piece][0] = np.nan
    result = judged(world, {"positive": positive(world, SMALL)}, tmp_path, world.surprisal_artefact(LEVEL, late))
    assert result["verdict"] == "red", result["sentence"]
    assert result["listeners"][0]["p"] > 0.05


def test_red_when_the_kernel_is_upside_down(world: World, tmp_path: Path) -> None:
    result = judged(world, {"positive": positive(world, 1.0, sign=-1.0)}, tmp_path)
    assert result["listeners"][0]["p"] == 0.01
    assert result["listeners"][0]["kernel_r"] < -0.9
    assert result["verdict"] == "red"


def test_rejections_by_hand() -> None:
    null = np.tile(np.linspace(0, 1, 39)[:, None], (1, 4))
    gain = np.array([2.0, 1.0, 0.99, 0.5])
    judged = judge_channels("noise", gain, null, 0.05)
    assert judged == {"kind": "noise", "rejections": 3, "channels": 4, "bound": 2, "green": False}
    assert judge_channels("noise", gain[2:], null[:, 2:], 0.05)["green"]


def test_positive_without_truth_fails_with_the_reason(world: World, tmp_path: Path) -> None:
    eeg = world.eeg("canary-positive")
    cells = [
        world.cell(tmp_path, "trf", eeg, LEVEL, world.config()),
        world.cell(tmp_path, "permutations", eeg, LEVEL, world.null_config(2)),
    ]
    done = [
        finished(cells[0], next(fit([cells[0]], Context()))),
        finished(cells[1], next(permute([cells[1]], Context()))),
    ]
    listener = {"kind": "positive", "trf": 0, "permutations": [0], "eeg": 0}
    config = {**setting(world), "listeners": [listener]}
    inputs = {"trf": (done[0],), "permutations": (done[1],), "eeg": (eeg,)}
    [result] = run([Cell("c", "canaries", config, inputs, tmp_path)], Context())
    assert result.failure is not None
    assert "planted kernel" in result.failure
