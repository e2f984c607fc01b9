"""CND files: the layout is read as documented, and whatever is wrong with one is said and left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import pytest
import scipy.io
from eeg_material import DURATIONS_S

from tasks.audio.recording import recordings
from tasks.contract import Artefact, TaskError
from tasks.eeg.cnd import Subject, read_subject
from tasks.eeg.montage import biosemi_64

FS = 512
PADDING = 512
ORDER = ("audio1", "audio2", "audio10")
SAMPLES = Path(__file__).parents[3] / "shared/data/cnd"


def open_file(name: str) -> BinaryIO:
    return Path(name).open("rb")


def cells(items: list[Any]) -> np.ndarray:
    cell = np.empty((1, len(items)), dtype=object)
    for place, item in enumerate(items):
        cell[0, place] = item
    return cell


def eeg_of(number: int, seconds: float) -> np.ndarray:
    """Samples x 66 channels; the padding is marked by zeros in the first channel."""
    data = np.random.default_rng(number).normal(size=(PADDING + int(seconds * FS) + 100, 66))
    data[:PADDING, 0] = 0
    return data


def subject_struct(repetitions: int = 2) -> dict[str, Any]:
    trials = [eeg_of(k, DURATIONS_S[ORDER[k % 3]]) for k in range(3 * repetitions)]
    cap = biosemi_64()
    assert cap.positions is not None
    x, y, z = cap.positions.T / 0.095
    chanlocs = [{"labels": n, "X": y[k], "Y": -x[k], "Z": z[k]} for k, n in enumerate(cap.names)]
    return {
        "dataType": "EEG",
        "deviceName": "BioSemi",
        "fs": float(FS),
        "data": cells([trial[:, :64] for trial in trials]),
        "chanlocs": np.array([[tuple(c.values()) for c in chanlocs]], dtype=[(key, object) for key in chanlocs[0]]),
        "extChan": cells([{"description": "Mastoids", "data": cells([trial[:, 64:] for trial in trials])}]),
        "paddingStartSample": float(PADDING),
        "origTrialPosition": np.zeros((0, 0)),
    }


def write_subject(folder: Path, struct: dict[str, Any]) -> str:
    path = folder / "dataSub1.mat"
    scipy.io.savemat(path, {"eeg": struct})
    return str(path)


def write_stimuli(folder: Path, order: tuple[str, ...] = ORDER * 2) -> str:
    features = [[np.zeros((int(DURATIONS_S[name] * 64), 1)) for name in order] for _ in range(3)]
    data = np.empty((3, len(order)), dtype=object)
    for row, listed in enumerate(features):
        for column, item in enumerate(listed):
            data[row, column] = item
    path = folder / "dataStim.mat"
    scipy.io.savemat(path, {"stim": {"names": cells(["Envelope", "Onsets", "Pitch"]), "fs": 64.0, "data": data}})
    return str(path)


def read(
    corpus: Artefact, path: str, stimulus: str | None = None, table: str | None = None, whole: bool = True
) -> Subject:
    return read_subject(path, stimulus, table, recordings(corpus), whole, open_file)


def test_layout_is_read(tmp_path: Path, corpus: Artefact) -> None:
    found = read(corpus, write_subject(tmp_path, subject_struct()), write_stimuli(tmp_path))
    assert found.skipped == []
    assert [(t.recording, t.repetition) for t in found.trials] == [(n, r) for r in (0, 1) for n in ORDER]
    last = found.trials[5]
    assert (last.sample_rate_hz, last.start_sample, last.duration_s) == (FS, PADDING, pytest.approx(11.03))
    np.testing.assert_array_equal(last.data, eeg_of(5, 11.03)[:, :64].T)
    np.testing.assert_array_equal(last.mastoids, eeg_of(5, 11.03)[:, 64:].T)
    assert found.sensors.names == biosemi_64().names
    np.testing.assert_allclose(found.sensors.positions, biosemi_64().positions, atol=1e-12)


def test_audio_recordings_follow_natural_order(tmp_path: Path, corpus: Artefact) -> None:
    """The corpus lists audio1, audio2, audio10; by letters audio10 would come before audio2."""
    found = read(corpus, write_subject(tmp_path, subject_struct(1)))
    assert [trial.recording for trial in found.trials] == ["audio1", "audio2", "audio10"]


def test_version_7_3_is_read_alike(tmp_path: Path, corpus: Artefact) -> None:
    path = tmp_path / "dataSub1.mat"
    trials = [eeg_of(k, DURATIONS_S[ORDER[k]])[:, :64] for k in range(3)]
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("eeg")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for name, value in (("fs", FS), ("paddingStartSample", PADDING)):
            group.create_dataset(name, data=[[float(value)]]).attrs["MATLAB_class"] = np.bytes_("double")
        references = group.create_dataset("data", (3, 1), dtype=h5py.ref_dtype)
        references.attrs["MATLAB_class"] = np.bytes_("cell")
        for k, trial in enumerate(trials):
            stored = file.create_dataset(f"#refs#/{k}", data=trial.T)
            stored.attrs["MATLAB_class"] = np.bytes_("double")
            references[k, 0] = stored.ref
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, written by a test".ljust(124) + b"\x00\x02IM")
    found = read(corpus, str(path))
    assert [trial.recording for trial in found.trials] == list(ORDER)
    np.testing.assert_array_equal(found.trials[2].data, trials[2].T)
    np.testing.assert_allclose(found.sensors.positions, biosemi_64().positions)


def test_table_of_trials_pairs_by_file_name_stem_or_id(tmp_path: Path, corpus: Artefact) -> None:
    table = tmp_path / "trials.csv"
    table.write_text("trial,recording\n1,audio10.flac\n2,audio1\n3,audio2.wav\n4,unknown.wav\n9,audio1\n")
    struct = subject_struct()
    struct["data"][0, 0] = eeg_of(0, 13.0)[:, :64]
    found = read(corpus, write_subject(tmp_path, struct), table=str(table))
    assert [trial.recording for trial in found.trials] == ["audio10", "audio1", "audio2"]
    reasons = {part.trial: part.reason for part in found.skipped}
    assert "unknown.wav" in reasons["4"]
    assert "no row" in reasons["5"]
    assert "6 trials" in reasons["9"]


def test_a_stimulus_without_a_trial_is_named(tmp_path: Path, corpus: Artefact) -> None:
    table = tmp_path / "trials.csv"
    table.write_text("trial,recording\n1,audio1\n2,audio2\n3,audio1\n4,audio2\n5,audio1\n6,audio2\n")
    found = read(corpus, write_subject(tmp_path, subject_struct()), table=str(table))
    assert [part.reason for part in found.skipped] == ["the stimulus audio10 has no trial"]
    assert [trial.repetition for trial in found.trials] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,audio1\n", "columns"),
        ("trial,recording\nx,audio1\n", "'x'"),
        ("trial,recording\n1,a\n1,b\n", "once"),
        ("trial;recording\n1;audio1\n", r"found: columns trial;recording and 1 row"),
        ("trial,recording\n", "found: columns trial, recording and 0 row"),
        ("", "found: nothing"),
        ("trial,recording\n1,audio1\n\u00b2,audio2\n", "row 2: trial '\u00b2'"),
        ("trial,recording\n1,audio1\n,audio2\n", "row 2: trial ''"),
        ("trial,recording\n-1,audio1\n", "row 1: trial '-1'"),
    ],
)
def test_broken_tables_are_refused(tmp_path: Path, corpus: Artefact, text: str, reason: str) -> None:
    table = tmp_path / "trials.csv"
    table.write_text(text)
    with pytest.raises(TaskError, match=reason):
        read(corpus, write_subject(tmp_path, subject_struct()), table=str(table))


def test_number_of_trials_must_fit_without_a_table(tmp_path: Path, corpus: Artefact) -> None:
    struct = subject_struct()
    struct["data"] = struct["data"][:, :5]
    with pytest.raises(TaskError, match=r"dataSub1\.mat: 5 trials are not a multiple of 3 stimuli.*csv"):
        read(corpus, write_subject(tmp_path, struct))


def test_wrong_pairing_shows_in_the_durations(tmp_path: Path, corpus: Artefact) -> None:
    path = write_subject(tmp_path, subject_struct())
    data = np.empty((1, 6), dtype=object)
    for place, seconds in enumerate((13.9, 10.0, 11.03, 12.0, 10.0, 20.0)):  # the last one belongs to 11.03 s of audio
        data[0, place] = np.zeros((int(seconds * 64), 1))
    stimulus = tmp_path / "dataStim.mat"
    scipy.io.savemat(stimulus, {"stim": {"fs": 64.0, "data": data}})
    found = read(corpus, path, str(stimulus))
    assert [part.trial for part in found.skipped] == ["6"]
    assert "wrong recording" in found.skipped[0].reason
    assert len(read(corpus, path, str(stimulus), whole=False).trials) == 6


def test_files_with_different_numbers_of_trials_are_named(tmp_path: Path, corpus: Artefact) -> None:
    found = read(corpus, write_subject(tmp_path, subject_struct()), write_stimuli(tmp_path, ORDER))
    assert [part.reason for part in found.skipped] == ["3 trials in the stimulus file, 6 in the subject's"]
    assert len(found.trials) == 6


@pytest.mark.parametrize("rate", [None, float("nan"), 0.0, -1.0])
def test_a_missing_sampling_rate_is_refused(tmp_path: Path, corpus: Artefact, rate: float | None) -> None:
    struct = subject_struct()
    if rate is None:
        del struct["fs"]
    else:
        struct["fs"] = rate
    with pytest.raises(TaskError, match=r"dataSub1\.mat: eeg\.fs"):
        read(corpus, write_subject(tmp_path, struct))


def test_files_that_are_not_cnd_are_refused(tmp_path: Path, corpus: Artefact) -> None:
    path = tmp_path / "x.mat"
    with pytest.raises(TaskError, match="no such file"):
        read(corpus, str(path))
    path.write_bytes(b"trial,recording\n")
    with pytest.raises(TaskError, match="not a MATLAB file"):
        read(corpus, str(path))
    scipy.io.savemat(path, {"other": 1.0})
    with pytest.raises(TaskError, match=r"no struct named eeg \(it has: other\)"):
        read(corpus, str(path))
    scipy.io.savemat(path, {"eeg": {"fs": 512.0}})
    with pytest.raises(TaskError, match="no trials"):
        read(corpus, str(path))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, corpus: Artefact, share: float) -> None:
    path = Path(write_subject(tmp_path, subject_struct(1)))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(TaskError, match="truncated or damaged"):
        read(corpus, str(path))


def test_trials_of_another_shape_are_named(tmp_path: Path, corpus: Artefact) -> None:
    struct = subject_struct()
    struct["data"][0, 1] = struct["data"][0, 1][:, :60]
    struct["data"][0, 2] = np.zeros((0, 0))
    found = read(corpus, write_subject(tmp_path, struct))
    assert len(found.trials) == 4
    reasons = {part.trial: part.reason for part in found.skipped}
    assert "60 channels" in reasons["2"]
    assert "empty" in reasons["3"]


def test_parts_of_recordings_start_where_the_part_does(tmp_path: Path, corpus: Artefact) -> None:
    stimuli = [replace(one, start_sample=44_100 * 8, n_samples=44_100 * 2) for one in recordings(corpus)]
    path = write_subject(tmp_path, subject_struct(1))
    found = read_subject(path, None, None, stimuli, False, open_file)
    assert [trial.start_sample for trial in found.trials] == [PADDING + 8 * FS] * 3


@pytest.mark.skipif(not SAMPLES.exists(), reason="the sample files of the CND format are not on this machine")
def test_sample_of_another_library_is_read(corpus: Artefact) -> None:
    stimuli = [replace(one, n_samples=44_100 * 11 // 128) for one in recordings(corpus)[:2]]
    found = read_subject(
        str(SAMPLES / "dataSub1.mat"),
        str(SAMPLES / "dataStim.mat"),
        None,
        stimuli,
        True,
        open_file,
    )
    assert len(found.trials) == 20
    assert found.skipped == []
    assert found.trials[0].data.shape == (4, 11)
    assert found.trials[0].mastoids is not None
    assert found.trials[0].mastoids.shape == (2, 11)
    assert found.sensors.names == ("A1", "A2", "A3", "A4")
    # its first electrode is the vertex
    assert found.sensors.positions is not None
    np.testing.assert_allclose(found.sensors.positions[0], [0, 0, 0.095], atol=1e-4)


def test_a_table_that_is_no_text_or_no_file_is_refused(tmp_path: Path, corpus: Artefact) -> None:
    path, table = write_subject(tmp_path, subject_struct()), tmp_path / "trials.csv"
    with pytest.raises(TaskError, match=r"trials\.csv: can't be opened \(No such file"):
        read(corpus, path, table=str(table))
    table.write_bytes(b"\xff\xfet\x00r\x00")
    with pytest.raises(TaskError, match=r"trials\.csv: not a csv file in UTF-8"):
        read(corpus, path, table=str(table))
    with pytest.raises(TaskError, match="can't be opened"):
        read(corpus, path, table=str(tmp_path))


def test_a_misspelt_recording_gets_the_nearest_spelling(tmp_path: Path, corpus: Artefact) -> None:
    table = tmp_path / "trials.csv"
    table.write_text("trial,recording\n1,audoi1.flac\n2,audio2\n")
    found = read(corpus, write_subject(tmp_path, subject_struct()), table=str(table))
    assert str(found.skipped[0]) == (
        "trial 1: heard audoi1.flac, which is not among the stimuli; did you mean audio1.flac?"
    )


def test_a_trial_that_is_no_matrix_of_numbers_is_named(tmp_path: Path, corpus: Artefact) -> None:
    struct = subject_struct(1)
    struct["data"][0, 1] = "a word"
    found = read(corpus, write_subject(tmp_path, struct))
    assert [trial.recording for trial in found.trials] == ["audio1", "audio10"]
    assert [str(part) for part in found.skipped] == [
        "trial 2 (audio2): is empty, or no matrix of numbers (samples x channels)"
    ]
    for wrong in ("words", cells(["a", "b", "c"]), np.zeros((0, 0))):
        with pytest.raises(TaskError, match=r"dataSub1\.mat: not a CND file"):
            read(corpus, write_subject(tmp_path, {**struct, "data": wrong}))


@pytest.mark.parametrize("padding", [-3.0, float("nan"), float("inf")])
def test_impossible_padding_is_refused(tmp_path: Path, corpus: Artefact, padding: float) -> None:
    path = write_subject(tmp_path, {**subject_struct(1), "paddingStartSample": padding})
    with pytest.raises(TaskError, match=r"dataSub1\.mat: eeg\.paddingStartSample is (-3|nan|inf)"):
        read(corpus, path)


def test_what_is_called_by_something_else_is_no_reference(tmp_path: Path, corpus: Artefact) -> None:
    struct = subject_struct(repetitions=1)
    external = [eeg_of(k, DURATIONS_S[name])[:, 60:63] for k, name in enumerate(ORDER)]
    for labels, expected in ((("ECG", "GSR1", "Resp"), None), (("ECG", "EXG1", "EXG2"), slice(1, 3))):
        located = np.array([[(label,) for label in labels]], dtype=[("labels", object)])
        struct["extChan"] = cells([{"description": "external", "chanlocs": located, "data": cells(external)}])
        scipy.io.savemat(tmp_path / "dataSub1.mat", {"eeg": struct})
        found = read_subject(str(tmp_path / "dataSub1.mat"), None, None, recordings(corpus), True, open_file)
        for trial, recorded in zip(found.trials, external, strict=True):
            assert (trial.mastoids is None) == (expected is None)
            if expected is not None:
                np.testing.assert_array_equal(trial.mastoids, recorded[:, expected].T)


def test_external_channels_are_known_by_what_they_are_called(tmp_path: Path, corpus: Artefact) -> None:
    struct = subject_struct(repetitions=1)
    external = [eeg_of(k, DURATIONS_S[name])[:, 60:65] for k, name in enumerate(ORDER)]
    located = np.array([[("VEOG",), ("M1",)]], dtype=[("labels", object)])
    eyes = {"description": "Eyes", "chanlocs": located, "data": cells([trial[:, :2] for trial in external])}
    ears = {"description": "Mastoids", "data": cells([trial[:, 2:4] for trial in external])}
    more = {"description": "EOG", "data": cells([trial[:, 4:] for trial in external])}
    struct["extChan"] = cells([eyes, ears, more])
    scipy.io.savemat(tmp_path / "dataSub1.mat", {"eeg": struct})
    found = read_subject(str(tmp_path / "dataSub1.mat"), None, None, recordings(corpus), True, open_file)
    assert found.other_channels == {"Eyes": ("VEOG", "M1"), "Mastoids": ("1", "2"), "EOG": ("1",)}
    for trial, recorded in zip(found.trials, external, strict=True):
        assert trial.mastoids is not None
        assert trial.eog is not None
        assert trial.eog_names == ("VEOG", "EOG 1")
        np.testing.assert_array_equal(trial.mastoids, recorded[:, 2:4].T)
        np.testing.assert_array_equal(trial.eog, recorded[:, [0, 4]].T)
