from __future__ import annotations

import csv
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import made_up_study
import pytest

from orchestrator.graph import CellSpec, Graph
from orchestrator.planner_eeg import reduce
from orchestrator.report import build
from orchestrator.report.figures import style
from orchestrator.report.gathering import gather
from orchestrator.report.headline import headline
from orchestrator.report.tables import csv_tables
from orchestrator.signature import sign
from orchestrator.storage import Storage

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    graph, ledger = made_up_study.make()
    folder = tmp_path_factory.mktemp("report")
    return build(graph, ledger, "demo", folder, tracking_uri="sqlite:///here/mlflow.db"), folder


def _headline(**options: object) -> tuple[str, ...]:
    graph, ledger = made_up_study.make(("layernorm",), **options)
    return headline(gather(graph, ledger, "demo"))


# Headline


def test_first_sentence_says_that_nothing_is_claimed():
    first, second, *_ = _headline(effect=0.0)
    assert first.startswith("No noise level of any variant is claimed")
    assert "0.41" in first
    assert "SIMULATED" in second
    assert "says nothing about brains" in second


def test_claims_of_a_simulation_are_recovered_plants():
    sentences = _headline()
    assert sentences[0].startswith("SIMULATED: IC recovers a planted response beyond the listed acoustic features")
    assert "layernorm E+D m=0.0 at s = 0.4, 0.6" in sentences[0]
    assert any("level at which IC best recovers a planted response" in sentence for sentence in sentences)
    assert any(sentence.startswith("Canaries GREEN") for sentence in sentences)


def test_claims_of_real_listeners_name_the_acoustic_features_and_no_brain():
    sentences = _headline(simulated=False)
    assert sentences[0].startswith("IC adds to the listed acoustic features (acoustic_plus/onset)")
    assert not any("brain" in sentence or "SIMULATED" in sentence for sentence in sentences)


def test_red_canaries_withdraw_every_claim():
    sentences = _headline(red=True)
    assert sentences[0].startswith("RED")
    assert not any("recovers a planted response beyond" in sentence or "best" in sentence for sentence in sentences)


def test_few_subjects_are_said():
    sentences = _headline(n_subjects=3)
    assert sentences[0].startswith("No noise level")
    assert any("at least 5" in sentence for sentence in sentences)


def test_without_eeg_nothing_is_said_about_listeners():
    assert "no EEG" in _headline(eeg=False)[0]


# Tables


def test_tables_are_equal_byte_for_byte():
    graph, ledger = made_up_study.make(("layernorm",))
    first = csv_tables(gather(graph, ledger, "demo"))
    shuffled = Graph(dict(sorted(graph.cells.items(), reverse=True)))
    assert set(first) == {"results.csv", "group.csv", "pitch.csv", "reconstruction.csv"}
    assert csv_tables(gather(graph, ledger, "demo")) == first
    assert csv_tables(gather(shuffled, ledger, "demo"))["results.csv"] == first["results.csv"]


def test_results_hold_every_subject_and_exact_floats():
    graph, ledger = made_up_study.make(("layernorm",))
    text = csv_tables(gather(graph, ledger, "demo"))["results.csv"]
    rows = list(csv.DictReader(text.splitlines()))
    fits = [cell for cell in graph if cell.stage == "trf"]
    assert len(rows) == len(fits)
    by_signature = {row["signature"]: row for row in rows}
    for cell in fits:
        row, metrics = by_signature[cell.signature], ledger.statuses[cell.signature].metrics
        assert float(row["delta_r"]) == metrics["delta_r"]
        assert (row["subject"], row["simulated"]) == (cell.labels["subject"], "true")


def test_pieces_keep_their_own_columns():
    graph, ledger = made_up_study.make(("layernorm",), eeg=False)
    rows = list(csv.DictReader(csv_tables(gather(graph, ledger, "demo"))["pitch.csv"].splitlines()))
    assert list(rows[0]) == [
        "variant",
        "noise_level",
        "piece",
        "recording",
        "n_notes",
        "spearman",
        "pearson",
        "spearman_interval",
    ]
    assert len(rows) == 3 * len(made_up_study.LEVELS) * 4


# The whole report


def test_every_figure_and_table_is_there(built):
    report, folder = built
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert figures == {"cortical_tracking", "scalp_maps", "pitch_correlation", "reconstruction"}
    assert all(path.exists() and path.stat().st_size > 0 for path in report.paths.values())
    assert report.text.splitlines()[0] == "study demo  [SIMULATED]"
    for shown in ("Canaries GREEN", "sqlite:///here/mlflow.db", "report.html", "broken.wav: it ends after 0.1 s"):
        assert shown in report.text


def test_page_needs_nothing_else(built):
    _, folder = built
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
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


def test_group_csv_carries_the_verdicts(built):
    rows = list(csv.DictReader(built[0].paths["group.csv"].read_text().splitlines()))
    claimed = {(row["variant"], row["noise_level"]) for row in rows if row["claimed"] == "true"}
    assert claimed == {(f"{b} E+D m=0.0", s) for b in ("layernorm", "tanh") for s in ("0.4", "0.6")}
    assert all(row["p"] == "" for row in rows if row["tested"] == "false")


def test_keys_of_later_versions_are_ignored():
    graph, ledger = made_up_study.make(("layernorm",))
    for cell in graph:
        if cell.stage == "group":
            content = json.loads(ledger.files[cell.signature]["group.json"])
            ledger.files[cell.signature]["group.json"] = json.dumps({**content, "later": 1}).encode()
    assert len(gather(graph, ledger, "demo").groups) == 3
