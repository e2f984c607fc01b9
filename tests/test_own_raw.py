"""Own EEG as raw files with a table of events, some of them broken: from files to the group's test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
from test_own_recordings import CHANNELS, OVERRIDES, STIMULI_S, group, make_audio, metrics

from orchestrator.opening import Study, open_study
from orchestrator.planner_eeg_group import reduce
from orchestrator.study import Execution, Outcome, run_study

FS_HZ = 64
ONSETS_S = {"tune1": 2.0, "tune2": 14.0, "tune3": 27.0}


def recording(number: int, rate_hz: int = FS_HZ, names: tuple[str, ...] = CHANNELS) -> Any:
    data = 1e-5 * np.random.default_rng(number).normal(size=(len(names), 40 * rate_hz))
    raw = mne.io.RawArray(data, mne.create_info(list(names), rate_hz, "eeg", verbose="ERROR"), verbose="ERROR")
    raw.set_montage("biosemi64", verbose="ERROR")
    return raw


def make_eeg(folder: Path) -> None:
    """Eight subjects: 7 is cut off and 8 isn't there; 3 has a bad channel and a bad second, 4 another rate."""
    folder.mkdir()
    rows = ["subject,file,recording,onset_s,duration_s"]
    for number in range(1, 9):
        raw = recording(number, rate_hz=128 if number == 4 else FS_HZ)
        if number == 3:
            raw.info["bads"] = ["Pz"]
            raw.set_annotations(mne.Annotations([3.0], [1.0], ["BAD_move"]))
        path = folder / f"S{number}_raw.fif"
        if number < 8:
            raw.save(path, verbose="ERROR")
        if number == 7:
            path.write_bytes(path.read_bytes()[:4000])
        for name, seconds in STIMULI_S.items():
            if name in ONSETS_S:
                rows.append(f"S{number},{path.name},{name}.wav,{ONSETS_S[name]},{seconds}")
    rows.append("S5,S5_raw.fif,tune1.wav,36,9.0")
    (folder / "events.csv").write_text("\n".join([*rows, ""]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Outcome]:
    folder = tmp_path_factory.mktemp("own_raw")
    make_audio(folder)
    make_eeg(folder / "eeg")
    places = (
        f"data.path={folder / 'music'}",
        f"data.stimuli.path={folder / 'stimuli'}",
        f"eeg.raw.path={folder / 'eeg'}",
        f"eeg.raw.events={folder / 'eeg/events.csv'}",
    )
    path = Path(__file__).parents[1] / "experiments/recordings.yaml"
    study = open_study(str(path), (*places, *OVERRIDES), str(folder / "ledger"))
    outcome = run_study(study.graph, study.ledger, Execution(inline=True), reduce=reduce)
    return study, outcome


def test_the_study_goes_on_without_those_who_are_lost(finished: tuple[Study, Outcome]) -> None:
    study, outcome = finished
    found = group(study, outcome)
    assert {line["subject"]: line["reason"].split(": ", 2)[:2] for line in found["missing"]} == {
        "S7": ["S7", "no trial can be used"],
        "S8": ["S8", "no trial can be used"],
    }
    assert found["subjects"] == [f"S{number}" for number in range(1, 7)]
    assert found["simulated"] is False
    assert all(0 < condition["p_stimulus"] <= 1 for condition in found["conditions"])


def test_each_fault_is_named(finished: tuple[Study, Outcome]) -> None:
    study, _ = finished
    eeg = metrics(study, "eeg")
    silent = "the stimulus unheard has no trial"
    assert eeg["eeg S1"]["skipped"] == eeg["eeg S4"]["skipped"] == [silent]
    assert eeg["eeg S3"]["skipped"] == [
        silent,
        "trial S3_raw.fif at 2 s (tune1): 1.00 of 9.00 s are marked BAD_move; they are left out",
    ]
    assert eeg["eeg S3"]["n_bad_channels"] == 1
    assert eeg["eeg S5"]["skipped"][1].startswith("trial S5_raw.fif at 36 s (tune1): the EEG ends 5.00 s before tune1")
    assert {name: found["n_trials"] for name, found in eeg.items() if found and "canary" not in name} == dict.fromkeys(
        [f"eeg S{number}" for number in range(1, 7)], 3
    )
