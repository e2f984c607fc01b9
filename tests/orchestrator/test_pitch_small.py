"""The shipped study of pitch surprisal: its splits, its variants, and the tunes that noise levels are chosen on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestrator.graph import Graph
from orchestrator.manifest import resolve
from orchestrator.planner import build
from orchestrator.reading import load_experiment
from orchestrator.report.pitch_judgement import LEAST_SEEDS, LEAST_TUNES
from orchestrator.storage import Storage
from tasks.audio import melodies
from tasks.contract import Cell, Context

STUDY = str(Path(__file__).parents[2] / "experiments/pitch_small.yaml")
ARMS, LEVELS = 3, 10


def graph(folder: Path, *overrides: str) -> Graph:
    experiment = load_experiment(STUDY, overrides).experiment
    return build(experiment, resolve(experiment, Storage(str(folder / "results"))))


def test_three_arms_have_three_seeds_and_two_sets_of_tunes(tmp_path: Path) -> None:
    planned = graph(tmp_path)
    science = load_experiment(STUDY).experiment.science
    assert (science.data.split.train, science.data.split.dev) == (0.6, 0.2)
    assert (science.data.melodies_dev.split, science.data.melodies.split) == ("dev", "test")
    assert (science.data.melodies_dev.pieces, science.data.melodies.pieces) == (None, None)
    variants = Counter(
        (cell.config["latent_noise"]["applied_to"], cell.config["seed"])
        for cell in planned
        if cell.stage == "autoencoder"
    )
    assert variants == {(arm, seed): 1 for arm in ("none", "decoder", "encoder+decoder") for seed in range(LEAST_SEEDS)}
    found = Counter((cell.stage, cell.labels["role"]) for cell in planned if cell.stage in ("surprisal", "pitch"))
    assert set(found.values()) == {ARMS * LEAST_SEEDS * LEVELS}
    assert {role for _, role in found} == {"melodies", "melodies_dev"}
    assert not any("no noise level can be chosen" in note for note in planned.notes)


def test_tunes_to_choose_by_add_cells_and_touch_none(tmp_path: Path) -> None:
    without, planned = graph(tmp_path, "data.melodies_dev=null"), graph(tmp_path)
    assert set(without.cells) < set(planned.cells)
    added = [cell for cell in planned if cell.signature not in without.cells]
    assert Counter(cell.stage for cell in added) == {
        "corpus": 1,
        "pitch_surprisal": 1,
        "latents": ARMS * LEAST_SEEDS,
        "surprisal": ARMS * LEAST_SEEDS * LEVELS,
        "pitch": ARMS * LEAST_SEEDS * LEVELS,
    }
    assert {cell.labels["role"] for cell in added} == {"melodies_dev"}
    names = [cell.name for cell in planned]
    assert "pitch layernorm E+D m=0.0 seed=2 dev s=0.4" in names
    assert len(set(names)) == len(names)
    assert any("no noise level can be chosen" in note for note in without.notes)
    audited = graph(tmp_path, "causal_audit={frames_per_recording: 8}")
    assert {cell.labels["role"] for cell in audited if cell.stage == "causal_audit"} == {"melodies"}


def test_neither_dev_nor_test_tunes_reach_a_training(tmp_path: Path) -> None:
    planned = graph(tmp_path)
    roles = {cell.signature: cell.config["role"] for cell in planned if cell.stage in ("corpus", "latents")}
    for cell in planned:
        if cell.stage in ("autoencoder_base", "autoencoder", "flow"):
            assert {roles[parent] for parent in cell.parents if parent in roles} <= {"train", "validation"}


@pytest.fixture(scope="module")
def tunes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The tunes of the study as its stage makes them."""
    folder = tmp_path_factory.mktemp("tunes")
    (cell,) = (cell for cell in graph(folder) if cell.stage == "tunes")
    (result,) = melodies.run([Cell(cell.signature, cell.stage, cell.config, {}, folder)], Context())
    assert result.failure is None
    listed: list[dict[str, Any]] = json.loads((folder / "tunes.json").read_text())["tunes"]
    return listed


def test_splits_are_60_20_20_by_clusters_with_enough_tunes_to_test(tunes: list[dict[str, Any]]) -> None:
    splits = Counter(tune["split"] for tune in tunes)
    assert splits["test"] >= LEAST_TUNES
    for split, share in (("train", 0.6), ("dev", 0.2), ("test", 0.2)):
        assert splits[split] / len(tunes) == pytest.approx(share, abs=0.01)
    of_cluster: dict[int, set[str]] = {}
    for tune in tunes:
        of_cluster.setdefault(tune["cluster"], set()).add(tune["split"])
    assert len(of_cluster) > LEAST_TUNES
    assert all(len(found) == 1 for found in of_cluster.values())
