"""`orchestrator data inspect` and `data check` on BIDS data sets, with known contents and known lags."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bids_material import eeg_raw, meg_raw, write_bids, write_events
from eeg_material import DURATIONS_S, RATE, sound_of
from test_data_verbs import said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    for subject in ("01", "02"):
        write_events(write_bids(root, eeg_raw(subject), subject))
    (root / "sub-02/eeg/sub-02_task-listen_events.tsv").unlink()
    with (root / "participants.tsv").open("a") as table:
        table.write("sub-03\tn/a\tn/a\tn/a\tn/a\tn/a\n")
    return root


def test_inspect_says_what_is_there_and_what_is_not(made: Path, tmp_path: Path) -> None:
    picture = tmp_path / "montage.png"
    text = said("inspect", str(made), "--out", str(picture))
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith("sub-")}
    assert lines["sub-01"] == ["3", "3", "1", "10.0-12.0", "128", "10", "yes", "as", "listed"]
    assert lines["sub-02"] == ["0", "?", "?", "45.0", "128", "10", "yes", "?"]
    for words in (
        f"{made}: BIDS, task listen, eeg, 2 subjects",
        "other channels (all subjects): eog: VEOG",
        "marked bad (sub-01): Pz",
        "  sub-03: has no recording here",
        "sub-01: sub-01/eeg/sub-01_task-listen_eeg.vhdr: 2 of 5 rows of its events have no stim_file",
        "sub-02: sub-02/eeg/sub-02_task-listen_eeg.vhdr: it has no events.tsv",
    ):
        assert words in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    content = json.loads(said("inspect", str(made), "--json"))
    assert content["subjects"][0]["pieces"] == {f"tunes/{name}.wav": 1 for name in DURATIONS_S}
    assert f"{made}: no eeg recording of task sing (tasks there: listen)" in said(
        "inspect", str(made), "--task", "sing", code=2
    )
    assert "--sensor-type 'meg': allowed is eeg, mag, grad" in said(
        "inspect", str(made), "--sensor-type", "meg", code=2
    )


def test_inspect_of_meg(tmp_path: Path) -> None:
    write_events(write_bids(tmp_path, meg_raw(), "01"))
    for kind, n_channels in (("mag", "2"), ("grad", "4")):
        text = said("inspect", str(tmp_path), "--sensor-type", kind)
        line = next(line for line in text.splitlines() if line.startswith("sub-01"))
        assert line.split()[1:8] == ["3", "3", "1", "10.0-12.0", "128", n_channels, "yes"]
    assert "BIDS, task listen, mag, 1 subject" in said("inspect", str(tmp_path))


def test_check_compares_what_was_heard_with_the_audio_at_hand(made: Path, tmp_path: Path) -> None:
    root, audio = Path(shutil.copytree(made, tmp_path / "set")), tmp_path / "audio"
    (root / "stimuli/tunes").mkdir(parents=True)
    audio.mkdir()
    for name in DURATIONS_S:
        soundfile.write(audio / f"{name}.wav", sound_of(name), RATE)
        soundfile.write(root / f"stimuli/tunes/{name}.wav", sound_of(name), RATE)
    text = said("check", str(root), "--audio", str(audio), "--task", "listen")
    assert [line.split()[2] for line in text.splitlines() if line.startswith("tunes/")] == ["+0"] * 3
    assert "3 of 3 stimuli that events name are among the audio; 3 are in stimuli too" in text
    late = np.concatenate([np.zeros(RATE // 4), sound_of("audio2")])
    soundfile.write(audio / "audio2.wav", late, RATE)
    soundfile.write(audio / "audio1.wav", sound_of("audio1")[: 9 * RATE], RATE)
    (audio / "audio10.wav").unlink()
    text = said("check", str(root), "--audio", str(audio), code=1)
    for words in (
        "misaligned: tunes/audio2.wav: our audio is 16 samples late",
        "misaligned: tunes/audio1.wav: lasts 12.0 s by the events, and our audio 9.0 s",
        "left out: tunes/audio10.wav: events name it, and it is not among the audio",
    ):
        assert words in text
