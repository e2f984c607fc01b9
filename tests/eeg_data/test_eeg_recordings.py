"""The stage `eeg`, from cells to files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from eeg_material import DURATIONS_S, MakeCell
from safetensors.numpy import load_file
from test_eeg_cnd import ORDER, read, subject_struct, write_stimuli, write_subject

from tasks.contract import Artefact, Cell, Context, Result
from tasks.eeg.montage import biosemi_64
from tasks.eeg.recordings import run

N_SAMPLES = {name: int(seconds * 44_100) * 64 // 44_100 for name, seconds in DURATIONS_S.items()}


def outcome(cell: Cell) -> tuple[Result, dict[str, np.ndarray], dict[str, Any]]:
    (result,) = run([cell], Context())
    if result.failure is not None:
        return result, {}, {}
    table = json.loads((cell.out_dir / "eeg.json").read_text())
    return result, load_file(cell.out_dir / "eeg.safetensors"), table


def simulated(kind: str, **more: Any) -> dict[str, Any]:
    base = {"seed": 7, "subject": f"subject-{kind}", "kind": kind, "simulation": {}, "preprocessing": {}}
    return {**base, **more}


def test_listener(corpus: Artefact, pitch_surprisal: Artefact, make_cell: MakeCell) -> None:
    cell = make_cell("a", "eeg", simulated("listener"), corpus=corpus, pitch_surprisal=pitch_surprisal)
    result, arrays, table = outcome(cell)
    assert result.failure is None
    assert {key: values.shape for key, values in arrays.items()} == {f"{n}/0": (k, 64) for n, k in N_SAMPLES.items()}
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in arrays.values())
    assert np.concatenate(list(arrays.values())).std() == pytest.approx(1.0, abs=1e-4)
    assert table["channels"] == list(biosemi_64().names)
    assert np.shape(table["positions"]) == (64, 3)
    assert table["simulated"] is True
    assert table["skipped"] == table["bads"] == []
    assert sorted(table["truth"]["drivers"]) == ["envelope", "onset", "surprisal"]
    assert [(trial["recording"], trial["n_samples"]) for trial in table["trials"]] == list(N_SAMPLES.items())
    assert result.metrics["n_trials"] == 3
    assert result.metrics["seconds"] == sum(N_SAMPLES.values()) / 64


def test_same_bits_alone_as_in_a_group(corpus: Artefact, pitch_surprisal: Artefact, make_cell: MakeCell) -> None:
    inputs = {"corpus": corpus, "pitch_surprisal": pitch_surprisal}
    group = [make_cell(name, "eeg", simulated("listener", subject=name), **inputs) for name in ("S01", "S02")]
    alone = make_cell("alone", "eeg", simulated("listener", subject="S02"), **inputs)
    list(run(group, Context()))
    list(run([alone], Context()))
    for file in ("eeg.safetensors", "eeg.json"):
        assert (group[1].out_dir / file).read_bytes() == (alone.out_dir / file).read_bytes()
    assert (group[0].out_dir / "eeg.safetensors").read_bytes() != (alone.out_dir / "eeg.safetensors").read_bytes()


def test_mastoid_reference_of_simulated_listeners(
    corpus: Artefact, pitch_surprisal: Artefact, make_cell: MakeCell
) -> None:
    config = simulated("listener", preprocessing={"reference": "mastoids"})
    result, arrays, _ = outcome(make_cell("a", "eeg", config, corpus=corpus, pitch_surprisal=pitch_surprisal))
    assert result.failure is None
    assert np.abs(arrays["audio1/0"].mean(axis=1)).max() > 0.1


@pytest.mark.parametrize(("kind", "n_channels"), [("noise", 50), ("acoustic", 40)])
def test_canaries_whose_channels_are_listeners(
    kind: str, n_channels: int, corpus: Artefact, make_cell: MakeCell
) -> None:
    cell = make_cell("a", "eeg", simulated(kind, n_channels=n_channels), corpus=corpus)
    result, arrays, table = outcome(cell)
    assert result.failure is None
    assert arrays["audio2/0"].shape == (N_SAMPLES["audio2"], n_channels)
    np.testing.assert_allclose(np.concatenate(list(arrays.values())).std(axis=0), 1.0, atol=1e-4)
    assert table["positions"] is None
    assert "surprisal" not in table["truth"]["drivers"]


def test_positive_canary_follows_ic(corpus: Artefact, surprisal: Artefact, make_cell: MakeCell) -> None:
    cell = make_cell("a", "eeg", simulated("positive", snr_db=0.0), corpus=corpus, surprisal=surprisal)
    result, arrays, table = outcome(cell)
    assert result.failure is None
    assert list(table["truth"]["drivers"]) == ["ic"]
    assert table["truth"]["snr_db"] == 0.0
    assert arrays["audio1/0"].shape[1] == 64


def test_channels_that_are_asked_for(corpus: Artefact, surprisal: Artefact, make_cell: MakeCell) -> None:
    """They are cut from the whole cap after the average reference; what was planted is told of them alone."""
    inputs = {"corpus": corpus, "surprisal": surprisal}
    _, whole, full = outcome(make_cell("a", "eeg", simulated("positive"), **inputs))
    config = simulated("positive", preprocessing={"channels": ["Pz", "Fz"]})
    _, arrays, table = outcome(make_cell("b", "eeg", config, **inputs))
    places = [full["channels"].index(name) for name in ("Pz", "Fz")]
    assert table["channels"] == ["Pz", "Fz"]
    assert table["positions"] == [full["positions"][place] for place in places]
    weights = full["truth"]["drivers"]["ic"]["weights"]
    assert table["truth"]["drivers"]["ic"]["weights"] == [weights[place] for place in places]
    ratio = arrays["audio1/0"].std() / whole["audio1/0"][:, places].std()
    np.testing.assert_allclose(arrays["audio1/0"], ratio * whole["audio1/0"][:, places], rtol=1e-4, atol=1e-4)
    foreign = {"channels": ["Pz", "Fz", "E7"], "reference": ["E57", "E100"], "ica": {"eog": ["E8"], "n_components": 3}}
    _, other, table = outcome(make_cell("c", "eeg", simulated("positive", preprocessing=foreign), **inputs))
    assert table["channels"] == ["Pz", "Fz"], "a canary has its own cap, whatever the subjects' channels are called"
    assert table["ica"]["eog"] == ["Fp1", "Fpz", "Fp2", "AF7", "AF8"]
    assert other["audio1/0"].shape == arrays["audio1/0"].shape


def test_listeners_are_refused_channels_that_they_lack(
    corpus: Artefact, pitch_surprisal: Artefact, make_cell: MakeCell
) -> None:
    config = simulated("listener", preprocessing={"channels": ["Pz", "Qz"]})
    result, _, _ = outcome(make_cell("a", "eeg", config, corpus=corpus, pitch_surprisal=pitch_surprisal))
    assert result.failure is not None
    assert result.failure.startswith("subject-listener: preprocessing.channels: there is no channel Qz; allowed are")


def test_listeners_need_notes_and_acoustic_canaries_do_not(
    silent_corpus: Artefact, pitch_surprisal: Artefact, surprisal: Artefact, make_cell: MakeCell
) -> None:
    listener = make_cell("a", "eeg", simulated("listener"), corpus=silent_corpus, pitch_surprisal=pitch_surprisal)
    acoustic = make_cell("b", "eeg", simulated("acoustic", n_channels=10), corpus=silent_corpus)
    positive = make_cell("c", "eeg", simulated("positive"), corpus=silent_corpus, surprisal=surprisal)
    results = list(run([listener, acoustic, positive], Context()))
    assert results[0].failure is not None
    assert "notes of audio1" in results[0].failure
    assert [result.failure for result in results[1:]] == [None, None]


def cnd_config(path: str, **more: Any) -> dict[str, Any]:
    files = {
        "file": path,
        "stimulus_file": None,
        "trials_file": None,
        "size": 1,
        "version": "x",
        "stimulus_version": "y",
    }
    return {"subject": "dataSub1", "cnd": {**files, **more}, "preprocessing": {"saturated_share": 0.01}}


def test_cnd_subject_with_faults_in_some_trials(tmp_path: Path, corpus: Artefact, make_cell: MakeCell) -> None:
    struct = subject_struct()
    struct["data"][0, 0][:, 5] = 3.0
    struct["data"][0, 1][50, 9] = np.nan
    struct["data"][0, 2][:] = 0.0
    struct["data"][0, 3] = struct["data"][0, 3][:-900]
    struct["data"][0, 4][:, 20] = np.clip(np.sin(np.arange(len(struct["data"][0, 4])) / 40), -0.5, 0.5)
    path = write_subject(tmp_path, struct)
    cell = make_cell("a", "eeg", cnd_config(path, stimulus_file=write_stimuli(tmp_path)), corpus=corpus)
    result, arrays, table = outcome(cell)
    assert result.failure is None
    assert sorted(arrays) == ["audio1/0", "audio10/1", "audio2/0", "audio2/1"]
    assert all(np.isfinite(values).all() for values in arrays.values())
    names = biosemi_64().names
    assert table["bads"] == [names[5], names[9], names[20]]
    assert {trial["key"]: trial["bads_why"] for trial in table["trials"]} == {
        "audio1/0": {names[5]: "flat"},
        "audio2/0": {names[9]: "not numbers"},
        "audio2/1": {names[20]: "saturated"},
        "audio10/1": {},
    }
    assert {trial["key"]: trial["bads"] for trial in table["trials"]}["audio2/0"] == [names[9]]
    reasons = {part["trial"]: part["reason"] for part in table["skipped"]}
    assert [part["piece"] for part in table["skipped"]] == ["audio10", "audio1", "audio2"]
    assert result.metrics["skipped"][0].startswith("trial 3 (audio10): every channel")
    assert table["other_channels"] == {"Mastoids": ["1", "2"]}
    assert "every channel" in reasons["3"]
    assert "before audio1 does" in reasons["4"]
    assert table["simulated"] is False
    assert table["truth"] is None
    assert result.metrics["n_bad_channels"] == 3
    rows = {(row["recording"], row["repetition"]): row for row in table["quality"]}
    assert [row["skipped"] is None for row in table["quality"]] == [True, True, False, False, True, True]
    assert rows["audio2", 0]["not_numbers"] == {names[9]: 1}
    assert rows["audio2", 0]["interpolated"] == round(1 / 64, 4)
    assert rows["audio1", 1]["kept_s"] == 0
    assert "before audio1 does" in rows["audio1", 1]["skipped"]
    assert sum(row["kept_s"] for row in table["quality"]) == pytest.approx(result.metrics["seconds"], abs=0.01)
    said = f"trial 2 (audio2): channel {names[9]}: 1 sample is not a number; in this trial the channel is interpolated"
    assert any(line.startswith(said) for line in result.metrics["skipped"])


def test_what_is_cut_at_the_end_of_a_trial_is_noted(tmp_path: Path, corpus: Artefact, make_cell: MakeCell) -> None:
    struct = subject_struct(1)  # the EEG goes on for 100 samples of 512 Hz after the recording
    for place, longer in enumerate((40, -40, -7)):
        struct["data"][0, place] = struct["data"][0, place][: longer - 100]
    _, arrays, table = outcome(make_cell("a", "eeg", cnd_config(write_subject(tmp_path, struct)), corpus=corpus))
    assert [(note["trial"], note["piece"]) for note in table["notes"]] == [("1", "audio1"), ("2", "audio2")]
    assert table["notes"][0]["note"] == "the recording ends 0.078 s before the EEG, whose end is left out"
    assert table["notes"][1]["note"] == "the EEG ends 0.078 s before the recording, whose end is left out"
    assert [len(arrays[f"{name}/0"]) - N_SAMPLES[name] for name in ("audio1", "audio2", "audio10")] == [0, -5, 0]
    _, _, whole = outcome(make_cell("b", "eeg", cnd_config(write_subject(tmp_path, subject_struct(1))), corpus=corpus))
    assert "notes" not in whole


def test_cnd_time_base(tmp_path: Path, corpus: Artefact, make_cell: MakeCell) -> None:
    """A 4 Hz wave locked to the stimulus's start comes out as the same wave."""
    struct = subject_struct(1)
    for trial in struct["data"][0]:
        t = (np.arange(len(trial)) - 512) / 512
        trial[:] = 1e-3 * trial + 5e4 + np.sin(2 * np.pi * 4 * t)[:, None] * np.linspace(-1, 1, 64)
    _, arrays, _ = outcome(make_cell("a", "eeg", cnd_config(write_subject(tmp_path, struct)), corpus=corpus))
    wave = np.sin(2 * np.pi * 4 * np.arange(N_SAMPLES["audio10"]) / 64)
    found = arrays["audio10/0"][:, 63]
    assert np.corrcoef(wave, found)[0, 1] > 0.999


