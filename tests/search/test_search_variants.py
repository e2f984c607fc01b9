"""Searches over whole variants: what is asked, what is remembered, what goes on, and what is never done twice."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import fake_study
import pytest

from orchestrator.opening import open_study
from orchestrator.outcome import Outcome
from orchestrator.search.records import Records, Trial, TrialState
from orchestrator.search.run import SearchRun
from orchestrator.search.showing import best, command
from orchestrator.signals import stop_on_signals
from orchestrator.storage import Storage
from orchestrator.study import Execution


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Which cells were computed, one a line."""
    monkeypatch.setenv(fake_study.LOG_ENVIRONMENT, str(tmp_path / "log"))
    (tmp_path / "log").touch()
    return tmp_path / "log"


class Runs:
    """The same command again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()

    def __call__(self, changes: dict[str, Any] | None = None, *overrides: str, **execution: Any) -> SearchRun:
        search = open_study(fake_study.write(self.folder, changes), overrides, str(self.folder / "ledger")).search
        assert search is not None
        running = SearchRun(
            search,
            Execution(**{"inline": True, **execution}),
            lambda: [],
            "driver",
            [],
            self.said.append,
            fake_study.STAGES,
        )
        self.outcome: Outcome = running.run()
        return running


@pytest.fixture
def run(tmp_path: Path, log: Path) -> Runs:
    return Runs(tmp_path)


def settings(running: SearchRun) -> list[Any]:
    return [trial.settings for _, trial in sorted(running.trials.items())]


def test_the_best_level_is_found_and_nothing_is_computed_twice(run: Runs, log: Path) -> None:
    first = run({"search.n_trials": 9})
    assert run.outcome.exit_code in (0, 1)  # level 0.9 fails, if it was asked for
    leader = best(first.search, first.trials.values())
    assert leader is not None
    assert leader.settings == {"surprisal.noise_levels": [0.3]}
    assert leader.value == 0.5
    computed = Counter(log.read_text().splitlines())
    assert set(computed.values()) == {1}
    assert Counter(line.split()[0] for line in computed)["flow"] == 1, "all levels share one flow"
    before = log.read_text()
    again = run({"search.n_trials": 9})
    assert log.read_text() == before
    assert run.outcome.done == []
    assert again.trials == first.trials


def test_a_space_is_tried_to_its_end_and_no_setting_twice(run: Runs) -> None:
    running = run({"search.n_trials": 50, "search.concurrent": 3})
    levels = [found["surprisal.noise_levels"][0] for found in settings(running)]
    assert sorted(levels) == [round(0.1 * step, 1) for step in range(10)]


def test_a_failed_trial_is_said_and_is_tried_again_on_request(run: Runs, log: Path) -> None:
    changes = {"search.space": {"surprisal.noise_levels": [0.1, 0.9]}}
    running = run(changes)
    (failed,) = [trial for trial in running.trials.values() if trial.state is TrialState.FAILED]
    assert "too noisy to correlate" in failed.sentence
    assert run.outcome.exit_code == 1
    count = len(log.read_text().splitlines())
    run(changes)
    assert (len(log.read_text().splitlines()), run.outcome.exit_code) == (count, 1)
    run(changes, retry_failed=True)
    assert len(log.read_text().splitlines()) == count + 1, "one failed cell is tried again"


def test_later_trials_only_add_and_ask_for_what_one_run_would_have_asked_for(
    run: Runs, tmp_path: Path, log: Path
) -> None:
    space = {
        "flow.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "autoencoder.bottleneck": ["layernorm", "tanh"],
    }
    changes = {"search.space": space, "search.objective": None, "search.over": "variants", "search.concurrent": 1}
    run({**changes, "search.n_trials": 5, "surprisal.noise_levels": [0.2]})
    grown = run({**changes, "search.n_trials": 12, "surprisal.noise_levels": [0.2]})
    (tmp_path / "other").mkdir()
    at_once = Runs(tmp_path / "other")({**changes, "search.n_trials": 12, "surprisal.noise_levels": [0.2]})
    assert settings(grown) == settings(at_once)
    assert len({json.dumps(found, sort_keys=True) for found in settings(grown)}) == 12
    rates = [found["flow.learning_rate"] for found in settings(grown)]
    assert all(rate == float(f"{rate:.4g}") and 1e-4 <= rate <= 1e-2 for rate in rates)


def test_an_interrupted_round_is_taken_up_before_anything_else_is_asked(
    run: Runs, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = SearchRun._judge

    def killed(self: SearchRun, trial: Trial, *values: Any) -> None:
        if trial.number == 1:
            raise KeyboardInterrupt
        judge(self, trial, *values)

    monkeypatch.setattr(SearchRun, "_judge", killed)
    with pytest.raises(KeyboardInterrupt):
        run({"search.n_trials": 4})
    monkeypatch.undo()
    monkeypatch.setenv(fake_study.LOG_ENVIRONMENT, str(log))
    search = open_study(fake_study.write(run.folder, {"search.n_trials": 4}), (), str(run.folder / "ledger")).search
    assert search is not None
    kept = search.trials()
    assert [trial.state for trial in kept] == [TrialState.COMPLETE, TrialState.RUNNING]
    count = Counter(log.read_text().splitlines())
    running = run({"search.n_trials": 4})
    assert [running.trials[trial.number].settings for trial in kept] == [trial.settings for trial in kept]
    assert len(running.trials) == 4
    after = Counter(log.read_text().splitlines())
    assert all(after[line] == 1 for line in count), "what was computed before is not computed again"


def test_a_signal_that_comes_between_rounds_is_kept(run: Runs, log: Path) -> None:
    with stop_on_signals() as flag:
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.is_set()
        stopped = run({"search.n_trials": 4})
    assert (run.outcome.signum, run.outcome.exit_code) == (signal.SIGTERM, 143)
    assert stopped.trials == {}
    assert log.read_text() == ""


def test_a_signal_that_comes_while_a_round_is_planned_is_kept(
    run: Runs, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = SearchRun._next_round

    def hit(self: SearchRun) -> list[Trial]:
        os.kill(os.getpid(), signal.SIGINT)
        return ask(self)

    monkeypatch.setattr(SearchRun, "_next_round", hit)
    run({"search.n_trials": 4})
    assert run.outcome.signum == signal.SIGINT
    assert log.read_text() == ""


def test_random_searches_and_seeds_ask_for_other_settings(run: Runs) -> None:
    space = {"search.space": {"flow.learning_rate": {"low": 1e-4, "high": 1e-2}}, "surprisal.noise_levels": [0.2]}
    found = [settings(run({**space, **more})) for more in ({}, {"search.seed": 1}, {"search.sampler": "random"})]
    assert found[0] != found[1]
    assert len({found[2][number]["flow.learning_rate"] for number in range(6)}) == 6


def test_reconstruction_is_judged_above_its_floor(run: Runs) -> None:
    running = run(
        {"search.objective": "log_spectral_distance", "search.space": {"autoencoder.bottleneck": ["tanh", "layernorm"]}}
    )
    scores = {trial.settings["autoencoder.bottleneck"]: trial.value for trial in running.trials.values()}
    assert scores == {"tanh": -2.0, "layernorm": -3.0}
    leader = best(running.search, running.trials.values())
    assert leader is not None
    assert leader.settings == {"autoencoder.bottleneck": "layernorm"}


def test_settings_that_do_not_fit_together_fail_their_trial_alone(run: Runs) -> None:
    space = {"data.melodies.split": ["dev", "train"], "data.allow_overlap": [True, False]}
    changes = {"search.space": space, "data.allow_overlap": True, "surprisal.noise_levels": [0.2]}
    running = run(changes)
    refused = [trial for trial in running.trials.values() if trial.state is TrialState.FAILED]
    assert [trial.settings for trial in refused] == [{"data.melodies.split": "train", "data.allow_overlap": False}]
    assert "shares recordings with train" in refused[0].sentence
    assert run.outcome.exit_code == 1


def test_a_search_whose_trials_all_fail_stops_asking(run: Runs) -> None:
    running = run({"search.space": {"surprisal.noise_levels": {"low": 0.86, "high": 0.99}}, "search.n_trials": 30})
    assert len(running.trials) == 4
    assert run.outcome.exit_code == 1


def test_records_that_cannot_be_read_are_asked_for_again(run: Runs) -> None:
    first = run({"search.n_trials": 3, "search.concurrent": 1})
    record = run.folder / "ledger/search" / first.search.signature / "00002.json"
    record.write_text("{")
    again = run({"search.n_trials": 3, "search.concurrent": 1})
    assert again.trials == first.trials


def test_two_drivers_do_not_overwrite_each_others_trials(tmp_path: Path) -> None:
    mine, theirs = (Records(Storage(str(tmp_path)), "ab" * 16) for _ in range(2))
    first = mine.place(Trial(0, {"a": 1})).completed(0.5)
    mine.put(first)
    assert theirs.place(Trial(0, {"a": 2})).number == 1, "the next free number"
    assert theirs.place(Trial(0, {"a": 1})) == first, "the same settings are one trial"
    assert mine.place(Trial(0, {"a": 3})).number == 2
    assert [trial.settings["a"] for _, trial in sorted(mine.trials().items())] == [1, 2, 3]


def test_what_another_driver_tried_meanwhile_counts(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Trial(0, {"surprisal.noise_levels": [0.7]}).failed("theirs")
    ask = SearchRun._next_round

    def meanwhile(self: SearchRun) -> list[Trial]:
        if 0 not in self.search.records.trials():
            self.search.records.put(theirs)
        return ask(self)

    monkeypatch.setattr(SearchRun, "_next_round", meanwhile)
    running = run({"search.n_trials": 3})
    assert running.trials[0] == theirs
    assert running.search.records.trials() == running.trials
    assert len({str(found) for found in settings(running)}) == len(running.trials) == 3


def test_the_best_is_ready_to_type(run: Runs) -> None:
    running = run({"search.n_trials": 50}, "surprisal.n_nodes=9", "search.concurrent=4")
    leader = best(running.search, running.trials.values())
    assert leader is not None
    words = command(running.search, leader)
    assert words.startswith("orchestrator run ")
    assert "search=null name=fake-best 'surprisal.noise_levels=[0.3]'" in words
    assert "surprisal.n_nodes=9" in words
    assert "search.concurrent" not in words
    assert words.count("execution.ledger=") == 1


def test_eeg_is_judged_by_its_models_without_permutations(run: Runs, log: Path) -> None:
    changes = {**fake_study.EEG, "search.objective": "delta_r", "search.n_trials": 3}
    running = run(changes)
    assert all(trial.exploratory and len(trial.cells) == 2 for trial in running.trials.values())
    assert all(trial.value is not None for trial in running.trials.values())
    assert not {line.split()[0] for line in log.read_text().splitlines()} & {"permutations", "group", "canaries"}
