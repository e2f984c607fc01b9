"""`orchestrator data inspect` and `data check`: what they say of data sets with known contents and known lags."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import soundfile
from eeg_material import DURATIONS_S, RATE, sound_of
from raw_material import NAMES, microvolts, raw_of, write_brainvision, write_fif
from test_eeg_cnd import ORDER, SAMPLES, cells, open_file, subject_struct, write_stimuli
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.verbs.data_picture import flat
from tasks.eeg.features import envelope
from tasks.eeg.shipped import compared, lag_between, read_shipped

FS = 64


def said(*arguments: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, ["data", *arguments])
    assert found.exit_code == code, found.output
    return found.output


def shipped_file(folder: Path, moved: dict[str, int] | None = None, repetitions: int = 2) -> None:
    """A stimulus file with the envelopes of the sound itself, some of them moved by samples (above 0: later)."""
    series = {name: np.roll(envelope(sound_of(name), FS), (moved or {}).get(name, 0)) for name in ORDER}
    order = ORDER * repetitions
    data = np.empty((2, len(order)), dtype=object)
    for column, name in enumerate(order):
        data[0, column] = np.ones((series[name].size, 1)) * column
        data[1, column] = series[name][:, None]
    folder.mkdir(exist_ok=True)
    scipy.io.savemat(
        folder / "dataStim.mat", {"stim": {"names": cells(["Onsets", "Envelope"]), "fs": float(FS), "data": data}}
    )


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("audio")
    for name in DURATIONS_S:
        soundfile.write(folder / f"{name}.wav", sound_of(name), RATE)
    return str(folder)


def test_inspect_of_a_cnd_folder(tmp_path: Path) -> None:
    shipped_file(tmp_path)
    third = {**subject_struct(), "origTrialPosition": np.arange(6.0, 0, -1)}
    for number, struct in {1: subject_struct(), 3: third}.items():
        if number == 3:
            struct["data"][0, 1] = np.zeros((0, 0))
            struct["data"][0, 2] = struct["data"][0, 2][:, :60]
            del struct["extChan"], struct["paddingStartSample"]
        scipy.io.savemat(tmp_path / f"dataSub{number}.mat", {"eeg": struct})
    (tmp_path / "dataSub4.mat").write_bytes(b"MATLAB 5.0 and no more")
    picture = tmp_path / "montage.png"
    text = said("inspect", str(tmp_path), "--out", str(picture))
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith("dataSub")}
    assert lines["dataSub1"] == ["6", "3", "2", "10.2-12.2", "512", "64", "yes", "?"]
    assert lines["dataSub3"][:3] == ["6", "3", "2"]
    assert lines["dataSub3"][-1] == "shuffled"
    for words in (
        "stimuli: 6 trials of 3 pieces, Onsets, Envelope at 64 Hz",
        "other channels (1 of 3 subjects): Mastoids: 1 2",
        "start padding: 1 s",
        "  dataSub2.mat\n",
        "dataSub1: no order of presentation",
        "dataSub3: trial 2: is empty",
        "dataSub3: trial 3: has 60 channels, most trials have 64",
        "dataSub3: no external channels (eeg.extChan)",
        "dataSub4.mat: truncated or damaged",
    ):
        assert words in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    content = json.loads(said("inspect", str(tmp_path), "--json"))
    assert content["stimuli"]["piece_of_trial"] == [1, 2, 3, 1, 2, 3]
    assert content["subjects"][1]["original_order"] == [6, 5, 4, 3, 2, 1]
    assert np.shape(content["subjects"][0]["positions"]) == (64, 3)


def test_inspect_of_raw_files(tmp_path: Path) -> None:
    raw = raw_of(microvolts("S1"))
    raw.info["bads"] = ["Pz"]
    write_fif(tmp_path / "S1.fif", raw)
    write_brainvision(tmp_path / "S2.vhdr", microvolts("S2"))
    table = tmp_path / "events.tsv"
    rows = ["S1.fif\taudio1\t3\t12", "S1.fif\taudio1\t18\t12", "S1.fif\taudio2\t60\t10"]
    table.write_text("subject\tfile\trecording\tonset_s\tduration_s\n" + "".join(f"S1\t{row}\n" for row in rows))
    text = said("inspect", str(tmp_path), "--events", str(table))
    line = next(line for line in text.splitlines() if line.startswith("S1 "))
    assert line.split() == ["S1", "3", "2", "1-2", "12.0", "128", "10", "yes", "as", "listed"]
    assert f"channels (all subjects): {' '.join(NAMES)}" in text
    assert "marked bad (S1): Pz" in text
    assert "S1: S1.fif: audio2 at 60 s, but it ends at 45 s" in text
    assert "S2.vhdr: the table of events doesn't name it" in text
    alone = said("inspect", str(tmp_path))
    names = [line.split()[0] for line in alone.splitlines() if line.startswith("S")]
    assert names == ["S1.fif", "S2.vhdr"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inspect", "{}/nowhere"), "no such folder"),
        (("inspect", "{}"), "no data set there"),
        (("inspect", "{}/x.txt"), "is a file"),
        (("inspect", "{}", "--events", "{}/x.txt"), "the columns must be subject, file, recording, onset_s"),
        (("inspect", "{}", "--events", "{}/y.csv"), "can't be opened"),
        (("check", "{}", "--audio", "{}"), "no dataStim.mat"),
    ],
)
def test_what_is_no_data_set_is_refused_in_a_line(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "x.txt").write_text("?")
    text = said(*(argument.format(tmp_path) for argument in arguments), code=2)
    assert words in text
    assert len(text.splitlines()) == 1


def test_the_sample_of_the_format_is_understood() -> None:
    if not SAMPLES.is_dir():
        pytest.skip(f"there is no sample of the format in {SAMPLES.name}")
    text = said("inspect", str(SAMPLES))
    assert "stimuli: 20 trials" in text
    line = next(line for line in text.splitlines() if line.startswith("dataSub1 "))
    assert line.split()[1] == "20"
    assert "128" in line.split()


def test_aligned_envelopes_pass(tmp_path: Path, audio: str) -> None:
    shipped_file(tmp_path / "set")
    text = said("check", str(tmp_path / "set"), "--audio", audio)
    rows = [line.split() for line in text.splitlines() if line.startswith("audio")]
    assert [(row[0], row[2], row[-1]) for row in rows] == [(name, "+0", "ok") for name in ORDER]
    assert all(float(row[3]) > 0.99 for row in rows)


def test_a_moved_envelope_is_refused_by_name(tmp_path: Path, audio: str) -> None:
    shipped_file(tmp_path / "set", {"audio2": 5, "audio10": -1})
    text = said("check", str(tmp_path / "set"), "--audio", audio, code=1)
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith("audio")}
    assert {name: (row[2], row[-1]) for name, row in rows.items()} == {
        "audio1": ("+0", "ok"),
        "audio2": ("-5", "MISALIGNED"),
        "audio10": ("+1", "ok"),
    }
    assert "misaligned: audio2: our audio is 5 samples early" in text
    said("check", str(tmp_path / "set"), "--audio", audio, "--tolerance", "5")
    assert "audio10: our audio is 1 samples late" in said(
        "check", str(tmp_path / "set"), "--audio", audio, "--tolerance", "0", code=1
    )


def test_other_music_is_refused(tmp_path: Path, audio: str) -> None:
    shipped_file(tmp_path / "set")
    table = tmp_path / "trials.csv"
    table.write_text("trial,recording\n1,audio2\n2,audio2\n3,audio10\n4,audio1\n5,audio2\n6,audio10\n")
    text = said("check", str(tmp_path / "set"), "--audio", audio, "--trials", str(table), code=1)
    assert text.count("MISALIGNED") == 1
    assert "misaligned: audio2: " in text


def test_audio_that_does_not_pair_is_refused(tmp_path: Path, audio: str) -> None:
    shipped_file(tmp_path / "set")
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for name in ("audio1.wav", "audio10.wav", "audio2.wav"):
        shutil.copy(Path(audio) / name, fewer)
    soundfile.write(fewer / "audio3.wav", sound_of("audio1")[::-1], RATE)
    text = said("check", str(tmp_path / "set"), "--audio", str(fewer), code=2)
    assert "6 trials are not a multiple of 4 stimuli" in text
    assert "--trials" in text


def test_another_tempo_shows_at_the_ends() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(64 * 90) / 64
    course = np.convolve(rng.gamma(1.0, size=64 * 100), np.hanning(16), "same")
    moved = np.interp(t * 1.002, np.arange(course.size) / 64, course)
    plain = course[: t.size]
    drifting = compared(1, "x", moved, plain, 64)
    lags = [part.samples for part in drifting.parts]
    assert len(lags) == 4
    assert lags == sorted(lags, reverse=True)
    assert lags[0] - lags[-1] >= 4
    assert "another tempo" in (drifting.misaligned(1) or "")
    steady = compared(1, "x", plain, plain, 64)
    assert ([part.samples for part in steady.parts], steady.misaligned(0)) == ([0, 0, 0, 0], None)


def test_lag_of_series_that_say_nothing() -> None:
    assert lag_between(np.zeros(100), np.ones(100), 64).r == 0.0
    rng = np.random.default_rng(1)
    a = rng.normal(size=1000)
    assert (lag_between(a[7:], a, 64).samples, lag_between(a, a[7:], 64).samples) == (-7, 7)


def test_shipped_features_of_the_form_written_here(tmp_path: Path) -> None:
    found = read_shipped(write_stimuli(tmp_path), open_file)
    assert (found.names, found.rate_hz, found.n_trials) == (("Envelope", "Onsets", "Pitch"), 64.0, 6)
    assert [values.shape for values in found.data[0]] == [(int(DURATIONS_S[name] * 64),) for name in ORDER * 2]


def test_picture_has_the_vertex_in_the_middle_and_the_nose_up() -> None:
    positions: Any = np.array([[0, 0, 1.0], [0, 1.0, 0], [1.0, 0, 0]]) * 0.095
    np.testing.assert_allclose(flat(positions), [[0, 0], [0, 1], [1, 0]], atol=1e-12)
