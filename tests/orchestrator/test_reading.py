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


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["data.melodies_dev={source: chorales, split: train}"], "melodies_dev: it shares recordings with train"),
        (["data.melodies_dev={source: chorales, split: test}"], "melodies_dev: it shares tunes with melodies"),
        (
            ["data.melodies_dev={source: chorales, split: all}", "data.allow_overlap=true"],
            "it shares tunes with melodies",
        ),
        (["data.melodies_dev={source: audio, path: here}"], "source audio has no notes; allowed are chorales and midi"),
        (["data.melodies_dev={source: chorales, split: dev}", "data.melodies=null"], "judged on data.melodies"),
    ],
)
def test_levels_are_chosen_on_tunes_that_judge_nothing(overrides: list[str], reason: str) -> None:
    assert reason in mistake(*overrides)
    assert load_experiment(DEMO, ["data.melodies_dev={source: chorales, split: dev}"]).experiment.variants()


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


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=-1", "science.seed = -1: input should be greater than or equal to 0"),
        ("seed=true", "science.seed = true: true is not allowed here"),
        ("surprisal.noise_levels=[]", "noise_levels = []: at least one value is needed"),
        ("surprisal.noise_levels=[0.4, 0.4]", "0.4 is given twice"),
        ("surprisal.noise_levels=[0.0, -0.0, 0.4]", "0.0 is given twice"),
        ("surprisal.noise_levels=[0.4, true]", "true is not allowed here"),
        ("surprisal.noise_levels=[.nan]", "noise_levels.0 = nan: input should be a finite number"),
        ("surprisal.noise_levels=0.4", "noise_levels = 0.4: a list is needed"),
        ("eeg.trf.lambdas=[]", "lambdas = []: at least one value is needed"),
        ("eeg.trf.lambdas=[.inf]", "lambdas.0 = inf: input should be a finite number"),
        ("eeg.trf.lag_max_s=500", "lag_max_s = 500: input should be less than or equal to 5"),
        ("eeg.trf.models=[]", "models = []: at least one value is needed"),
        ("eeg.simulation.snr_db=.nan", "snr_db = nan: input should be a finite number"),
        ("eeg.simulation=[1]", "simulation = [1]: a mapping is needed, with some of the keys n_subjects"),
        ("eeg.cnd.path=x", "both are given; set the other to null"),
        ("eeg.preprocessing.sample_rate_hz=256", "256 must not be above simulation.sample_rate_hz (128)"),
        ("eeg.preprocessing.reference=mastoids", "simulated listeners have no mastoids"),
        ("eeg.permutations.n=1000000000", "more than 1000 blocks of 100"),
        ("reconstruction.snr=[.nan]", "snr.0 = nan"),
        ("reconstruction.n_excerpts=1", "n_excerpts = 1: input should be greater than or equal to 2"),
        ("pitch=null", "simulated listeners"),
        ("data=null", "data = null: a mapping is needed, with some of the keys seed, path, train"),
        ("data.train={source: audio, path: ''}", "path = '': "),
        ("name=a/b", "name = 'a/b': up to 64 letters"),
        ("nam=x", "did you mean 'name'?"),
        ("sciense.seed=1", "did you mean 'science'?"),
        ("flow.steps.x=1", "flow.steps is 420, which has no keys below it"),
        ("eeg.trf.lambdas.0=1", "which has no keys below it; give science.eeg.trf.lambdas as a whole"),
        ("sweep=[{autoencoder.bottlenek: [tanh]}]", "sweep: unknown key 'autoencoder.bottlenek'; did you mean"),
        ("sweep=[{autoencoder.bottleneck: [tahn]}]", "sweep: autoencoder.bottleneck = 'tahn'"),
        ("sweep=[{autoencoder.bottleneck: []}]", "yaml: sweep: autoencoder.bottleneck has no values"),
        ("sweep=[{autoencoder.bottleneck: tanh}]", "sweep.0.autoencoder.bottleneck = 'tanh': a list is needed"),
        ("sweep=[{autoencoder.bottleneck.x: [tanh]}]", "'autoencoder.bottleneck.x'; it has no keys below it"),
        ("sweep=[{eeg.alpha: [0.05, 0.01]}]", "sweep: eeg.alpha differs between variants"),
        ("sweep=[{reconstruction.n_draws: [2, 3]}]", "reconstruction.n_draws differs between variants"),
        ("sweep=[{eeg.permutations.n: [100, 200]}]", "eeg.permutations.n differs between variants"),
    ],
)
def test_impossible_values_are_named_with_what_is_allowed(override: str, words: str) -> None:
    assert words in mistake(override)


def test_true_is_a_flag_where_one_is_wanted_and_infinity_a_ratio() -> None:
    loaded = load_experiment(DEMO, ["data.allow_overlap=true", "reconstruction.snr=[.inf, 2]"])
    assert loaded.experiment.science.data.allow_overlap
    assert loaded.experiment.science.reconstruction is not None
    assert loaded.experiment.science.reconstruction.snr == (float("inf"), 2.0)


def test_numbers_may_be_written_as_1e_3() -> None:
    science = load_experiment(DEMO, ["flow.learning_rate=1e-3", "flow.steps=1e2", "name=1e"]).experiment.science
    assert (science.flow.learning_rate, science.flow.steps) == (1e-3, 100)


@pytest.mark.parametrize("section", ["", "  eeg: null\n", "  eeg:\n"])
def test_a_section_that_is_null_can_be_filled_from_the_command_line(tmp_path: Path, section: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text((ROOT / "experiments/recordings.yaml").read_text().replace("sweep:", f"{section}sweep:", 1))
    eeg = load_experiment(str(path), ["eeg.cnd.path=x", "eeg.cnd.trials=y"]).experiment.science.eeg
    assert eeg is not None
    assert eeg.cnd is not None
    assert (eeg.cnd.path, eeg.cnd.trials) == ("x", "y")
    swept = load_experiment(str(path), ["sweep=[{eeg.cnd.path: [a]}]"]).experiment.variants()
    assert [science.eeg.cnd.path for science in swept.values() if science.eeg and science.eeg.cnd] == ["a"]
    assert "'eeg.cnd.pth'; did you mean 'path'?" in mistake("sweep=[{eeg.cnd.pth: [a]}]", path=str(path))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CPUS", "many", "execution.cpus = 'many'"),
        ("CPUS", "[1", "environment ORCHESTRATOR_CPUS=[1: the value is not valid YAML"),
        ("CPU", "2", "environment ORCHESTRATOR_CPU: unknown key; did you mean 'cpus'?"),
    ],
)
def test_mistakes_in_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(f"ORCHESTRATOR_{name}", value)
    assert words in mistake()


def test_only_the_band_of_the_eeg_may_be_swept() -> None:
    sweep = "sweep=[{autoencoder.bottleneck: [tanh], eeg.preprocessing.band_hz: [[1, 8], [0.5, 4.0]]}]"
    loaded = load_experiment(DEMO, [sweep, "eeg.canaries=null", "autoencoder.latent_noise.applied_to=none"]).experiment
    assert list(loaded.variants()) == ["tanh none 1-8 Hz", "tanh none 0.5-4 Hz"]
    assert "eeg.preprocessing.bad_channel_std_ratio differs between variants" in mistake(
        "sweep=[{eeg.preprocessing.bad_channel_std_ratio: [3, 4]}]"
    )
    assert "band_hz: 8-4 Hz must rise" in mistake("sweep=[{eeg.preprocessing.band_hz: [[8, 4]]}]")
