"""The path of a lab with the Bach set, walked with files of its layout: from .mat and MIDI files to figures.

With two subjects the test over subjects refuses, so that nothing can be claimed whatever the listeners answer to; what
is found, and what is not, is read from the test over stimuli.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from bach_set import (
    N_CHANNELS,
    N_PIECES,
    N_REPETITIONS,
    N_TRIALS,
    PIECES,
    RATE_HZ,
    STIM_RATE_HZ,
    response,
    seconds_of,
    write_melody,
    write_set,
)
from safetensors.numpy import load
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.opening import Study, open_study
from tasks.alignment import impulses, note_ic
from tasks.audio.recording import load_audio, recordings
from tasks.contract import Artefact
from tasks.eeg.features import envelope
from tasks.ic import read_ic

YAML = str(Path(__file__).parents[2] / "experiments/bach_eeg.yaml")
LEVEL = 0.4
ENVELOPE_S, IC_S = 0.05, 0.15
SMALL = (
    "sweep=[]",
    "autoencoder.base_training={steps: 2, batch_size: 1, warmup_steps: 0, checkpoint_every: 2}",
    "autoencoder.arm_training={steps: 2, batch_size: 1, warmup_steps: 0, checkpoint_every: 2}",
    "flow={size: tiny, steps: 3, batch_size: 2, sequence_frames: 16, warmup_steps: 0, checkpoint_every: 3}",
    f"surprisal={{noise_levels: [{LEVEL}], solver: euler, n_steps: 4, n_probes: 2}}",
    "causal_audit=null",
    "solver_audit=null",
)
SMALL_EEG = (
    "eeg.cnd.expect={subjects: 2, pieces: 10}",
    "eeg.trf.lambdas=[1e-2, 1e-1]",
    "eeg.trf.lag_min_s=0",
    "eeg.trf.lag_max_s=0.25",
    "eeg.permutations={n: 100, block: 100}",
    "eeg.canaries=null",
)


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@dataclass(frozen=True)
class Lab:
    """A folder of the lab's, and the orchestrator as it is called there."""

    folder: Path

    @property
    def places(self) -> tuple[str, ...]:
        train = f"{{source: midi, path: {self.folder / 'tunes'}, split: %s}}"
        return (
            f"data.train={train % 'train'}",
            f"data.validation={train % 'dev'}",
            f"data.stimuli.path={self.folder / 'bach_midi'}",
        )

    def words(self, name: str) -> tuple[str, ...]:
        eeg = ("eeg=null",) if name == "stimuli" else (f"eeg.cnd.path={self.folder / name}", *SMALL_EEG)
        return (f"name={name}", *self.places, *SMALL, *eeg)

    def run(self, name: str) -> Any:
        ledger = str(self.folder / "ledger")
        return call("run", YAML, *self.words(name), "--inline", "--ledger", ledger)

    def study(self, name: str) -> Study:
        return open_study(YAML, self.words(name), str(self.folder / "ledger"))

    def artefact(self, name: str, cell: str) -> Artefact:
        study = self.study(name)
        (spec,) = (own for own in study.graph if own.name == cell)
        return study.ledger.artefact(spec.stage, spec.signature, None)


def _open(path: str) -> BinaryIO:
    return Path(path).open("rb")


def drivers(lab: Lab) -> tuple[list[Any], list[Any], list[Any]]:
    """Of every stimulus: envelope and onsets at 64 Hz as the set ships them, envelope and IC at onsets at 512 Hz."""
    corpus = lab.artefact("stimuli", "corpus stimuli")
    series = read_ic(lab.artefact("stimuli", f"IC layernorm none stimuli s={LEVEL}"))
    found = {melody.id: melody for melody in recordings(corpus)}
    values = {key: note_ic(series[key], found[key].notes or (), "onset_and_next") for key in PIECES}
    together = np.concatenate(list(values.values()))
    mean, deviation = np.nanmean(together), np.nanstd(together)
    shipped, onsets, answered = [], [], []
    for key in PIECES:
        audio = load_audio(found[key], corpus, _open)
        times = [note[0] for note in found[key].notes or ()]
        fine = envelope(audio, RATE_HZ).ravel()
        heights = np.nan_to_num((values[key] - mean) / deviation)
        shipped.append(envelope(audio, STIM_RATE_HZ).ravel())
        onsets.append(impulses(times, np.ones(len(times)), STIM_RATE_HZ, shipped[-1].size))
        answered.append({ENVELOPE_S: fine / fine.std(), IC_S: impulses(times, heights, RATE_HZ, fine.size)})
    return shipped, onsets, answered


