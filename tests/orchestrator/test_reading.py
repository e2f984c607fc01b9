"""Experiments from YAML, environment and command line; every mistake is one helpful line."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.reading import UsageError, load_experiment

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "experiments/demo.yaml")


def mistake(*overrides: str, path: str = DEMO) -> str:
    with pytest.raises(UsageError) as caught:
        load_experiment(path, overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_every_shipped_experiment_loads() -> None:
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        assert load_experiment(str(path)).experiment.variants()


def test_command_line_over_environment_over_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(Path(DEMO).read_text() + "execution: {ledger: from-yaml}\n")
    assert load_experiment(str(path)).experiment.execution.ledger == "from-yaml"
    monkeypatch.setenv("ORCHESTRATOR_LEDGER", "from-environment")
    loaded = load_experiment(str(path))
    assert loaded.experiment.execution.ledger == "from-environment"
    assert loaded.origins["execution.ledger"] == "environment ORCHESTRATOR_LEDGER"
    loaded = load_experiment(str(path), ["execution.ledger=from-command"])
    assert loaded.experiment.execution.ledger == "from-command"
    assert loaded.origins["execution.ledger"] == "command line"


def test_science_keys_need_no_prefix() -> None:
    assert load_experiment(DEMO, ["surprisal.n_steps=7"]).experiment.science.surprisal.n_steps == 7
    assert load_experiment(DEMO, ["science.surprisal.n_steps=7"]).experiment.science.surprisal.n_steps == 7


def test_unknown_key_names_the_nearest() -> None:
    sentence = mistake("surprisal.noise_level=[0.1]")
    assert "science.surprisal.noise_level" in sentence
    assert "did you mean 'noise_levels'" in sentence
    assert "n_steps" in sentence


def test_unknown_key_in_a_sweep(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(Path(DEMO).read_text().replace("- autoencoder.bottleneck", "- autoencoder.botleneck"))
    sentence = mistake(path=str(path))
    assert "botleneck" in sentence
    assert "did you mean 'bottleneck'" in sentence


def test_impossible_value_says_what_is_allowed() -> None:
    sentence = mistake("autoencoder.bottleneck=layer_norm")
    assert "layer_norm" in sentence
    assert "'tanh'" in sentence
    assert "did you mean 'layernorm'" in sentence


def test_level_outside_the_unit_interval() -> None:
    sentence = mistake("surprisal.noise_levels=[0.0, 1.5]")
    assert "1.5" in sentence
    assert "less than or equal to 1" in sentence


def test_wrong_type() -> None:
    assert "n_steps" in mistake("surprisal.n_steps=many")


def test_training_and_testing_on_the_same_tunes_is_refused() -> None:
    sentence = mistake("data.melodies.split=train")
    assert "shares recordings with train" in sentence
    assert "allow_overlap" in sentence
    allowed = load_experiment(DEMO, ["data.melodies.split=train", "data.allow_overlap=true"])
    assert allowed.experiment.science.data.allow_overlap


def test_no_claim_against_the_envelope_alone() -> None:
    model = "eeg.trf.models=[{reduced: envelope, regressor: hold, tested: true}]"
    assert "carries no claim" in mistake(model)


def test_override_without_value() -> None:
    assert "key=value" in mistake("surprisal.n_steps")


def test_missing_file_and_broken_yaml(tmp_path: Path) -> None:
    assert "no such experiment file" in mistake(path=str(tmp_path / "nothing.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    assert "cannot be read as YAML" in mistake(path=str(broken))
    twice = tmp_path / "twice.yaml"
    twice.write_text("name: a\nname: b\n")
    assert "given twice" in mistake(path=str(twice))
    listed = tmp_path / "list.yaml"
    listed.write_text("- a\n")
    assert "mapping" in mistake(path=str(listed))


def test_variants_are_named_by_what_differs() -> None:
    names = list(load_experiment(DEMO).experiment.variants())
    assert names == ["layernorm none", "layernorm D m=0.0", "layernorm E+D m=0.0", "tanh none"]


def test_equal_variants_are_one() -> None:
    sweep = "sweep=[{autoencoder.bottleneck: [tanh, tanh]}, {autoencoder.bottleneck: [tanh]}]"
    assert len(load_experiment(DEMO, [sweep, "eeg.canaries=null"]).experiment.variants()) == 1
