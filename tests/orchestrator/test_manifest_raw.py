"""Raw files with a table of events: how a study finds them, and which cells know of which row."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.graph import CellSpec
from orchestrator.manifest import Manifest, resolve
from orchestrator.planner import build
from orchestrator.reading import load_experiment
from orchestrator.storage import Storage
from tasks.eeg.recordings import EegCellConfig

OWN = str(Path(__file__).parents[2] / "experiments/recordings.yaml")
HEAD = "subject,file,recording,onset_s\n"
ROWS = "S1,one/S1.vhdr,a.wav,1\nS1,one/S1.vhdr,b.wav,20\nS2,S2_raw.fif,a.wav,2\nS3,gone.bdf,a.wav,2\n"
GIVEN = ("data.path=music", "data.stimuli={source: audio, path: heard, split_by: recording}")
RAW = (*GIVEN, "eeg.raw={path: eeg, events: eeg/events.csv}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    names = (
        "music/c.wav",
        "heard/a.wav",
        "heard/b.wav",
        "eeg/one/S1.vhdr",
        "eeg/one/S1.eeg",
        "eeg/one/S1.vmrk",
        "eeg/one/S10.eeg",
    )
    for name in (*names, "eeg/S2_raw.fif", "eeg/S2_raw-1.fif", "eeg/events.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "eeg/events.csv").write_text(HEAD + ROWS)
    return tmp_path


def look(*overrides: str) -> Manifest:
    return resolve(load_experiment(OWN, (*RAW, *overrides)).experiment, Storage("ledger"))


def subjects(*overrides: str) -> dict[str, CellSpec]:
    experiment = load_experiment(OWN, (*RAW, *overrides)).experiment
    planned = build(experiment, resolve(experiment, Storage("ledger")))
    return {cell.labels["subject"]: cell for cell in planned if cell.stage == "eeg" and "canary" not in cell.name}


def test_files_are_found_with_their_parts(folder: Path) -> None:
    found = look()
    assert found.missing == {}
    ((_, raw),) = found.raw.items()
    assert list(raw.presentations) == ["S1", "S2", "S3"]
    parts = {name: [part["path"] for part in file["companions"]] for name, file in raw.files.items()}
    assert parts == {
        "one/S1.vhdr": ["eeg/one/S1.eeg", "eeg/one/S1.vmrk"],
        "S2_raw.fif": ["eeg/S2_raw-1.fif"],
        "gone.bdf": [],
    }
    assert raw.files["one/S1.vhdr"]["version"].startswith("sha256:")
    assert raw.files["gone.bdf"]["version"] == "missing"


def test_a_cell_has_its_own_rows_and_files(folder: Path) -> None:
    before = subjects()
    assert list(before) == ["S1", "S2", "S3"]
    config = EegCellConfig.model_validate(before["S1"].config)
    assert config.raw is not None
    assert [(row.recording, row.onset_s) for row in config.raw.presentations] == [("a.wav", 1.0), ("b.wav", 20.0)]
    assert not config.simulated
    assert config.preprocessing.saturated_share == 0.01
    (folder / "eeg/events.csv").write_text(HEAD + ROWS.replace("S2_raw.fif,a.wav,2", "S2_raw.fif,a.wav,3"))
    (folder / "eeg/one/S1.eeg").write_text("other data")
    after = subjects()
    changed = [name for name in before if before[name].signature != after[name].signature]
    assert changed == ["S1", "S2"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("eeg.raw.events=nowhere.csv", "nowhere.csv: no such table of events (eeg.raw.events)"),
        ("eeg.raw.events=heard/a.wav", "heard/a.wav: the columns must be subject, file, recording, onset_s"),
        ("eeg.raw.path=nowhere", "nowhere: no such folder (eeg.raw.path)"),
        ("eeg.raw.path=music", "music: none of the files that eeg/events.csv names is there"),
    ],
)
def test_what_is_not_there_is_said_and_blocks(folder: Path, override: str, sentence: str) -> None:
    assert any(found.startswith(sentence) for found in look(override).missing.values())
    assert all((cell.missing or "").startswith(sentence) for cell in subjects(override).values())
    assert subjects(override)


def test_a_data_set_can_be_declared_before_it_is_there(folder: Path) -> None:
    (folder / "eeg/events.csv").unlink()
    assert list(subjects("eeg.raw.expect={subjects: 2, pieces: 2}")) == ["subject1", "subject2"]
    (folder / "eeg/events.csv").write_text(HEAD + ROWS)
    notes = look("eeg.raw.expect={subjects: 2, pieces: 2}").notes
    assert notes == ["eeg/events.csv: 3 subjects found, 2 expected (eeg.raw.expect)"]
