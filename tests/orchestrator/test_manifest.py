"""What the manifest makes of folders that are not what they should be: a sentence each, never an exception."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.manifest import Fingerprints, Manifest, resolve
from orchestrator.outside import OutsideFile
from orchestrator.reading import load_experiment
from orchestrator.storage import Storage

OWN = str(Path(__file__).parents[2] / "experiments/recordings.yaml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("music/a.wav", "eeg/dataStim.mat", "eeg/dataSub1.mat", "eeg/old/dataSub2.mat", "eeg/trials.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")
    return tmp_path


def look(*overrides: str) -> Manifest:
    given = ("data.path=music", "eeg.cnd.path=eeg", *overrides)
    return resolve(load_experiment(OWN, given).experiment, Storage("ledger"))


def test_a_data_set_is_the_folder_itself_and_not_what_lies_deeper(folder: Path) -> None:
    found = look("eeg.cnd.trials=eeg/trials.csv")
    assert (found.missing, found.notes) == ({}, [])
    assert [subject.name for subject in found.subjects["eeg"]] == ["dataSub1"]
    assert found.companions["eeg/trials.csv"]["path"] == "eeg/trials.csv"


@pytest.mark.parametrize("place", ["~/music", "./music/", "music", "{}/music"])
def test_folders_may_be_written_in_several_ways(folder: Path, place: str) -> None:
    place = place.format(folder)
    found = look(f"data.path={place}", "eeg.cnd.path=./eeg/")
    assert found.missing == {}
    ((file,),) = found.files.values()
    assert Path(file["path"]).expanduser().read_bytes() == b"?"
    assert [subject.name for subject in found.subjects["./eeg/"]] == ["dataSub1"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.path=nowhere", "nowhere: no such folder"),
        ("data.path=eeg/old", "eeg/old: no audio files in it (looked for wav, flac, ogg, mp3)"),
        ("data.path=eeg/trials.csv", "eeg/trials.csv: no audio files in it (looked for wav, flac, ogg, mp3)"),
        (
            "eeg.cnd.path=nowhere",
            "nowhere: no CND data set there (it needs dataStim.mat and dataSub1.mat, dataSub2.mat",
        ),
        ("eeg.cnd.path=eeg/old", "eeg/old: no CND data set there (it needs dataStim.mat)"),
        ("eeg.cnd.trials=trials.csv", "trials.csv: no such table of trials (eeg.cnd.trials)"),
        ("eeg.cnd.trials=eeg", "eeg: no such table of trials (eeg.cnd.trials)"),
    ],
)
def test_what_is_not_there_is_said(folder: Path, override: str, sentence: str) -> None:
    assert any(found.startswith(sentence) for found in look(override).missing.values())


def test_a_folder_without_midi_is_said(folder: Path) -> None:
    stimuli = "data.stimuli={source: midi, path: music}"
    assert look(stimuli).missing["music"] == "music: no midi files in it (looked for mid, midi)"


def test_files_that_cannot_be_read_are_left_out_with_a_note(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "music/b.wav").write_bytes(b"!")
    known = Fingerprints.of

    def of(self: Fingerprints, file: OutsideFile, place: str) -> dict[str, object]:
        if file.path.endswith(("b.wav", "dataSub1.mat")):
            raise PermissionError(13, "Permission denied")
        return known(self, file, place)

    monkeypatch.setattr(Fingerprints, "of", of)
    found = look()
    ((file,),) = found.files.values()
    assert file["path"] == "music/a.wav"
    assert found.missing == {}
    assert [note.rpartition("/")[2] for note in found.notes] == [
        "b.wav: can't be read (Permission denied), so it is left out",
        "dataSub1.mat: can't be read (Permission denied), so it is left out",
    ]


def test_a_store_that_does_not_answer_is_said(folder: Path) -> None:
    found = look("data.path=foo://music", "eeg.cnd.path=foo://eeg")
    for place in ("foo://music", "foo://eeg"):
        assert found.missing[place] == f"{place}: can't be listed: ValueError: Protocol not known: foo"
