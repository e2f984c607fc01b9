"""Choosing on held-out EEG has to be asked for in words, and everything that is made of it says so."""

from __future__ import annotations

import csv
import json
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import fake_study
import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.ledger import Ledger
from orchestrator.report.figures import style
from orchestrator.search import run as search_run
from orchestrator.verbs import status as status_verb

SPACE = {"surprisal.noise_levels": [0.1, 0.3, 0.5]}
BY_EEG = {**fake_study.EEG, "search.objective": "delta_r", "search.space": SPACE}
BY_PITCH = {**fake_study.EEG, "search.space": SPACE}


@pytest.fixture(autouse=True)
def made_up_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_run, "SearchRun", partial(search_run.SearchRun, stages=fake_study.STAGES))


def call(verb: str, folder: Path, changes: dict[str, Any], *words: str) -> Any:
    path = fake_study.write(folder, changes)
    return CliRunner().invoke(app, [verb, path, "--ledger", str(folder / "ledger"), *words])


def test_choosing_by_eeg_is_refused_with_the_reason(tmp_path: Path) -> None:
    refused = call("run", tmp_path, BY_EEG, "--inline")
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert "delta_r chooses on held-out EEG" in line
    assert "--exploratory" in line
    assert not (tmp_path / "ledger/search").exists()
    assert call("plan", tmp_path, BY_EEG).exit_code == 0, "looking is allowed"


def test_exploratory_is_only_for_what_needs_it(tmp_path: Path) -> None:
    refused = call("run", tmp_path, BY_PITCH, "--inline", "--exploratory")
    assert refused.exit_code == 2
    assert "only a search by delta_r needs it" in refused.stderr


def test_every_artefact_of_an_exploratory_search_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamped: list[str] = []
    mark = style.mark_exploratory
    monkeypatch.setattr(
        style, "mark_exploratory", lambda figure, results: (stamped.append(results.exploratory), mark(figure, results))
    )
    done = call("run", tmp_path, BY_EEG, "--inline", "--exploratory")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("study fake  [SIMULATED]  [EXPLORATORY]\nEXPLORATORY: ")
    assert "EXPLORATORY" in done.stderr
    report = tmp_path / "ledger/reports/fake"
    assert "EXPLORATORY: chosen on held-out EEG" in (report / "report.html").read_text()
    assert stamped
    assert all(stamped)
    tables = list((report / "tables").glob("*.csv"))
    assert {table.name for table in tables} >= {"trials.csv", "results.csv"}
    for table in tables:
        assert {row["exploratory"] for row in csv.DictReader(table.read_text().splitlines())} == {"true"}
    records = [json.loads(path.read_text()) for path in (tmp_path / "ledger/search").glob("*/*.json")]
    assert len(records) == 4
    assert all(record["exploratory"] for record in records)
    with sqlite3.connect(tmp_path / "ledger/mlflow.db") as store:
        marked = dict(store.execute("SELECT run_uuid, value FROM tags WHERE key = 'EXPLORATORY'").fetchall())
        runs = {row[0] for row in store.execute("SELECT run_uuid FROM runs").fetchall()}
        scores = store.execute("SELECT step, value FROM metrics WHERE key = 'search/delta_r' ORDER BY step").fetchall()
        tags = dict(store.execute("SELECT key, value FROM tags WHERE key IN ('search', 'trial')").fetchall())
    assert runs
    assert set(marked) == runs
    assert [step for step, _ in scores] == [0, 1, 2]
    assert max(value for _, value in scores) == pytest.approx(0.02)
    assert tags["trial"] == "0"

    assert call("report", tmp_path, BY_EEG).stdout.splitlines()[1].startswith("EXPLORATORY")
    chosen = call("report", tmp_path, {**BY_EEG, "search": None, "surprisal.noise_levels": [0.3]})
    second = chosen.stdout.splitlines()[1]
    assert second.startswith("EXPLORATORY: search ")
    assert "looked at 3 settings on this EEG, and this study tests 1 of them" in second
    every = call("report", tmp_path, {**BY_EEG, "search": None, "surprisal.noise_levels": [0.1, 0.3, 0.5]})
    assert "EXPLORATORY" not in every.stdout, "a study that tests all of them chose nothing"


def test_a_search_by_pitch_marks_nothing(tmp_path: Path) -> None:
    done = call("run", tmp_path, {**BY_PITCH, "execution.tracking_uri": f"sqlite:///{tmp_path}/m.db"}, "--inline")
    assert done.exit_code == 0, done.output
    assert "EXPLORATORY" not in done.output
    assert "EXPLORATORY" not in (tmp_path / "ledger/reports/fake/report.html").read_text()
    best = done.stdout.splitlines()[-1]
    assert best.startswith("best      orchestrator run ")
    assert best.endswith("'surprisal.noise_levels=[0.3]'")
    assert "It was chosen on data.melodies (split dev)" in done.stdout


def test_plan_status_and_report_show_the_trials(tmp_path: Path) -> None:
    fresh = call("plan", tmp_path, BY_PITCH).stdout
    assert "3 to do" not in fresh
    assert "6 to do" in fresh
    call("run", tmp_path, BY_PITCH, "--inline")
    plan = call("plan", tmp_path, BY_PITCH).stdout
    assert "3 complete" in plan
    assert "best so far: trial" in plan
    assert "everything is cached" in plan
    status = call("status", tmp_path, BY_PITCH).stdout.splitlines()
    rows = [line.split() for line in status if line.endswith("complete") and not line.startswith("search")]
    assert [row[1] for row in rows] == ["[0.3]", "[0.1]", "[0.5]"], "the best first"
    content = json.loads(call("status", tmp_path, BY_PITCH, "--json").stdout)["search"]
    assert next(trial["settings"] for trial in content["trials"]) == {"surprisal.noise_levels": [0.3]}
    table = (tmp_path / "ledger/reports/fake/tables/trials.csv").read_text().splitlines()
    assert table[0] == "trial,surprisal.noise_levels,objective,value,state,why,cells"
    assert (tmp_path / "ledger/reports/fake/figures/search.png").stat().st_size > 1000


def test_following_a_search_ends_with_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_verb, "FOLLOW_EVERY_S", 0.0)
    two = {**BY_PITCH, "search.n_trials": 2}
    call("run", tmp_path, two, "--inline")
    assert call("status", tmp_path, two, "--follow").exit_code == 0
    assert call("status", tmp_path, BY_PITCH, "--follow").exit_code == 1, "one setting is left, and nobody tries it"

    looks = iter([set(), set(), {"driver"}, set()])

    def alive(self: Ledger, within_s: float) -> set[str]:
        found: set[str] = next(looks, set())
        if found:
            call("run", tmp_path, BY_PITCH, "--inline")
        return found

    monkeypatch.setattr(Ledger, "alive_drivers", alive)
    assert call("status", tmp_path, BY_PITCH, "--follow").exit_code == 0, "a gap between two rounds is no end"
