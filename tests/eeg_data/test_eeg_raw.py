"""Raw files with a table of events: every format alike, and whatever is wrong is said by file and piece."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import mne
import numpy as np
import pytest
from eeg_material import DURATIONS_S, MakeCell
from raw_material import (
    FS,
    NAMES,
    ONSETS_S,
    TABLE,
    microvolts,
    raw_config,
    raw_of,
    write_brainvision,
    write_edf,
    write_eeglab,
    write_fif,
)
from safetensors.numpy import load_file

from tasks.contract import Artefact, Context, Result, TaskError
from tasks.eeg.events import belongs_to, read_events
from tasks.eeg.montage import biosemi_64, on_sphere, standard_positions
from tasks.eeg.recordings import run

Told = tuple[Result, dict[str, np.ndarray], dict[str, Any]]


@pytest.fixture
def read(corpus: Artefact, make_cell: MakeCell) -> Any:
    numbers = count()

    def outcome(folder: Path, rows: list[tuple[Any, ...]], **more: Any) -> Told:
        cell = make_cell(f"{next(numbers)}", "eeg", raw_config(folder, rows, **more), corpus=corpus)
        (result,) = run([cell], Context())
        if result.failure is not None:
            return result, {}, {}
        table = json.loads((cell.out_dir / "eeg.json").read_text())
        return result, load_file(cell.out_dir / "eeg.safetensors"), table

    return outcome


def named(suffix: str) -> list[tuple[Any, ...]]:
    return [(f"S1{suffix}", *row[1:]) for row in TABLE]


def written(folder: Path, suffix: str) -> None:
    data = microvolts("S1")
    path = folder / f"S1{suffix}"
    if suffix == ".fif":
        write_fif(path, raw_of(data))
    elif suffix == ".vhdr":
        write_brainvision(path, data)
    elif suffix == ".set":
        write_eeglab(path, data)
    else:
        write_edf(path, data)


@pytest.mark.parametrize("suffix", [".fif", ".vhdr", ".edf", ".bdf", ".set"])
def test_every_format_has_the_same_trials_in_the_same_places(tmp_path: Path, read: Any, suffix: str) -> None:
    written(tmp_path, suffix)
    result, arrays, table = read(tmp_path, named(suffix))
    assert result.failure is None
    assert sorted(arrays) == ["audio1/0", "audio10/0", "audio2/0"]
    assert table["channels"] == list(NAMES)
    cap = biosemi_64()
    assert cap.positions is not None
    expected = np.array([cap.positions[cap.names.index(name)] for name in NAMES])
    # ten channels of the cap say less of its centre than all 64, and FIF has them in the head's own coordinates
    np.testing.assert_allclose(table["positions"], expected, atol=4e-3)
    assert table["skipped"] == []
    assert table["simulated"] is False
    assert [trial["original_position"] for trial in table["trials"]] == [1, 2, 3]
    for key, seconds in DURATIONS_S.items():
        n = int(seconds * 44_100) * 64 // 44_100
        wave = np.sin(2 * np.pi * 4 * np.arange(n) / 64)
        found = arrays[f"{key}/0"]
        assert found.shape == (n, len(NAMES))
        assert np.corrcoef(found[64:-64, -1], wave[64:-64])[0, 1] > 0.98


def test_bad_channels_other_types_and_bad_spans_are_told(tmp_path: Path, read: Any) -> None:
    data = microvolts("S1", n=len(NAMES) + 2)
    raw = raw_of(data, (*NAMES, "HEOG", "STI"), placed=False)
    raw.set_channel_types({"HEOG": "eog", "STI": "stim"}, verbose="ERROR")
    raw.set_montage("biosemi64", on_missing="ignore", verbose="ERROR")
    raw.info["bads"] = ["Pz", "HEOG"]
    raw.set_annotations(mne.Annotations([1.0, 6.0, 5.5, 20.0], [3.5, 1.0, 1.0, 2.0], ["BAD_x", "bad y", "BAD_x", "ok"]))
    write_fif(tmp_path / "S1.fif", raw)
    result, _, table = read(tmp_path, TABLE)
    assert result.failure is None
    assert table["other_channels"] == {"eog": ["HEOG"], "stim": ["STI"]}
    assert table["channels"] == list(NAMES)
    assert table["bads"] == ["Pz"]
    first, second, _ = table["trials"]
    assert first["bads_why"] == {"Pz": "marked bad"}
    # audio1 was heard from 3 s on: 1.0-4.5, 5.5-6.5 and 6.0-7.0 s of the file, less what was before
    assert first["bad_spans"] == [[0.0, 1.5, "BAD_x"], [2.5, 3.5, "BAD_x"], [3.0, 4.0, "bad y"]]
    assert second["bad_spans"] == []
    assert first["masks"] == [[0, 96], [160, 256]]
    assert "masks" not in second
    assert result.metrics["skipped"] == [
        "trial S1.fif at 3 s (audio1): 3.00 of 12.00 s are marked BAD_x, bad y; they are left out"
    ]


def test_bad_parts_count_for_no_scale_and_a_trial_that_is_all_bad_is_left_out(tmp_path: Path, read: Any) -> None:
    data = microvolts("S1")
    data[:, 4 * FS : 6 * FS] *= 40
    raw = raw_of(data)
    raw.set_annotations(mne.Annotations([3.5, 18.0], [3.0, 11.0], ["BAD_jump", "BAD_pause"]))
    write_fif(tmp_path / "S1.fif", raw)
    result, arrays, table = read(tmp_path, TABLE)
    assert sorted(arrays) == ["audio1/0", "audio10/0"]
    assert [trial.get("masks") for trial in table["trials"]] == [[[32, 224]], None]
    kept = np.concatenate([np.delete(arrays["audio1/0"], np.arange(32, 224), axis=0), arrays["audio10/0"]])
    assert kept.std() == pytest.approx(1.0, abs=1e-4)
    assert arrays["audio1/0"].std() > 3
    assert result.metrics["skipped"] == [
        "trial S1.fif at 18.5 s (audio2): all of its 10.00 s are marked BAD_pause; check the annotations of the file",
        "trial S1.fif at 3 s (audio1): 3.00 of 12.00 s are marked BAD_jump; they are left out",
    ]


def test_mastoids_and_channels_that_are_no_eeg(tmp_path: Path, read: Any) -> None:
    names = (*NAMES, "EXG1", "EXG2", "M1", "M2", "ECG9")
    write_edf(tmp_path / "S1.bdf", microvolts("S1", n=len(names)), names)
    _, _, table = read(tmp_path, named(".bdf"), mastoids=["M1", "M2"], not_eeg=["ECG9"])
    assert table["channels"] == list(NAMES)
    assert table["other_channels"] == {"not EEG": ["EXG1", "EXG2", "ECG9"], "mastoid": ["M1", "M2"]}


def test_channels_without_known_places_say_so(tmp_path: Path, read: Any) -> None:
    names = tuple(f"X{k}" for k in range(6))
    write_edf(tmp_path / "S1.edf", microvolts("S1", n=6), names)
    result, _, table = read(tmp_path, named(".edf"))
    assert table["positions"] is None
    assert ["no positions of its channels are known" in line for line in result.metrics["skipped"]] == [True]


def test_files_of_all_sorts_of_faults_are_named_and_the_others_go_on(tmp_path: Path, read: Any) -> None:
    data = microvolts("S1")
    write_fif(tmp_path / "good.fif", raw_of(data))
    write_fif(tmp_path / "turned.fif", raw_of(data[::-1], NAMES[::-1]))
    write_fif(tmp_path / "fewer.fif", raw_of(data[:8], NAMES[:8]))
    write_fif(tmp_path / "slow.fif", raw_of(data[:, :1500], rate=32))
    cut = write_fif(tmp_path / "cut.fif", raw_of(data))
    Path(cut).write_bytes(Path(cut).read_bytes()[:3000])
    write_brainvision(tmp_path / "short.vhdr", data[:, : 8 * FS])
    (tmp_path / "text.edf").write_text("subject,file\n")
    rows: list[tuple[Any, ...]] = [
        ("good.fif", "audio1", 3.0),
        ("good.fif", "audio2", 18.5, 10.2),
        ("good.fif", "audio10", 31.0, 25.0),
        ("good.fif", "nobody", 31.0),
        ("turned.fif", "audio1", 3.0),
        ("turned.fif", "audio2", 18.5, None, 0),
        ("fewer.fif", "audio10", 31.0),
        ("slow.fif", "audio10", 31.0),
        ("cut.fif", "audio10", 31.0),
        ("short.vhdr", "audio1", 3.0),
        ("short.vhdr", "audio10", 31.0),
        ("text.edf", "audio10", 31.0),
        ("nowhere.bdf", "audio10", 1.0),
    ]
    result, arrays, table = read(tmp_path, rows)
    assert result.failure is None
    assert sorted(arrays) == ["audio1/0", "audio1/1", "audio2/0"]
    assert {trial["trial"]: trial["original_position"] for trial in table["trials"]} == {
        "good.fif at 3 s": 1,
        "good.fif at 18.5 s": 2,
        "turned.fif at 3 s": 5,
    }
    # the same channels in another order are the same channels
    np.testing.assert_allclose(arrays["audio1/0"], arrays["audio1/1"], atol=1e-6)
    told = {(part["trial"], part["piece"]): part["reason"] for part in table["skipped"]}
    expected = {
        ("good.fif at 31 s", "audio10"): "lasted 25.0 s by the table of events, but audio10 ends at 11.0 s",
        ("good.fif at 31 s", "nobody"): "nobody, which is not among the stimuli",
        ("turned.fif at 18.5 s", "audio2"): "is repetition 1 of audio2, as is good.fif at 18.5 s",
        ("fewer.fif at 31 s", "audio10"): "lacks channels that most trials of the subject have: P3, P4",
        ("slow.fif at 31 s", "audio10"): "below preprocessing.sample_rate_hz",
        ("cut.fif at 31 s", "audio10"): "begins at 31.0 s, and the file ends at 1.0 s (is it truncated?)",
        ("short.vhdr at 3 s", "audio1"): "the EEG ends 7.00 s before audio1 does",
        ("short.vhdr at 31 s", "audio10"): "the file ends at 8.0 s",
        ("text.edf", "audio10"): "truncated, damaged",
        ("nowhere.bdf", "audio10"): "no such file",
    }
    assert set(told) == set(expected)
    for key, words in expected.items():
        assert words in told[key], (key, told[key])
    assert not any(str(tmp_path) in reason or "/tmp" in reason for reason in told.values())


def test_what_is_whole_of_a_truncated_file_is_used(tmp_path: Path, read: Any) -> None:
    path = Path(write_fif(tmp_path / "S1.fif", raw_of(microvolts("S1"))))
    path.write_bytes(path.read_bytes()[: int(0.9 * path.stat().st_size)])
    result, arrays, _ = read(tmp_path, TABLE)
    assert sorted(arrays) == ["audio1/0", "audio2/0"]
    (line,) = [line for line in result.metrics["skipped"] if "audio10.wav" in line]
    assert line == "trial S1.fif at 31 s (audio10.wav): truncated or damaged (ValueError); copy the file again"


def test_a_subject_without_any_usable_file_is_lost_by_name(tmp_path: Path, read: Any) -> None:
    result, _, _ = read(tmp_path, TABLE)
    assert result.failure is not None
    assert result.failure.startswith("S1: no trial can be used: trial S1.fif (audio1.flac): there is no such file")


def test_data_of_a_file_elsewhere_are_not_read(tmp_path: Path, read: Any) -> None:
    (tmp_path / "data").mkdir()
    write_brainvision(tmp_path / "data/S1.vhdr", microvolts("S1"))
    header = (tmp_path / "data/S1.vhdr").read_text(encoding="utf-8")
    secret = tmp_path / "secret.eeg"
    secret.write_bytes((tmp_path / "data/S1.eeg").read_bytes())
    (tmp_path / "data/S1.vhdr").write_text(header.replace("DataFile=S1.eeg", f"DataFile={secret}"), encoding="utf-8")
    result, _, _ = read(tmp_path / "data", named(".vhdr"))
    assert result.failure is not None
    assert "file elsewhere" in result.failure or "truncated, damaged" in result.failure


def test_hdf5_that_shows_other_files_is_not_read(tmp_path: Path, read: Any) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with h5py.File(tmp_path / "S1.set", "w") as file:
        file["EEG"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/data")
    result, _, _ = read(tmp_path, named(".set"))
    assert "its part S1.fdt: there is no such file" in (result.failure or "")
    (tmp_path / "S1.fdt").write_bytes(b"")
    result, _, _ = read(tmp_path, named(".set"))
    assert result.failure is not None
    assert "shows contents of other files" in result.failure


def test_a_split_recording_is_read_through_all_its_parts(tmp_path: Path, read: Any) -> None:
    data = microvolts("long", 300.0)
    raw_of(data).save(tmp_path / "S1_raw.fif", fmt="double", split_size="2MB", verbose="ERROR")
    parts = [{"path": str(path)} for path in sorted(tmp_path.glob("S1_raw-*.fif"))]
    assert parts
    assert all(belongs_to(Path(part["path"]).name, "S1_raw.fif") for part in parts)
    rows = [("S1_raw.fif", "audio1", 3.0), ("S1_raw.fif", "audio2", 285.0)]
    config = raw_config(tmp_path, rows)["raw"]["files"]
    whole = [{**config[0], "companions": parts}]
    result, arrays, _ = read(tmp_path, rows, files=whole)
    assert result.failure is None
    assert sorted(arrays) == ["audio1/0", "audio2/0"]


def test_a_split_recording_without_a_part_is_named(tmp_path: Path, read: Any) -> None:
    raw_of(microvolts("long", 300.0)).save(tmp_path / "S1_raw.fif", fmt="double", split_size="2MB", verbose="ERROR")
    (tmp_path / "S1_raw-1.fif").unlink()
    result, _, _ = read(tmp_path, [("S1_raw.fif", "audio1", 3.0)])
    assert "S1_raw-1.fif" in (result.failure or "")


def test_positions_are_brought_to_the_sphere() -> None:
    cap = biosemi_64()
    assert cap.positions is not None
    moved = 1000 * cap.positions + np.array([3.0, -8.0, 40.0])
    np.testing.assert_allclose(on_sphere(moved), cap.positions, atol=1e-6)
    flat = np.column_stack([np.arange(9.0), np.arange(9.0) ** 2, np.zeros(9)])
    assert np.isfinite(on_sphere(flat)).all()
    known = standard_positions(("AFF1h", "Cz", "t9"))
    assert known is not None
    np.testing.assert_allclose(np.linalg.norm(known, axis=1), 0.095, atol=0.012)
    assert standard_positions(("Cz", "EXG1")) is None


def test_onsets_are_those_of_the_material() -> None:
    assert [row[2] for row in TABLE] == list(ONSETS_S.values())


def test_tables_are_read_with_commas_or_tabs() -> None:
    text = "subject,file,recording,onset_s,duration_s,repetition\nS1,a/b.fif,x.wav,1.5,,\nS2,c.fif,y,0,3.5,2\n"
    for content in (text, text.replace(",", "\t").replace("\t\t\n", "\tn/a\tn/a\n")):
        found = read_events("e", content.encode())
        assert {name: len(rows) for name, rows in found.items()} == {"S1": 1, "S2": 1}
        assert found["S1"][0].model_dump() == {
            "file": "a/b.fif",
            "recording": "x.wav",
            "onset_s": 1.5,
            "duration_s": None,
            "repetition": None,
        }
        assert (found["S2"][0].duration_s, found["S2"][0].repetition) == (3.5, 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("S 1,a.fif,x,1", r"row 2: subject 'S 1'"),
        ("canary-x,a.fif,x,1", "not begin with canary"),
        ("S1,../a.fif,x,1", "within eeg.raw.path"),
        ("S1,/a.fif,x,1", "within eeg.raw.path"),
        ("S1,a.fif,,1", "recording is empty"),
        ("S1,a.fif,x,-1", "onset_s '-1' must be 0 or more"),
        ("S1,a.fif,x,", "onset_s '' must be 0 or more"),
        ('S1,a.fif,x,"1,5"', "onset_s '1,5' must be a number"),
        ("S1,a.fif,x,nan_", "must be a number"),
        ("S1,a.fif,x,1,0", "duration_s '0' must be above 0"),
        ("S1,a.fif,x,1,2,0", "repetition '0' must be 1, 2"),
        ("S1,a.fif,x,1,2,1.5", "repetition '1.5' must be 1, 2"),
    ],
)
def test_rows_that_mean_nothing_are_refused_by_number(row: str, reason: str) -> None:
    head = "subject,file,recording,onset_s,duration_s,repetition\nS0,a.fif,x,0\n"
    with pytest.raises(TaskError, match=reason):
        read_events("events.csv", f"{head}{row}\n".encode())


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"subject,file,recording,onset_s\n", b"\xff\xfe\x00"])
def test_what_is_no_table_of_events_is_refused(content: bytes) -> None:
    with pytest.raises(TaskError, match=r"events\.csv: (the columns must be|not a csv)"):
        read_events("events.csv", content)


@pytest.mark.parametrize(
    ("file", "beside", "yes"),
    [
        ("a/S1.vhdr", "a/S1.eeg", True),
        ("a/S1.vhdr", "a/S1.vmrk", True),
        ("a/S1.vhdr", "b/S1.eeg", False),
        ("a/S1.vhdr", "a/S10.eeg", False),
        ("S1.set", "S1.fdt", True),
        ("S1.bdf", "S1.fdt", False),
        ("S1_raw.fif", "S1_raw-1.fif", True),
        ("S1_raw.fif", "S1_raw-ave.fif", False),
        ("S1_split-01_eeg.fif", "S1_split-02_eeg.fif", True),
        ("S1_split-01_eeg.fif", "S1_split-01_eeg.fif", False),
    ],
)
def test_the_parts_of_a_recording_belong_together(file: str, beside: str, yes: bool) -> None:
    assert belongs_to(beside, file) is yes
