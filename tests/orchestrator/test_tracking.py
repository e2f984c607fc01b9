# ruff: noqa: E501
"""What the runs of a study hold, and that they are the same runs at every start."""

from __future__ import annotations

import time
from pathlib import Path

import made_up_study
import pytest
from tracked import STUDY, client_of, mirror_all, outcome, runs_of, small_study, tracking_of

from orchestrator import mirror
from orchestrator.reasons import Reason
from orchestrator.report import Report, build


def test_second_start_finds_the_same_runs(uri, study):
    graph, ledger, report = study
    mirror_all(tracking_of(uri, ledger), graph, ledger, report)
    first = {name: run.info.run_id for name, run in runs_of(uri).items()}
    assert set(first) == {STUDY, "base layernorm", "ae layernorm none", "ae layernorm E+D m=0.0", "flow layernorm none",
                          "flow layernorm E+D m=0.0", "evaluation layernorm none", "evaluation layernorm E+D m=0.0"}  # fmt: skip
    Path(uri.removeprefix("sqlite:///") + ".mirrored.json").unlink()
    mirror_all(tracking_of(uri, ledger, "two"), graph, ledger, report)
    runs = runs_of(uri)
    assert {name: run.info.run_id for name, run in runs.items()} == first
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    children = [run for name, run in runs.items() if name != STUDY]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {first[STUDY]}
    assert {run.data.tags["SIMULATED"] for run in runs.values()} == {"true"}


def test_what_is_written_twice_is_there_once(uri, study):
    graph, ledger, report = study
    for driver in ("one", "two"):
        mirror_all(tracking_of(uri, ledger, driver), graph, ledger, report)
        Path(uri.removeprefix("sqlite:///") + ".mirrored.json").unlink()
    client, runs = client_of(uri), runs_of(uri)
    for name, key, n in (("ae layernorm none", "train_loss", 40), ("ae layernorm none", "final/train_loss", 1),
                         ("evaluation layernorm none", "by_level/delta_r", 5), ("evaluation layernorm none", "delta_r_best", 1)):  # fmt: skip
        steps = [point.step for point in client.get_metric_history(runs[name].info.run_id, key)]
        assert len(steps) == len(set(steps)) == n, (name, key)
    base = runs["base layernorm"]
    assert base.data.tags["rebuilt"] == "true"
    assert base.data.params["training.steps"] == "40"
    assert base.data.params["bottleneck"] == "layernorm"


def test_evaluation_has_curves_over_noise_level_and_columns_to_sort_by(uri, study):
    graph, ledger, report = study
    mirror_all(tracking_of(uri, ledger), graph, ledger, report)
    client, runs = client_of(uri), runs_of(uri)
    run = runs["evaluation layernorm E+D m=0.0"]
    history = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "by_level/delta_r")}
    tested = report.results.tested
    assert history == {
        round(1000 * c.noise_level): c.delta_r_mean for c in tested.conditions if c.variant == "layernorm E+D m=0.0"
    }
    levels = made_up_study.LEVELS
    for measure, values in (
        ("ic_sd", [10.0 * (1 - s) for s in levels]),
        ("solver_error_nats", [0.4 + s for s in levels]),
    ):
        points = client.get_metric_history(run.info.run_id, f"by_level/{measure}_melodies")
        assert {p.step: p.value for p in points} == {round(1000 * s): v for s, v in zip(levels, values, strict=True)}
    assert run.data.metrics["noise_level_best"] == 0.4
    assert run.data.metrics["delta_r_best"] == history[400]
    assert run.data.metrics["p_best"] == 0.004
    assert run.data.params["latent_noise.applied_to"] == "encoder+decoder"
    names = {item.path for item in client.list_artifacts(runs[STUDY].info.run_id, "report")}
    assert names == {"report/figures", "report/tables", "report/report.html"}
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["group.csv"]
    assert "SIMULATED" in runs[STUDY].data.tags["mlflow.note.content"]


