"""BIDS data sets: what was heard comes from events.tsv, recordings come as mne-bids reads them, faults are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bids_material import ROWS, bids_config, eeg_raw, meg_raw, write_bids, write_events
from eeg_material import DURATIONS_S, MakeCell
from raw_material import FS, NAMES
from safetensors.numpy import load_file
from test_eeg_cnd import open_file

from tasks.audio.recording import recordings
from tasks.contract import Artefact, Context, TaskError
from tasks.eeg.bids import BidsFiles, read_bids_subject
from tasks.eeg.config import EegConfig, PreprocessingConfig
from tasks.eeg.montage import biosemi_64
from tasks.eeg.pairing import by_path
from tasks.eeg.recordings import run
from tasks.eeg.source_config import BidsConfig
from tasks.eeg.trials import Subject

EEG = "sub-01/eeg/sub-01_task-listen"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bids")
    write_events(write_bids(root, eeg_raw("S1"), "01"))
    write_events(write_bids(root, meg_raw(), "02", session="a"))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "set"))


Read = Callable[..., Subject]


@pytest.fixture
def read(corpus: Artefact) -> Read:
    def subject(root: Path, name: str = "sub-01", **more: str) -> Subject:
        config = bids_config(root, name, **more)["bids"]
        for file in (file for one in config["recordings"] for file in one["files"]):
            file["path"] = f"store:/{file['path']}"  # so that nothing is found but by opening it
        stimuli, files = recordings(corpus), BidsFiles.of_signed(config)
        return read_bids_subject(files, stimuli, True, lambda path: Path(path.removeprefix("store:/")).open("rb"))

    return subject


def test_a_subject_is_cleaned_as_from_any_other_file(made: Path, corpus: Artefact, make_cell: MakeCell) -> None:
    cell = make_cell("bids", "eeg", bids_config(made, "sub-01"), corpus=corpus)
    (result,) = run([cell], Context())
    assert result.failure is None
    arrays = load_file(cell.out_dir / "eeg.safetensors")
    table = json.loads((cell.out_dir / "eeg.json").read_text())
    assert (table["channels"], table["bads"], table["simulated"]) == (list(NAMES), ["Pz"], False)
    assert table["other_channels"] == {"eog": ["VEOG"]}
    assert {trial["key"]: trial["bad_spans"] for trial in table["trials"]} == {
        "audio1/0": [[2.0, 3.0, "BAD_moved"]],
        "audio2/0": [],
        "audio10/0": [],
    }
    assert f"{EEG}_eeg.vhdr: 2 of 5 rows of its events have no stim_file" in result.metrics["skipped"]
    cap = biosemi_64()
    assert cap.positions is not None
    expected = np.array([cap.positions[cap.names.index(name)] for name in NAMES])
    np.testing.assert_allclose(table["positions"], expected, atol=4e-3)
    for key, seconds in DURATIONS_S.items():
        n = int(seconds * 44_100) * 64 // 44_100
        wave = np.sin(2 * np.pi * 4 * np.arange(n) / 64)
        assert arrays[f"{key}/0"].shape == (n, len(NAMES))
        assert np.corrcoef(arrays[f"{key}/0"][64:-64, -1], wave[64:-64])[0, 1] > 0.98


def test_eye_movements_go_with_their_trial(made: Path, read: Read) -> None:
    raw = eeg_raw("S1")
    for trial, (onset_s, _, name) in zip(read(made).trials, ROWS, strict=True):
        assert trial.recording == Path(name).stem
        assert trial.eog_names == ("VEOG",)
        assert trial.eog is not None
        first = round(onset_s * FS) - trial.start_sample
        recorded = raw.get_data(["VEOG"], first, first + trial.data.shape[1])
        np.testing.assert_allclose(trial.eog, recorded, atol=1e-7)


@pytest.mark.parametrize("kind", ["mag", "grad"])
def test_meg_comes_by_type_in_head_coordinates(made: Path, read: Read, kind: str) -> None:
    found, raw = read(made, "sub-02", sensor_type=kind), meg_raw()
    names = [name for name, has in zip(raw.ch_names, raw.get_channel_types(), strict=True) if has == kind]
    assert (list(found.sensors.names), found.sensors.kind) == (names, kind)
    assert found.sensors.positions is not None
    assert {tuple(np.round(place, 6)) for place in found.sensors.positions} == {(-0.05, 0.06, 0.13), (0.05, 0.06, 0.13)}
    assert found.sensors.for_splines.positions is None
    for trial, (onset_s, _, _) in zip(found.trials, ROWS, strict=True):
        first = round(onset_s * FS) - trial.start_sample
        recorded = raw.get_data(names, first, first + trial.data.shape[1])
        np.testing.assert_allclose(trial.data, recorded, rtol=1e-5, atol=1e-16)
    assert found.trials[0].bad_spans == ((1.0, 3.0, "BAD_jump"),)
    with pytest.raises(TaskError, match=r"it has no EEG channels \(it has: 2 mag, 4 grad\)"):
        read(made, "sub-02")


def test_bad_channels_of_meg_are_removed_not_interpolated(made: Path, corpus: Artefact, make_cell: MakeCell) -> None:
    cell = make_cell("grad", "eeg", bids_config(made, "sub-02", "grad"), corpus=corpus)
    (result,) = run([cell], Context())
    assert result.failure is None
    table = json.loads((cell.out_dir / "eeg.json").read_text())
    assert table["removed"] == table["bads"] == ["MEG0122"]
    assert table["channels"] == ["MEG0112", "MEG0113", "MEG0123"]
    assert table["positions"] is None
    assert "planar gradiometers lie in pairs at one place: there is no scalp map of them" in result.metrics["skipped"]


def test_what_a_recording_inherits_counts(root: Path, read: Read) -> None:
    (root / f"{EEG}_channels.tsv").rename(root / "task-listen_channels.tsv")
    (root / f"{EEG}_events.tsv").rename(root / "sub-01/sub-01_events.tsv")
    found = read(root)
    assert [trial.marked_bads for trial in found.trials] == [("Pz",)] * 3
    nearer = (root / "task-listen_channels.tsv").read_text(encoding="utf-8-sig").replace("\tbad", "\tgood")
    (root / f"{EEG}_channels.tsv").write_text(nearer, encoding="utf-8")
    assert [trial.marked_bads for trial in read(root).trials] == [()] * 3


def test_runs_are_repetitions_in_their_order(tmp_path: Path, read: Read) -> None:
    for label, onset_s in (("10", 5.0), ("2", 3.0)):
        path = write_bids(tmp_path, eeg_raw(label), "01", run=label)
        write_events(path, ((onset_s, 12.0, "audio1.wav"), (31.0, 0, "audio10.wav"), (31.5, 0, "audio10.wav")))
    found = read(tmp_path)
    assert [(t.key, t.original_position, t.name) for t in found.trials] == [
        ("audio1/0", 1, f"{EEG}_run-2_eeg.vhdr at 3 s"),
        ("audio10/0", 2, f"{EEG}_run-2_eeg.vhdr at 31 s"),
        ("audio1/1", 3, f"{EEG}_run-10_eeg.vhdr at 5 s"),
        ("audio10/1", 4, f"{EEG}_run-10_eeg.vhdr at 31 s"),
    ]
    said = [str(part) for part in found.skipped]
    assert f"{EEG}_run-2_eeg.vhdr: 1 row(s) name audio10.wav while it is playing; they begin nothing" in said
    assert "the stimulus audio2 has no trial" in said


def test_bad_spans_of_the_file_itself_are_kept(root: Path, read: Read) -> None:
    folder = root / "sub-02/ses-a/meg"
    table = folder / "sub-02_ses-a_task-listen_events.tsv"
    table.write_text(table.read_text().replace("BAD_jump", "jump"))
    assert read(root, "sub-02", sensor_type="mag").trials[0].bad_spans == ((1.0, 3.0, "BAD_jump"),)


def test_positions_that_are_not_tied_to_the_head_are_not_taken(root: Path, read: Read) -> None:
    path = root / "sub-01/eeg/sub-01_space-CapTrak_coordsystem.json"
    system = json.loads(path.read_text(encoding="utf-8-sig"))
    path.write_text(json.dumps({**system, "EEGCoordinateSystem": "Other"}))
    table = root / "sub-01/eeg/sub-01_space-CapTrak_electrodes.tsv"
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    turned = [[name, y, x, z, *more] for name, x, y, z, *more in (line.split("\t") for line in lines[1:])]
    table.write_text("\n".join([lines[0], *("\t".join(row) for row in turned)]) + "\n")
    positions = read(root).sensors.positions
    cap = biosemi_64()
    assert positions is not None
    assert cap.positions is not None
    np.testing.assert_array_equal(positions[NAMES.index("Fz")], cap.positions[cap.names.index("Fz")])


def edited(name: str, before: str, after: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        text = (root / name).read_text(encoding="utf-8-sig")
        assert before in text
        (root / name).write_text(text.replace(before, after), encoding="utf-8")

    return edit


def as_edf_too(root: Path) -> None:
    shutil.copy(root / f"{EEG}_eeg.eeg", root / f"{EEG}_eeg.edf")


EVENTS = f"{EEG}_events.tsv"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda root: (root / EVENTS).unlink(), "it has no events.tsv, so what was heard when is unknown"),
        (
            edited(EVENTS, "stim_file", "sound"),
            "it has no column stim_file (it has: onset, duration, trial_type, sound)",
        ),
        (edited(EVENTS, "tunes/", "n/a"), "which is not among the stimuli"),
        (as_edf_too, f"is there 2 times ({EEG}_eeg.edf, {EEG}_eeg.vhdr); keep one of them"),
        (lambda root: (root / f"{EEG}_eeg.eeg").unlink(), "no file that MNE reads"),
        (
            edited(f"{EEG}_channels.tsv", "Fz\t", "Fx\t"),
            "mne-bids can't read it with its tables (RuntimeError: Channel",
        ),
    ],
)
def test_a_recording_of_no_use_says_why(root: Path, read: Read, spoil: Callable[[Path], None], sentence: str) -> None:
    spoil(root)
    with pytest.raises(TaskError) as caught:
        read(root)
    assert sentence in str(caught.value)
    assert f"{EEG}_eeg" in str(caught.value)


def test_a_row_of_no_use_costs_only_itself(root: Path, read: Read) -> None:
    edited(EVENTS, "18.5\t10.0", "n/a\t10.0")(root)
    edited(EVENTS, "3.0\t12.0", "3.0\t2.0")(root)
    found = read(root)
    assert [trial.recording for trial in found.trials] == ["audio10"]
    said = " | ".join(str(part) for part in found.skipped)
    assert f"{EEG}_eeg.vhdr, row 4 of its events (tunes/audio2.wav): onset 'n/a' must be a number of seconds" in said
    assert "lasted 2.0 s by the table of events, but audio1 ends at 12.0 s" in said


def test_stimuli_are_known_by_path_where_names_are_the_same(corpus: Artefact) -> None:
    first, second, third = recordings(corpus)
    same = [
        replace(first, path="heard/fast/tune.wav", file=None),
        replace(second, path="heard/slow/tune.wav", file=None),
        third,
    ]
    assert by_path("slow/tune.wav", same) is same[1]
    assert by_path("stimuli/audio10.mp3", same) is third
    assert by_path("nothing.wav", same) is None
    assert "may be any of heard/fast/tune.wav, heard/slow/tune.wav" in str(by_path("tune.wav", same))


def test_a_row_within_what_was_heard_begins_nothing_where_we_have_a_part_of_it(
    tmp_path: Path, corpus: Artefact
) -> None:
    path = write_bids(tmp_path, eeg_raw("S1"), "01")
    write_events(path, ((3.0, 12.0, "audio1.wav"), (10.0, 0, "audio1.wav")))
    files = BidsFiles.of_signed(bids_config(tmp_path, "sub-01")["bids"])
    parts = [replace(one, start_sample=44_100, n_samples=2 * 44_100) for one in recordings(corpus)]
    found = read_bids_subject(files, parts, False, open_file)
    assert [(trial.key, trial.name) for trial in found.trials] == [("audio1/0", f"{EEG}_eeg.vhdr at 3 s")]


def test_meg_goes_without_reference() -> None:
    bids = BidsConfig(path="set", task="listen", sensor_type="mag")
    with pytest.raises(
        ValueError, match=r"bids\.sensor_type: mag is MEG, which has no reference: preprocessing.reference"
    ):
        EegConfig(bids=bids)
    plain = PreprocessingConfig(reference="none")
    assert EegConfig(bids=bids, preprocessing=plain).bids == bids
    with pytest.raises(
        ValueError, match=r"preprocessing\.bad_channels\.against: neighbours are those of EEG electrodes"
    ):
        EegConfig(
            bids=bids, preprocessing=PreprocessingConfig(reference="none", bad_channels={"against": "neighbours"})
        )
    with pytest.raises(ValueError, match="simulation, cnd, raw, bids: exactly one of them"):
        EegConfig()
