"""CND data sets in a plan: which cells know of the stimulus file."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.graph import CellSpec
from orchestrator.manifest import resolve
from orchestrator.planner import build
from orchestrator.reading import load_experiment
from orchestrator.storage import Storage
from tasks.eeg.recordings import EegCellConfig

OWN = str(Path(__file__).parents[2] / "experiments/recordings.yaml")
GIVEN = ("data.path=music", "data.stimuli={source: audio, path: heard, split_by: recording}", "eeg.cnd.path=eeg")


def planned(*overrides: str) -> list[CellSpec]:
    experiment = load_experiment(OWN, (*GIVEN, *overrides)).experiment
    return list(build(experiment, resolve(experiment, Storage("ledger"))))


def test_shipped_onsets_are_those_of_the_features_and_of_canaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("music/c.wav", "heard/a.wav", "heard/b.wav", "eeg/dataStim.mat", "eeg/dataSub1.mat"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    before, after = planned(), planned("eeg.cnd.onsets=shipped")
    assert not any("shipped" in cell.config for cell in before)
    shipped = {cell.name: cell for cell in after if "shipped" in cell.config}
    assert {cell.stage for cell in shipped.values()} == {"features", "eeg"}
    assert {name for name in shipped if name.startswith("eeg")} == {
        "eeg canary-noise",
        "eeg canary-acoustic",
        "eeg canary-positive",
    }
    assert shipped["features stimuli"].config["shipped"]["stimulus_version"].startswith("sha256:")
    same = {cell.signature for cell in before if cell.name == "eeg dataSub1"}
    assert same == {cell.signature for cell in after if cell.name == "eeg dataSub1"}
    config = EegCellConfig.of_signed(shipped["eeg canary-acoustic"].config)
    assert config.simulated
    assert config.shipped is not None
    mastoids = [cell for cell in planned("eeg.preprocessing.reference=mastoids") if cell.name == "eeg dataSub1"]
    assert [cell.config["cnd"]["external"] for cell in mastoids] == ["described"]