def test_failed_training_is_a_failed_run_and_then_the_same_run_finished(uri):
    graph, ledger = small_study(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    done = ledger.statuses[cell.signature]
    for status, expected in ((ledger.fail(cell, "loss is NaN"), "FAILED"), (done, "FINISHED")):
        ledger.statuses[cell.signature] = status
        tracking = tracking_of(uri, ledger)
        tracking.study_started(graph, {})
        tracking.cell_started(cell, Reason.RETRY_REQUESTED)
        tracking.cell_finished(cell, status, False)
        tracking.study_finished(outcome(exit_code=int(expected == "FAILED")))
        tracking.close()
        run = runs_of(uri)[cell.name]
        assert run.info.status == expected
        assert run.data.tags.get("failure") == (None if expected == "FINISHED" else "loss is NaN")


def test_training_of_another_study_is_tagged_reused(uri):
    graph, ledger = small_study(eeg=False)
    mirror_all(tracking_of(uri, ledger, study="first"), graph, ledger)
    mirror_all(tracking_of(uri, ledger, study="second"), graph, ledger)
    assert runs_of(uri, "second")["base layernorm"].data.tags["reused_from"] == "first"
    assert runs_of(uri, "first")["base layernorm"].data.tags["rebuilt"] == "true"


def test_nothing_changed_opens_nothing(uri, study):
    graph, ledger, report = study
    mirror_all(tracking_of(uri, ledger), graph, ledger, report)
    path = Path(uri.removeprefix("sqlite:///"))
    before = path.stat().st_mtime_ns
    again = tracking_of(uri, ledger, "two")
    since = time.monotonic()
    mirror_all(again, graph, ledger, report)
    assert not again._writer.started
    assert path.stat().st_mtime_ns == before
    assert time.monotonic() - since < 3


@pytest.mark.parametrize("change", ["store gone", "store written", "new result", "new report"])
def test_any_change_is_mirrored(uri, study, change):
    graph, ledger, report = study
    mirror_all(tracking_of(uri, ledger), graph, ledger, report)
    path = Path(uri.removeprefix("sqlite:///"))
    cell = next(cell for cell in graph if cell.stage == "pitch")
    attempt = ledger.statuses[cell.signature].attempt
    if change == "store gone":
        path.unlink()
    elif change == "store written":
        client_of(uri).delete_run(runs_of(uri)["base layernorm"].info.run_id)
    elif change == "new result":
        ledger.statuses[cell.signature].attempt = "later"
    else:
        table = report.paths["pitch.csv"].with_name("other.csv")
        table.write_text("other")
        report = Report({**report.paths, "other.csv": table}, report.text, report.headline, report.results)
    again = tracking_of(uri, ledger, "two")
    mirror_all(again, graph, ledger, report)
    ledger.statuses[cell.signature].attempt = attempt
    assert again._writer.started
    assert "base layernorm" in runs_of(uri)


# What runs hold


def test_configs_are_flattened_by_dots():
    assert mirror.flatten({"a": {"b": 1.0, "c": [1, 2]}, "d": "inf", "e": None, "f": True}) == {
        "a.b": "1", "a.c": "[1,2]", "d": "inf", "e": "null", "f": "true"}  # fmt: skip


def test_curves_leave_out_what_is_no_number():
    assert mirror.curve("step,a,b\n1,0.5,\n2,nan,3\n3,,\n") == [(1, {"a": 0.5}), (2, {"b": 3.0})]


def test_best_level_is_that_of_the_largest_excess():
    curves = {"delta_r": {0: 0.3, 400: 0.1}, "excess_delta_r": {0: 0.0, 400: 0.05}, "p_stimulus": {0: 0.01, 400: 0.2},
              "p_subject": {400: 0.3}, "pitch_rho": {0: 0.4, 400: 0.2}}  # fmt: skip
    assert mirror.best(curves) == {"noise_level_best": 0.4, "delta_r_best": 0.1, "p_best": 0.3, "pitch_rho_best": 0.4}
    assert mirror.best({}) == {}


def test_the_audit_of_the_solver_has_curves_over_noise_level(tmp_path):
    arms, levels = {"none": ("none", 0.0)}, made_up_study.LEVELS
    graph, ledger = made_up_study.make(("layernorm",), arms, eeg=False, audited=levels)
    curves = mirror.by_level(build(graph, ledger, "demo", tmp_path), "layernorm none")
    assert curves["ic_reliability_melodies"] == dict.fromkeys((round(1000 * s) for s in levels), 0.92)
    assert curves["ic_doubling_nats_melodies"] == dict.fromkeys((round(1000 * s) for s in levels), 0.5)
    assert curves["solver_rmse_nats_melodies"] == {round(1000 * s): 0.8 + s for s in levels}
    assert curves["solver_rmse_over_sd_melodies"] == {round(1000 * s): 0.08 + s / 2 for s in levels}
