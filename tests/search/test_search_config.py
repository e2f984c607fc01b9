"""The section `search:` as people write it: what is taken, and what every mistake is answered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_study
import pytest

from orchestrator.opening import open_study
from orchestrator.reading import UsageError
from orchestrator.search.plan import Search
from orchestrator.search.records import Trial


def opened(folder: Path, changes: dict[str, Any] | None = None, *overrides: str) -> Search:
    search = open_study(fake_study.write(folder, changes), overrides, str(folder / "ledger")).search
    assert search is not None
    return search


def test_a_search_is_of_whole_variants_by_pitch_unless_told(tmp_path: Path) -> None:
    search = opened(tmp_path)
    assert (search.config.over, search.objective.name, search.config.sampler) == ("variants", "pitch_rho", "tpe")
    (dimension,) = search.space
    assert dimension.listed
    assert dimension.values() == [[round(0.1 * step, 1)] for step in range(10)]


def test_keys_are_typed_by_the_schema(tmp_path: Path) -> None:
    space = {
        "flow.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "flow.batch_size": {"low": 4, "high": 64},
        "surprisal.noise_levels": [0.2, [0.1, 0.5]],
        "autoencoder.bottleneck": ["layernorm", "tanh"],
    }
    found = {dimension.key: dimension for dimension in opened(tmp_path, {"search.space": space}).space}
    assert found["flow.learning_rate"].value(0.00123456) == 0.001235
    assert found["flow.batch_size"].value(7.0) == 7
    assert isinstance(found["flow.batch_size"].value(7.0), int)
    assert found["surprisal.noise_levels"].values() == [[0.2], [0.1, 0.5]]
    assert found["autoencoder.bottleneck"].kind == "choice"


def test_a_trial_is_named_by_what_differs_and_needs_only_what_is_asked(tmp_path: Path) -> None:
    space = {
        "flow.learning_rate": {"low": 1e-4, "high": 1e-2},
        "autoencoder.arm_training.learning_rate": [1e-4, 1e-3],
        "surprisal.noise_levels": [0.2, 0.4],
    }
    search = opened(tmp_path, {"search.space": space})
    settings = {
        "flow.learning_rate": 0.002,
        "autoencoder.arm_training.learning_rate": 1e-3,
        "surprisal.noise_levels": [0.4],
    }
    planned = search.plan(Trial(3, settings))
    stages = {cell.stage for cell in planned.graph}
    assert stages >= {"flow", "surprisal", "pitch"}
    assert not stages & {"reconstruction", "eeg", "trf"}
    (judge,) = planned.judges
    assert judge.name == "pitch layernorm none flow.learning_rate=0.002 arm_training.learning_rate=0.001 s=0.4"
    assert (judge.labels["trial"], judge.labels["search"]) == ("3", search.signature)


LEVELS = "surprisal.noise_levels"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"search.space": {"surprisal.noise_level": [0.1, 0.2]}}, "did you mean 'noise_levels'?"),
        (
            {"search.space": {LEVELS: {"low": 0, "high": 1.5}}},
            "noise_levels.0 = 1.5: input should be less than or equal",
        ),
        ({"search.space": {LEVELS: {"low": 0, "hihg": 1}}}, "unknown key 'hihg'; did you mean 'high'?"),
        ({"search.space": {LEVELS: {"low": 0.5, "high": 0.5}}}, "low 0.5 is not below high 0.5"),
        ({"search.space": {LEVELS: {"low": 0, "high": 1, "log": True}}}, "log needs a low above 0"),
        ({"search.space": {LEVELS: [0.1]}}, "at least two choices"),
        ({"search.space": {LEVELS: 0.1}}, "a list of choices or a range is needed"),
        ({"search.space": {"autoencoder.bottleneck": {"low": 0, "high": 1}}}, "is no number: give a list of choices"),
        ({"search.space": {"autoencoder.bottleneck": ["tanh", "layrnorm"]}}, "did you mean 'layernorm'?"),
        ({"search.space": {"flow.batch_size": {"low": 1.5, "high": 4}}}, "takes whole numbers; low is 1.5"),
        ({"search.space": {"flow": [{}, {"steps": 3}]}}, "'flow' is a section; name one of its keys (size, steps"),
        (
            {"search.space": {"reconstruction.n_draws": [1, 2]}},
            "'reconstruction.n_draws' makes no difference to pitch_rho",
        ),
        ({"search.objective": "pitch_roh"}, "did you mean 'pitch_rho'?"),
        ({"search.objective": "delta_r"}, "delta_r is not measured in this study: it needs an eeg section"),
        ({"search.over": "flow", "search.objective": "pitch_rho"}, "judged by its validation loss; remove the key"),
        (
            {"search.over": "flow", "search.space": {"autoencoder.bottleneck": ["tanh", "layernorm"]}},
            "changes what flow is trained on",
        ),
        ({"search.over": "flow"}, f"'{LEVELS}' makes no difference to flow"),
        ({"search.over": "flwo"}, "did you mean 'flow'?"),
    ],
)
def test_every_mistake_is_one_line(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        opened(tmp_path, changes)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("fake.yaml") == 1


def test_without_melodies_there_is_no_pitch_to_choose_by(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"search.objective: pitch_rho is not measured .* data.melodies with notes"):
        opened(tmp_path, {"data.melodies": None})


def test_sweep_and_search_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a study has a sweep or a search; remove one of both"):
        opened(tmp_path, None, "sweep=[{autoencoder.bottleneck: [tanh, layernorm]}]")


def test_a_key_that_matters_only_beside_another_is_allowed(tmp_path: Path) -> None:
    space = {
        "autoencoder.latent_noise.logit_mean": {"low": -1.0, "high": 1.0},
        "autoencoder.latent_noise.applied_to": ["none", "decoder"],
    }
    opened(tmp_path, {"search.space": space})
    with pytest.raises(UsageError, match="logit_mean' makes no difference"):
        opened(tmp_path, {"search.space": {"autoencoder.latent_noise.logit_mean": {"low": -1.0, "high": 1.0}}})


def test_the_signature_names_what_is_searched_and_nothing_else(tmp_path: Path) -> None:
    first = opened(tmp_path).signature
    same = ("search.n_trials=50", "search.concurrent=7", "surprisal.noise_levels=[0.7]", "reconstruction=null")
    assert opened(tmp_path, None, *same).signature == first
    chosen_on = opened(tmp_path, {"data.melodies_dev": {"source": "chorales", "split": "test"}})
    assert chosen_on.signature == first
    assert {cell.labels["role"] for cell in chosen_on.base.judges} == {"melodies"}
    assert not any("melodies_dev" in cell.name for cell in chosen_on.base.graph)
    for other in ("search.seed=1", "search.sampler=random", "surprisal.n_nodes=7", "data.melodies.pieces=5", "seed=1"):
        assert opened(tmp_path, None, other).signature != first, other


@pytest.mark.parametrize("where", ["search.space", "sweep"])
def test_no_choice_holds_a_password(tmp_path: Path, where: str) -> None:
    given = '["https://me:hush-hush@host/a", b]'
    changes = {
        "search.space": (f"search.space={{data.path: {given}}}",),
        "sweep": ("search=null", f"sweep=[{{data.path: {given}}}]"),
    }
    with pytest.raises(UsageError, match="can't hold a password") as refused:
        opened(tmp_path, None, *changes[where])
    assert "hush-hush" not in str(refused.value)
