"""Own recordings and own EEG with everything wrong that can be: the study goes on and says who is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import soundfile

from orchestrator.opening import Study, open_study
from orchestrator.planner_eeg_group import reduce
from orchestrator.study import Execution, Outcome, run_study
from orchestrator.verbs.report import report
from tasks.eeg.montage import biosemi_64

RATE_HZ = 44_100
FS_HZ = 64
CHANNELS = ("Fz", "Cz", "Pz", "Oz", "C3", "C4", "F3", "P4")
STIMULI_S = {"tune1": 9.0, "tune2": 10.0, "tune3": 11.0, "unheard": 8.0}
TRIALS = ("tune1.wav", "tune2.wav", "tune3.wav", "corrupt.wav")

OVERRIDES = (
    "data.split.gap_s=1",
    "data.split.held_out_share=0.3",
    "data.stimuli.split_by=recording",
    "data.stimuli.split=all",
    "autoencoder.base_training={steps: 2, batch_size: 1, warmup_steps: 0, checkpoint_every: 2}",
    "autoencoder.arm_training={steps: 2, batch_size: 1, warmup_steps: 0, checkpoint_every: 2}",
    "flow={size: tiny, steps: 3, batch_size: 2, sequence_frames: 16, warmup_steps: 0, checkpoint_every: 3}",
    "surprisal={noise_levels: [0.0, 0.5], n_nodes: 2, n_probes: 1}",
    "reconstruction={snr: [.inf], excerpt_s: 1.0, n_excerpts: 2, n_draws: 1}",
    "eeg.preprocessing.sample_rate_hz=32",
    "eeg.trf={lag_min_s: 0.0, lag_max_s: 0.3, lambdas: [1e-2]}",
    "eeg.trf.models=[{reduced: acoustic_plus, regressor: hold, tested: true}]",
    "eeg.permutations={n: 20, block: 10}",
    "sweep=[]",
)


def melody(seed: int, seconds: float) -> np.ndarray:
    """Decaying tones, three a second."""
    rng = np.random.default_rng(seed)
    audio = np.zeros(round(seconds * RATE_HZ))
    for start in range(0, audio.size, RATE_HZ // 3):
        t = np.arange(min(audio.size - start, RATE_HZ // 3)) / RATE_HZ
        pitch_hz = 440 * 2 ** (rng.integers(-9, 10) / 12)
        audio[start : start + t.size] += 0.2 * np.exp(-t / 0.15) * np.sin(2 * np.pi * pitch_hz * t)
    return audio


def make_audio(folder: Path) -> None:
    music, stimuli = folder / "music", folder / "stimuli"
    for place, made in ((music, {"one": 12.0, "two": 11.0}), (stimuli, STIMULI_S)):
        place.mkdir()
        for number, (name, seconds) in enumerate(made.items()):
            soundfile.write(place / f"{name}.wav", melody(len(place.name) + number, seconds), RATE_HZ)
        (place / "corrupt.wav").write_bytes((place / f"{next(iter(made))}.wav").read_bytes()[1000:5000])
    soundfile.write(music / "silent.flac", np.zeros(8 * RATE_HZ), RATE_HZ)


def cells(items: list[Any]) -> np.ndarray:
    cell = np.empty((1, len(items)), dtype=object)
    cell[0, :] = items
    return cell


def subject(number: int, fs_hz: int = FS_HZ) -> dict[str, Any]:
    """A subject in CND form whose EEG has nothing to do with the music."""
    rng = np.random.default_rng(number)
    seconds = [STIMULI_S.get(Path(name).stem, 9.0) for name in TRIALS]
    cap = biosemi_64()
    assert cap.positions is not None
    places = [cap.positions[cap.names.index(name)] for name in CHANNELS]
    located = [(name, y, -x, z) for name, (x, y, z) in zip(CHANNELS, places, strict=True)]
    fields = [(key, object) for key in ("labels", "X", "Y", "Z")]
    trials = [rng.normal(size=(round(length * fs_hz), len(CHANNELS))) for length in seconds]
    return {"fs": float(fs_hz), "data": cells(trials), "chanlocs": np.array([located], dtype=fields)}


def make_eeg(folder: Path) -> None:
    """Seven subjects; the fourth and the last can't be used, three others only in part."""
    folder.mkdir()
    made = {number: subject(number) for number in range(1, 7)} | {7: subject(7, fs_hz=20)}
    for trial in made[2]["data"][0]:
        trial[:, 3] = 0.5
    made[3]["data"][0, 0][100:110, 5] = np.nan
    made[5]["data"][0, 1] = made[5]["data"][0, 1][: 6 * FS_HZ]
    for number, struct in made.items():
        scipy.io.savemat(folder / f"dataSub{number}.mat", {"eeg": struct})
    cut = folder / "dataSub4.mat"
    cut.write_bytes(cut.read_bytes()[:5000])
    features = cells([np.zeros((round(STIMULI_S.get(Path(name).stem, 9.0) * 64), 1)) for name in TRIALS])
    scipy.io.savemat(folder / "dataStim.mat", {"stim": {"fs": 64.0, "data": features}})
    rows = [f"{number},{name}" for number, name in enumerate(TRIALS, 1)]
    (folder / "trials.csv").write_text("\n".join(["trial,recording", *rows, ""]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Outcome]:
    folder = tmp_path_factory.mktemp("own")
    make_audio(folder)
    make_eeg(folder / "eeg")
    places = (
        f"data.path={folder / 'music'}",
        f"data.stimuli.path={folder / 'stimuli'}",
        f"eeg.cnd.path={folder / 'eeg'}",
        f"eeg.cnd.trials={folder / 'eeg/trials.csv'}",
    )
    path = Path(__file__).parents[1] / "experiments/recordings.yaml"
    study = open_study(str(path), (*places, *OVERRIDES), str(folder / "ledger"))
    outcome = run_study(study.graph, study.ledger, Execution(inline=True), reduce=reduce)
    return study, outcome


def metrics(study: Study, stage: str) -> dict[str, dict[str, Any]]:
    """Metrics of the finished cells of a stage, by the cell's name."""
    found = {cell.name: study.ledger.status(stage, cell.signature) for cell in study.graph if cell.stage == stage}
    return {name: dict(status.metrics) for name, status in found.items() if status is not None}


def group(study: Study, outcome: Outcome) -> dict[str, Any]:
    (reduced,) = outcome.reduced.values()
    content: dict[str, Any] = json.loads(
        study.ledger.artefact("group", reduced.signature, None).read_bytes("group.json")
    )
    return content


def test_the_study_ends_with_failures_that_are_named(finished: tuple[Study, Outcome]) -> None:
    study, outcome = finished
    names = {study.graph.cells[signature].name: why for signature, why in outcome.failed.items()}
    assert set(names) == {"eeg dataSub4", "eeg dataSub7"}, names
    assert outcome.exit_code == 1
    assert "dataSub4.mat: truncated or damaged" in names["eeg dataSub4"]
    assert "dataSub7" in names["eeg dataSub7"]
    assert "20 Hz is below preprocessing.sample_rate_hz (32)" in names["eeg dataSub7"]
    blocked = {study.graph.cells[signature].labels["subject"] for signature in outcome.blocked}
    assert blocked == {"dataSub4", "dataSub7"}


def test_corrupt_and_silent_files_are_named(finished: tuple[Study, Outcome]) -> None:
    found = metrics(finished[0], "corpus")
    for role in ("train", "validation", "reconstruction"):
        skipped = "\n".join(found[f"corpus {role}"]["skipped"])
        assert "corrupt.wav: not readable as audio" in skipped
        assert "silent.flac: silent" in skipped
        assert found[f"corpus {role}"]["n_recordings"] == 2
    assert found["corpus stimuli"]["n_recordings"] == len(STIMULI_S)


def test_what_is_wrong_with_trials_and_channels_is_named(finished: tuple[Study, Outcome]) -> None:
    found = {name: own for name, own in metrics(finished[0], "eeg").items() if "dataSub" in name and own}
    for own in found.values():
        assert not own["simulated"]
        skipped = "\n".join(own["skipped"])
        assert "trial 4: heard corrupt.wav, which is not among the stimuli" in skipped
        assert "the stimulus unheard has no trial" in skipped
    assert {name: own["n_bad_channels"] for name, own in found.items()} == {
        "eeg dataSub1": 0,
        "eeg dataSub2": 1,
        "eeg dataSub3": 1,
        "eeg dataSub5": 0,
        "eeg dataSub6": 0,
    }
    assert any(
        "trial 2 (tune2): the EEG ends 4.00 s before tune2 does" in reason
        for reason in found["eeg dataSub5"]["skipped"]
    )


def test_the_group_says_who_is_missing_and_tests_the_others(finished: tuple[Study, Outcome]) -> None:
    content = group(*finished)
    assert content["subjects"] == ["dataSub1", "dataSub2", "dataSub3", "dataSub5", "dataSub6"]
    assert [entry["subject"] for entry in content["missing"]] == ["dataSub4", "dataSub7"]
    assert "truncated or damaged" in content["missing"][0]["reason"]
    assert (content["simulated"], content["n_permutations"], len(content["conditions"])) == (False, 20, 2)
    for condition in content["conditions"]:
        assert 0 < condition["p_stimulus"] <= 1
        assert 0 < condition["p_subject"] <= 1


def test_the_report_names_all_of_it(finished: tuple[Study, Outcome]) -> None:
    text = report(finished[0])
    for word in ("dataSub4", "dataSub7", "corrupt.wav", "silent.flac"):
        assert word in text, text


def test_the_same_command_again_computes_nothing(finished: tuple[Study, Outcome]) -> None:
    study, _ = finished
    again = run_study(study.graph, study.ledger, Execution(inline=True), reduce=reduce)
    assert (again.exit_code, again.done) == (1, [])
