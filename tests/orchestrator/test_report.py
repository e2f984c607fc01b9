"""The whole report: its page and figures, what is missing, and what it costs to look."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import made_up_study
import pytest

from orchestrator.graph import CellSpec
from orchestrator.planner_eeg_group import reduce
from orchestrator.report import build
from orchestrator.report.figures import style
from orchestrator.report.gathering import gather
from orchestrator.report.results import Results, Score
from orchestrator.report.solver import precisions, warning
from orchestrator.report.tables import csv_tables, error_rows, surprisal_rows
from orchestrator.signature import sign
from orchestrator.storage import Storage

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("metrics", "cells", "share"),
    [
        ({"ic_mean": 80.0, "ic_sd": 2.0}, ("+80.00", "2", "", ""), ""),
        ({"ic_mean": 80.0, "ic_sd": 0.0, "solver_error_nats": 0.5}, ("+80.00", "0", "0.5", ""), ""),
        ({"ic_mean": float("nan"), "solver_error_nats": None}, ("", "", "", ""), ""),
        ({"ic_mean": 80.0, "ic_sd": 2.0, "solver_error_nats": 0.0}, ("+80.00", "2", "0", "0.000"), "0.000"),
    ],
)
def test_what_older_cells_do_not_state_is_blank(metrics, cells, share):
    scores = (
        Score("v", "0.2", {"ic_sd": 2.0, "solver_error_nats": 0.5}, role="melodies"),
        Score("v", "0.8", metrics, role="melodies"),
    )
    results = Results("demo", ("v",), surprisal=scores)
    assert surprisal_rows(results)[1] == ("v", "melodies", "0.8", *cells)
    assert error_rows(results)[1] == [("v", "melodies", "0.250", share)]
    text = csv_tables(results)["surprisal.csv"]
    assert list(csv.DictReader(text.splitlines()))[1]["error_over_sd"] == ("" if not share else "0.0")
    assert "nan" not in text
    assert warning(precisions(results)) == ""


def test_every_figure_and_table_is_there(built):
    report, folder = built
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert figures == {"cortical_tracking", "scalp_maps", "kernels", "pitch_correlation", "reconstruction"}
    assert all(path.exists() and path.stat().st_size > 0 for path in report.paths.values())
    assert report.text.splitlines()[0] == "study demo  [SIMULATED]"
    for shown in ("Canaries GREEN", "sqlite:///here/mlflow.db", "report.html", "broken.wav: it ends after 0.1 s"):
        assert shown in report.text


def test_page_needs_nothing_else(built):
    _, folder = built
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "http" not in page.replace("http-equiv", "")
    assert "SIMULATED: recovers a planted response; says nothing about brains" in page


def test_report_is_equal_byte_for_byte(tmp_path):
    graph, ledger = made_up_study.make(("layernorm",))
    reports = [build(graph, ledger, "demo", tmp_path / name) for name in "ab"]
    contents = [{name: path.read_bytes() for name, path in report.paths.items()} for report in reports]
    assert contents[0] == contents[1]


def test_names_are_escaped_on_the_page(tmp_path):
    evil = "<script>alert(1)</script>"
    graph, ledger = made_up_study.make(("layernorm",), {evil: ("none", 0.0)}, effect=0.0)
    page = build(graph, ledger, f"study {evil}", tmp_path).paths["report.html"].read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_degenerate_only_behind_a_layer_norm_at_zero(built):
    results = built[0].results
    assert results.degenerate("layernorm none", 0.0)
    assert not results.degenerate("layernorm none", 0.2)
    assert not results.degenerate("tanh none", 0.0)
    assert "0*" in built[0].text
    assert "degenerate" in built[0].text


def test_empty_study_is_reported(tmp_path):
    graph, _ = made_up_study.make(("layernorm",))
    report = build(graph, made_up_study.FakeLedger(), "demo", tmp_path)
    assert "no result yet" in report.text
    assert report.headline[0].startswith("No noise level of any variant is claimed")
    assert set(report.paths) == {"report.html"}


def test_without_eeg_and_notes_the_rest_is_shown(tmp_path):
    graph, ledger = made_up_study.make(("tanh",), eeg=False, notes=False)
    report = build(graph, ledger, "demo", tmp_path)
    assert set(report.paths) == {"reconstruction", "reconstruction.csv", "report.html"}
    assert "no melodies with known notes" in report.text


def test_failures_and_missing_subjects_are_named(tmp_path):
    graph, ledger = made_up_study.make(("layernorm",), missing=("S02",))
    report = build(graph, ledger, "demo", tmp_path)
    assert "S02: not in the group: subject S02: no trial could be read" in report.text
    assert "eeg: eeg S02: subject S02: no trial could be read" in report.text


def test_damaged_group_is_named_and_costs_nothing_else(tmp_path):
    graph, ledger = made_up_study.make(("layernorm",))
    for cell in graph:
        if cell.stage == "group" and cell.labels["tested"] == "true":
            ledger.files[cell.signature]["group.json"] = b"{"
    report = build(graph, ledger, "demo", tmp_path)
    assert "group.json of group acoustic_plus/onset: it cannot be read" in report.text
    assert "cortical_tracking" in report.paths
    assert "scalp_maps" not in report.paths


def test_figure_that_cannot_be_drawn_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.report.figures.reconstruction.draw", lambda _: 1 / 0)
    graph, ledger = made_up_study.make(("layernorm",), eeg=False)
    report = build(graph, ledger, "demo", tmp_path)
    assert "figure reconstruction: it could not be drawn: ZeroDivisionError" in report.text
    assert "pitch_correlation" in report.paths


def test_report_reads_a_real_ledger(tmp_path):
    ledger = made_up_study.RealLedger(Storage(str(tmp_path / "results")))
    graph, _ = made_up_study.make(("layernorm",), {"none": ("none", 0.0)}, n_subjects=5, ledger=ledger)
    expected = csv_tables(gather(*made_up_study.make(("layernorm",), {"none": ("none", 0.0)}, n_subjects=5), "demo"))
    results = gather(graph, ledger, "demo")
    assert csv_tables(results) == expected
    assert results.provenance["python"]


def test_reduced_group_is_found():
    """A group computed without a failed subject has another signature than the one planned."""
    study, ledger = made_up_study.Study(), made_up_study.FakeLedger()
    eeg = [study.add("eeg", f"eeg S{i}", {"subject": f"S{i}", "kind": "listener"}, subject=f"S{i}") for i in (1, 2)]
    labels = {"variant": "v", "noise_level": "0.0", "model": "acoustic_plus/onset"}
    fits = [
        study.add("trf", f"trf S{i}", {"i": i}, {"eeg": cell.signature}, subject=f"S{i}", **labels)
        for i, cell in enumerate(eeg, 1)
    ]
    subjects = [{"subject": f"S{i + 1}", "trf": i, "permutations": [], "eeg": i} for i in range(2)]
    model = {"reduced": "acoustic_plus", "regressor": "onset", "tested": True}
    config = {
        "model": model,
        "alpha": 0.05,
        "missing": [],
        "conditions": [{"variant": "v", "noise_level": 0.0, "subjects": subjects}],
    }
    inputs = {"trf": tuple(c.signature for c in fits), "permutations": (), "eeg": tuple(c.signature for c in eeg)}
    planned = CellSpec(
        "group", "group", config, inputs, sign("group", 1, config, inputs), {"model": "acoustic_plus/onset"}
    )
    study.cells[planned.signature] = planned
    ledger.finish(eeg[0], {}, {"simulated": True})
    ledger.finish(fits[0], {}, {"delta_r": 0.1})
    ledger.fail(eeg[1], "no trial")
    smaller = reduce(planned, {eeg[1].signature: "no trial", fits[1].signature: "its input eeg S2 failed: no trial"})
    assert smaller is not None
    ledger.finish(smaller, {"group.json": json.dumps({"model": model, "tested": True, "n_subjects": 1}).encode()}, {})
    results = gather(study.graph(), ledger, "demo")
    assert results.tested is not None
    assert results.tested.n_subjects == 1
    assert [absence.what for absence in results.absences if "group" in absence.what] == []


def test_colours_and_markers_differ_between_arms_and_are_shared_between_bottlenecks(built):
    looks = style.looks(built[0].results)
    assert looks["layernorm none"] == looks["tanh none"]
    assert len({look.colour for look in looks.values()}) == len({look.marker for look in looks.values()}) == 3


@pytest.mark.parametrize(
    ("wanted", "gap"), [([0.1, 0.1, 0.1], 0.06), ([0.0, 0.05, 0.9], 0.06), ([0.5], 0.06), ([], 0.1)]
)
def test_labels_never_overlap(wanted, gap):
    places = style._apart(wanted, gap)
    assert len(places) == len(wanted)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))


def test_gathering_is_light():
    code = (
        "import sys, orchestrator.report.gathering, orchestrator.progress, orchestrator.tracker, orchestrator.report\n"
    )
    code += "heavy = {'torch', 'ray', 'mlflow', 'mne', 'matplotlib', 'jinja2', 'scipy'} & set(sys.modules)\n"
    code += "assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_keys_of_later_versions_are_ignored():
    graph, ledger = made_up_study.make(("layernorm",))
    for cell in graph:
        if cell.stage == "group":
            content = json.loads(ledger.files[cell.signature]["group.json"])
            ledger.files[cell.signature]["group.json"] = json.dumps({**content, "later": 1}).encode()
    assert len(gather(graph, ledger, "demo").groups) == 3