@dataclass(frozen=True)
class Walked:
    """Both studies at their end: what `run` said and how it ended, and the order in which trials were presented."""

    lab: Lab
    results: dict[str, Any]
    orders: dict[str, list[int]]

    def group(self, name: str) -> dict[str, Any]:
        artefact = self.lab.artefact(name, "group acoustic_plus/onset")
        content: dict[str, Any] = json.loads(artefact.read_bytes("group.json"))
        return content


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    """IC of the stimuli first; then two data sets, whose listeners answer to it (``planted``) or don't (``unrelated``).

    Both answer to the envelope, and have the same noise.
    """
    lab = Lab(tmp_path_factory.mktemp("lab"))
    for folder in ("tunes", "bach_midi"):
        (lab.folder / folder).mkdir()
    for number in range(12):
        write_melody(lab.folder / f"tunes/tune{number}.mid", 100 + number, 4.0)
    for number, piece in enumerate(PIECES):
        write_melody(lab.folder / f"bach_midi/{piece}.mid", number, seconds_of(number))
    first = lab.run("stimuli")
    assert first.exit_code == 0, first.output
    shipped, onsets, answered = drivers(lab)
    results, orders = {}, {}
    for name, height in (("planted", 1.0), ("unrelated", 0.0)):
        answers = [response(own, {ENVELOPE_S: 0.02, IC_S: height}) for own in answered]
        orders = write_set(lab.folder / name, shipped, onsets, answers)
        results[name] = lab.run(name)
    return Walked(lab, results, orders)


def test_the_layout_is_read_as_it_is_documented(walked: Walked) -> None:
    for subject, order in walked.orders.items():
        described = json.loads(walked.lab.artefact("planted", f"eeg {subject}").read_bytes("eeg.json"))
        assert (described["skipped"], described["bads"], len(described["channels"])) == ([], [], N_CHANNELS)
        assert described["other_channels"] == {"Mastoids" if subject == "dataSub1" else "external 1": ["1", "2"]}
        trials = described["trials"]
        assert [trial["recording"] for trial in trials] == list(PIECES) * N_REPETITIONS
        assert [trial["repetition"] for trial in trials] == [k // N_PIECES for k in range(N_TRIALS)]
        assert [trial["original_position"] for trial in trials] == order
        lengths = {trial["recording"]: trial["n_samples"] for trial in trials}
        assert len(set(lengths.values())) > 3
    assert walked.orders["dataSub1"] != walked.orders["dataSub2"]


def test_what_is_planted_is_found_and_nothing_else(walked: Walked) -> None:
    planted, unrelated = (walked.group(name)["conditions"] for name in ("planted", "unrelated"))
    assert len(planted) == len(unrelated) == 1
    assert planted[0]["p_stimulus"] == pytest.approx(1 / 101)
    assert unrelated[0]["p_stimulus"] > 0.1
    assert planted[0]["excess_delta_r_mean"] > 0.01
    assert abs(unrelated[0]["excess_delta_r_mean"]) < 0.003


def test_the_answer_is_found_at_its_latency(walked: Walked) -> None:
    """A wrong padding, rate or trial order would move the kernel or smear it."""
    for subject in walked.orders:
        fitted = walked.lab.artefact("planted", f"trf {subject} layernorm none s={LEVEL} acoustic_plus/onset")
        arrays = load(fitted.read_bytes("trf.safetensors"))
        peak_s = arrays["lags_s"][np.argmax(arrays["kernel"].mean(axis=1))]
        assert abs(peak_s - IC_S) <= 2 / STIM_RATE_HZ


def test_two_subjects_claim_nothing_and_the_report_says_why(walked: Walked) -> None:
    for name, result in walked.results.items():
        assert result.exit_code == 0, result.output
        assert "No noise level of any variant is claimed." in result.stdout
        assert "2 subjects: a test over subjects needs at least 5." in result.stdout
        (condition,) = walked.group(name)["conditions"]
        assert (condition["claimed"], condition["p_subject"], condition["significant_channels"]) == (False, None, [])
        reports = walked.lab.folder / "ledger/reports" / name
        for figure in ("cortical_tracking", "scalp_maps"):
            assert list((reports / "figures").glob(f"{figure}.*")), figure
        assert "needs at least 5" in (reports / "report.html").read_text(encoding="utf-8")


def test_the_set_is_aligned_with_its_midi_files_and_nothing_is_missing(walked: Walked) -> None:
    folder = walked.lab.folder
    checked = call("data", "check", str(folder / "planted"), "--audio", str(folder / "bach_midi"))
    assert checked.exit_code == 0, checked.output
    inspected = call("data", "inspect", str(folder / "planted"), "--json")
    found = json.loads(inspected.stdout)
    assert [subject["name"] for subject in found["subjects"]] == ["dataSub1", "dataSub2"]
    assert found["missing"] == []


def test_the_same_command_again_computes_nothing(walked: Walked) -> None:
    again = walked.lab.run("planted")
    assert "26 cells cached, 0 computed" in again.stderr
    assert again.exit_code == 0


def test_the_study_of_the_real_set_is_planned_without_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planned = call("plan", YAML, "--json")
    assert planned.exit_code == 0, planned.output
    cells = json.loads(planned.stdout)["cells"]
    count = Counter(cell["stage"] for cell in cells)
    listeners, canaries, conditions, blocks = 20, 3, 2 * 10, 10
    assert count["eeg"] == listeners + canaries
    assert count["permutations"] == (listeners * conditions + canaries) * blocks
    assert {cell["reason"] for cell in cells if cell["stage"] in ("eeg", "group")} == {"data_missing"}
    refused = call("run", YAML)
    assert refused.exit_code == 3
    for place in ("data/bach_eeg: no CND data set there", "data/bach_midi: no such folder"):
        assert place in refused.stderr