def test_channels_that_cannot_be_repaired_are_removed(tmp_path: Path, corpus: Artefact, make_cell: MakeCell) -> None:
    struct = subject_struct(1)
    del struct["chanlocs"]
    for place in range(3):
        struct["data"][0, place] = struct["data"][0, place][:, :6]
    struct["data"][0, 1][:, 2] = 0.0
    _, arrays, table = outcome(make_cell("a", "eeg", cnd_config(write_subject(tmp_path, struct)), corpus=corpus))
    assert table["channels"] == ["E1", "E2", "E4", "E5", "E6"]
    assert table["removed"] == ["E3"]
    assert arrays["audio1/0"].shape[1] == 5
    assert "no positions of its channels are known" in table["skipped"][-1]["reason"]


def test_the_order_of_presentation_is_kept(tmp_path: Path, corpus: Artefact, make_cell: MakeCell) -> None:
    struct = {**subject_struct(1), "origTrialPosition": np.array([3.0, 1.0, 2.0])}
    _, _, table = outcome(make_cell("a", "eeg", cnd_config(write_subject(tmp_path, struct)), corpus=corpus))
    assert [trial["original_position"] for trial in table["trials"]] == [3, 1, 2]
    _, _, table = outcome(make_cell("b", "eeg", cnd_config(write_subject(tmp_path, subject_struct(1))), corpus=corpus))
    assert [trial["original_position"] for trial in table["trials"]] == [None, None, None]


