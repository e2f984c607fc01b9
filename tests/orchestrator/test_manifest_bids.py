"""BIDS data sets: how a study finds them, and which cells know of which file."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.graph import CellSpec
from orchestrator.manifest import Manifest, resolve
from orchestrator.manifest_bids import bids_subjects
from orchestrator.planner import build
from orchestrator.reading import load_experiment
from orchestrator.storage import Storage
from tasks.eeg.recordings import EegCellConfig
from tasks.eeg.source_config import BidsConfig

OWN = str(Path(__file__).parents[2] / "experiments/recordings.yaml")
GIVEN = (
    "data.path=music",
    "data.stimuli={source: audio, path: heard, split_by: recording}",
    "eeg.bids={path: set, task: listen}",
)
ONE, TWO = "sub-01/eeg/sub-01_task-listen", "sub-02/ses-a/eeg/sub-02_ses-a_task-listen"
FILES = (
    "dataset_description.json",
    "task-listen_channels.tsv",
    "task-rest_channels.tsv",
    f"{ONE}_eeg.vhdr",
    f"{ONE}_eeg.eeg",
    f"{ONE}_eeg.vmrk",
    f"{ONE}_events.tsv",
    "sub-01/eeg/sub-01_space-CapTrak_electrodes.tsv",
    "sub-01/eeg/sub-01_space-other_electrodes.tsv",
    "sub-01/eeg/sub-01_space-CapTrak_coordsystem.json",
    "sub-01/eeg/sub-01_task-rest_eeg.edf",
    "sub-01/meg/sub-01_task-listen_split-01_meg.fif",
    "sub-01/meg/sub-01_task-listen_split-02_meg.fif",
    f"{TWO}_run-2_eeg.bdf",
    f"{TWO}_run-10_eeg.bdf",
    f"{TWO}_channels.tsv",
    "sub-02/ses-b/eeg/sub-02_ses-b_task-listen_eeg.bdf",
    "sub-03/anat/sub-03_T1w.nii.gz",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("music/c.wav", "heard/a.wav", "heard/b.wav", *(f"set/{name}" for name in FILES)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "set/participants.tsv").write_text("participant_id\tage\nsub-01\t30\nsub-02\t31\nsub-04\t32\n")
    return tmp_path


def look() -> Manifest:
    return resolve(load_experiment(OWN, GIVEN).experiment, Storage("ledger"))


def subjects(*overrides: str) -> dict[str, CellSpec]:
    experiment = load_experiment(OWN, (*GIVEN, *overrides)).experiment
    planned = build(experiment, resolve(experiment, Storage("ledger")))
    return {cell.labels["subject"]: cell for cell in planned if cell.stage == "eeg" and "canary" not in cell.name}


def test_a_recording_has_its_own_files_and_the_nearest_that_describe_it(folder: Path) -> None:
    ((_, found),) = look().bids.items()
    assert {subject: [one["name"] for one in recordings] for subject, recordings in found.items()} == {
        "sub-01": [f"{ONE}_eeg.vhdr"],
        "sub-02": [
            f"{TWO}_run-2_eeg.bdf",
            f"{TWO}_run-10_eeg.bdf",
            "sub-02/ses-b/eeg/sub-02_ses-b_task-listen_eeg.bdf",
        ],
    }
    (first,) = found["sub-01"]
    assert first["events"] == f"{ONE}_events.tsv"
    assert {file["path"].removeprefix("set/"): file["place"] for file in first["files"]} == {
        f"{ONE}_eeg.vhdr": f"{ONE}_eeg.vhdr",
        f"{ONE}_eeg.eeg": f"{ONE}_eeg.eeg",
        f"{ONE}_eeg.vmrk": f"{ONE}_eeg.vmrk",
        f"{ONE}_events.tsv": f"{ONE}_events.tsv",
        "task-listen_channels.tsv": f"{ONE}_channels.tsv",
        "sub-01/eeg/sub-01_space-CapTrak_electrodes.tsv": f"{ONE}_space-CapTrak_electrodes.tsv",
        "sub-01/eeg/sub-01_space-CapTrak_coordsystem.json": f"{ONE}_space-CapTrak_coordsystem.json",
    }
    assert all(file["version"].startswith("sha256:") for file in first["files"])
    channels = [one["files"][1]["path"] for one in found["sub-02"]]
    assert channels == [f"set/{TWO}_channels.tsv", f"set/{TWO}_channels.tsv", "set/task-listen_channels.tsv"]
    assert look().notes == ["set: no recording of task listen, so left out: sub-03, sub-04"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"session": "a", "run": "02"}, {"sub-02": [f"{TWO}_run-2_eeg.bdf"]}),
        ({"session": "b"}, {"sub-02": ["sub-02/ses-b/eeg/sub-02_ses-b_task-listen_eeg.bdf"]}),
        ({"task": "rest"}, {"sub-01": ["sub-01/eeg/sub-01_task-rest_eeg.edf"]}),
        ({"sensor_type": "mag"}, {"sub-01": ["sub-01/meg/sub-01_task-listen_split-01_meg.fif"]}),
    ],
)
def test_only_what_is_asked_for_is_taken(asked: dict[str, str], expected: dict[str, list[str]]) -> None:
    bids = BidsConfig.model_validate({"path": "set", "task": "listen", **asked})
    found = bids_subjects(bids, FILES, lambda name: {"path": name})
    assert {subject: [one["name"] for one in recordings] for subject, recordings in found.items()} == expected


def test_a_cell_depends_on_its_subject_and_what_it_inherits(folder: Path) -> None:
    before = subjects()
    assert list(before) == ["sub-01", "sub-02"]
    config = EegCellConfig.of_signed(before["sub-01"].config)
    assert config.bids is not None
    assert (config.bids.sensor_type, config.simulated) == ("eeg", False)
    changed = {}
    for name in ("participants.tsv", f"{ONE}_eeg.eeg", "task-listen_channels.tsv", "task-rest_channels.tsv"):
        text = (folder / "set" / name).read_text()
        (folder / "set" / name).write_text(text + "more")
        after = subjects()
        changed[name] = [subject for subject in before if before[subject].signature != after[subject].signature]
        (folder / "set" / name).write_text(text)
    assert changed == {
        "participants.tsv": [],
        f"{ONE}_eeg.eeg": ["sub-01"],
        "task-listen_channels.tsv": ["sub-01", "sub-02"],
        "task-rest_channels.tsv": [],
    }


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("path=nowhere", "nowhere: no such folder (eeg.bids.path)"),
        ("path=music", "music: no BIDS data set there (it needs folders sub-...)"),
        ("task=sing", "set: no eeg recording of task sing in it (tasks there: listen, rest)"),
        ("run='7'", "set: no eeg recording of task listen, run 7 in it (tasks there: listen, rest)"),
    ],
)
def test_what_is_not_there_is_said_and_blocks(folder: Path, override: str, sentence: str) -> None:
    cells = subjects("eeg.bids.expect={subjects: 2, pieces: 2}", f"eeg.bids.{override}")
    assert {name: cell.missing for name, cell in cells.items()} == {"sub-01": sentence, "sub-02": sentence}