def test_a_lost_subject_says_why_and_the_others_go_on(tmp_path: Path, corpus: Artefact, make_cell: MakeCell) -> None:
    good = write_subject(tmp_path, subject_struct(1))
    slow = tmp_path / "slow.mat"
    scipy.io.savemat(slow, {"eeg": {**subject_struct(1), "fs": 32.0}})
    cells = [
        make_cell("a", "eeg", cnd_config(str(tmp_path / "missing.mat")), corpus=corpus),
        make_cell("b", "eeg", cnd_config(str(slow)), corpus=corpus),
        make_cell("c", "eeg", cnd_config(good), corpus=corpus),
    ]
    failures = [result.failure for result in run(cells, Context())]
    assert failures[0] is not None
    assert "no such file" in failures[0]
    assert failures[1] is not None
    assert "below preprocessing.sample_rate_hz" in failures[1]
    assert failures[2] is None


def test_order_of_stimuli_is_written_down(tmp_path: Path, corpus: Artefact, make_cell: MakeCell) -> None:
    path = write_subject(tmp_path, subject_struct(1))
    assert len(read(corpus, path).trials) == 3
    _, _, table = outcome(make_cell("a", "eeg", cnd_config(path), corpus=corpus))
    assert [(trial["trial"], trial["recording"]) for trial in table["trials"]] == list(zip("123", ORDER, strict=True))


@pytest.mark.parametrize("dataset", [{"pieces": 2}, {"split": "test", "split_by": "recording"}])
def test_counting_trials_needs_all_stimuli(
    dataset: dict[str, Any], tmp_path: Path, corpus: Artefact, make_cell: MakeCell
) -> None:
    """With 3 of 10 pieces, 30 trials would still be a multiple, and every trial after the third paired wrongly."""
    partial = Artefact("partial", "corpus", {"dataset": dataset}, {}, corpus.open)
    path = write_subject(tmp_path, subject_struct(1))
    result, _, _ = outcome(make_cell("a", "eeg", cnd_config(path), corpus=partial))
    assert result.failure is not None
    assert "cnd.trials" in result.failure
    table = tmp_path / "trials.csv"
    table.write_text("trial,recording\n1,audio1\n2,audio2\n3,audio10\n")
    result, arrays, _ = outcome(make_cell("b", "eeg", cnd_config(path, trials_file=str(table)), corpus=partial))
    assert sorted(arrays) == ["audio1/0", "audio10/0", "audio2/0"]
