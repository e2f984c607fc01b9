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
from orchestrator.planner_eeg_group import reduce
from orchestrator.report import build, solver_audit
from orchestrator.report.figures import pitch_correlation, style
from orchestrator.report.gathering import gather
from orchestrator.report.headline import headline
from orchestrator.report.methods import methods
from orchestrator.report.pitch_arms import estimates
from orchestrator.report.results import Results, Score
from orchestrator.report.solver import precisions, warning
from orchestrator.report.tables import audit_rows, csv_tables, error_rows, surprisal_rows
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
    assert set(first) == {
        "results.csv",
        "group.csv",
        "pitch.csv",
        "pitch_intervals.csv",
        "reconstruction.csv",
        "causal_audit.csv",
        "surprisal.csv",
    }
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
        "cluster",
        "n_notes",
        "spearman",
        "pearson",
        "spearman_partial",
        "spearman_interval",
    ]
    assert len(rows) == 3 * len(made_up_study.LEVELS) * 4


def test_the_audit_has_a_row_per_condition_and_says_what_it_is(built):
    report, folder = built
    levels = len(made_up_study.LEVELS)
    rows = audit_rows(report.results)
    assert len(rows) == levels * len(report.results.variants)
    assert rows[1][1:] == ("melodies", "0.2", "+0.920 ± 0.010", "+1.50 ± 0.10", "+0.990", "+0.01", "6.00", "48")
    assert rows[0][2] == "0*"
    assert "rank ρ" in report.text
    assert "Does IC know what comes?" in (folder / "report.html").read_text()
    assert "Causality audit: for up to 48 frames" in (folder / "report.html").read_text()
    table = list(csv.DictReader((folder / "tables/causal_audit.csv").read_text().splitlines()))
    assert len(table) == 3 * len(rows)
    assert (table[0]["role"], table[0]["noise_level"]) == ("melodies", "0.0")


def test_the_solvers_error_is_shown_against_what_ic_varies_by(built):
    report, folder = built
    rows = surprisal_rows(report.results)
    assert len(rows) == len(made_up_study.LEVELS) * len(report.results.variants)
    assert rows[1] == ("layernorm none", "melodies", "0.2", "+78.00", "8", "0.6", "0.075")
    assert rows[0][2] == "0*"
    console = [line.split() for line in report.text.splitlines()]
    assert ["layernorm", "none", "melodies", "0.040", "0.075", "0.133", "0.250", "0.600"] in console
    page = (folder / "report.html").read_text()
    assert "<h2>IC and its solver's error</h2>" in page
    assert "<td>+78.00</td><td>8</td><td>0.6</td><td>0.075</td>" in page
    table = list(csv.DictReader((folder / "tables/surprisal.csv").read_text().splitlines()))
    assert len(table) == len(rows)
    assert all(float(row["error_over_sd"]) == float(row["solver_error_nats"]) / float(row["ic_sd"]) for row in table)


def test_levels_whose_ranks_are_partly_noise_are_warned_of(built):
    report, folder = built
    sentence = warning(precisions(report.results))
    assert sentence in report.text
    assert "IC&#39;s ranks are partly the solver&#39;s noise" in (folder / "report.html").read_text()
    assert sentence.startswith(
        "The solver's error is more than 0.3 of IC's SD at s = 0.8 of layernorm none (melodies), "
    )
    assert " and 3 more: at these levels" in sentence
    assert sentence.endswith("IC's ranks are partly the solver's noise: use solver exact or more probes.")
    exact = Score("v", "0.8", {"ic_sd": 1.0, "solver_error_nats": 0.3}, role="melodies")
    assert warning(precisions(Results("demo", ("v",), surprisal=(exact,)))) == ""


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


def _audited(*levels: float, **options: object) -> tuple[Graph, made_up_study.FakeLedger]:
    return made_up_study.make(("layernorm",), {"none": ("none", 0.0)}, eeg=False, audited=levels, **options)


def test_the_audit_of_the_solver_is_shown_with_its_degenerate_level_marked(tmp_path):
    report = build(*_audited(*made_up_study.LEVELS), "demo", tmp_path)
    rows = solver_audit.rows(report.results)
    assert len(rows) == len(made_up_study.LEVELS)
    assert rows[0][:3] == ("layernorm none", "melodies", "0*")
    assert rows[1][2:] == (
        *("0.2", "+0.920 ± 0.010", "+0.940", "1", "-0.1", "0.180", "0.5", "+0.05", "6", "24"),
    )  # fmt: skip
    console = [line.split() for line in report.text.splitlines()]
    assert ["layernorm", "none", "melodies", *["0.920"] * 5] in console
    assert "s=0*" in report.text
    assert solver_audit.NOTE in report.text
    page = (tmp_path / "report.html").read_text()
    assert "How far IC can be relied on (solver audit)" in page
    assert "<td>0*</td><td>+0.920 ± 0.010</td>" in page
    assert "IC was computed with two other seeds" in page
    assert "and by each of its four definitions." in page
    table = list(csv.DictReader((tmp_path / "tables/solver_audit.csv").read_text().splitlines()))
    assert [row["noise_level"] for row in table] == [repr(level) for level in made_up_study.LEVELS]
    assert (table[1]["reliability_pooled"], table[1]["rmse_nats"], table[1]["n_recordings"]) == ("0.94", "1.0", "3")
    recordings = list(csv.DictReader((tmp_path / "tables/solver_audit_recordings.csv").read_text().splitlines()))
    assert len(recordings) == 3 * len(rows)


def test_definitions_are_compared_both_ways(tmp_path):
    report = build(*_audited(0.0, 0.2), "demo", tmp_path)
    header, rows = solver_audit.definition_rows(report.results)
    assert header == ("variant", "recordings", "s", "definition", "expectation", "expected")
    assert rows[0] == ("layernorm none", "melodies", "0*", "expectation", "1", "0.870")
    assert rows[3] == ("layernorm none", "melodies", "0.2", "expected", "0.870", "1")
    assert "Ranks by the definitions of IC" in (tmp_path / "report.html").read_text()
    (first, _) = csv.DictReader((tmp_path / "tables/definitions.csv").read_text().splitlines())
    assert first == {
        "variant": "layernorm none",
        "noise_level": "0.0",
        "role": "melodies",
        "definition_a": "expectation",
        "definition_b": "expected",
        "spearman": "0.87",
        "spearman_pooled": "0.89",
    }


def test_measured_errors_stand_for_estimated_ones(tmp_path):
    """Estimated: .04 .075 .133 .25 .6 of IC's SD at the five levels. Measured: .08 .18 .28 .38 .48."""
    every = gather(*_audited(*made_up_study.LEVELS), "demo")
    header, rows = error_rows(every)
    assert header[0] == "solver error / SD of IC, measured"
    assert rows == [("layernorm none", "melodies", "0.080", "0.180", "0.280", "0.380", "0.480")]
    sentence = warning(precisions(every))
    assert sentence.startswith(
        "The solver's error is more than 0.3 of IC's SD at s = 0.6, 0.8 of layernorm none (melodies, measured): "
    )
    mixed = gather(*_audited(0.6), "demo")
    header, rows = error_rows(mixed)
    assert header[0] == "solver error / SD of IC, measured (~ estimated)"
    assert rows == [("layernorm none", "melodies", "~0.040", "~0.075", "~0.133", "0.380", "~0.600")]
    sentence = warning(precisions(mixed))
    assert "s = 0.8 of layernorm none (melodies)" in sentence
    assert "s = 0.6 of layernorm none (melodies, measured)" in sentence


def test_a_study_without_an_audit_of_the_solver_says_nothing_of_it(built):
    report, folder = built
    assert "reliability of IC" not in report.text
    assert "solver audit" not in (folder / "report.html").read_text()
    assert solver_audit.rows(report.results) == []


def _said_of_surprisal(*configs: dict[str, object], **metrics: float) -> str:
    cells = tuple({"noise_level": 0.4, "definition": "expectation", **config} for config in configs)
    scores = (Score("v", "0.4", metrics, role="melodies"),) if metrics else ()
    return methods(Results("demo", ("v",), surprisal=scores, configs={"surprisal": cells}))[0]


def test_methods_say_how_ic_was_solved():
    quadrature = {"solver": "quadrature", "n_nodes": 12, "n_probes": 2}
    plain = _said_of_surprisal(quadrature)
    assert "(expectation; solver quadrature, 12 nodes, 2 probes)." in plain
    assert "context" not in plain
    assert "By its own estimate" not in plain
    exact = {"solver": "exact", "n_nodes": 48, "probes": "exact", "context": "none"}
    assert "(expectation; context none; solver exact, 48 nodes, exact divergence)." in _said_of_surprisal(exact)
    given = {"sha256": "ab" * 32}
    drawn = {"solver": "euler", "n_steps": 100, "definition": "expected", "n_draws": 16, "probes": given}
    said = _said_of_surprisal(drawn)
    assert "(expected; solver euler, 100 steps, 16 draws, probes given in a file (sha256 abababababab))." in said
    assert "context clean;" in _said_of_surprisal({**quadrature, "definition": "probability_flow"})
    assert "context transformed, clean;" in _said_of_surprisal(quadrature, {**quadrature, "context": "clean"})


def test_methods_state_the_solvers_errors(built):
    page = (built[1] / "report.html").read_text()
    assert "0.4 to 1.2 nats off the exact IC of a frame (RMS): 0.04 to 0.6 of IC&#39;s SD" in page
    one = _said_of_surprisal({"solver": "exact", "n_nodes": 48}, ic_sd=5.0, solver_error_nats=0.05)
    assert "the solver is 0.05 nats off the exact IC of a frame (RMS): 0.01 of IC's SD at the same noise level." in one


def test_seeds_of_one_arm_share_a_row_with_an_interval_over_tunes_and_seeds():
    rows = [
        tuple({"recording": f"r{i}", "cluster": str(i // 2), "spearman": str(rho)} for i, rho in enumerate(values))
        for values in ([0.1, 0.1, 0.3, 0.3], [0.3, 0.3, 0.5, 0.5], [0.9, 0.9, 0.9, 0.9])
    ]
    variants = ("tanh E+D m=0.0 seed=0", "tanh E+D m=0.0 seed=1", "tanh none seed=0")
    scores = tuple(Score(variant, "0.4", {}, found) for variant, found in zip(variants, rows, strict=True))
    seeds = {variant: {"seed": int(variant[-1])} for variant in variants}
    results = Results("demo", variants, pitch=scores, arms=seeds)
    noised, plain = estimates(results, ("spearman",))
    assert (noised.arm, noised.variants, plain.arm) == ("tanh E+D m=0.0", variants[:2], "tanh none")
    assert noised.estimate.mean == pytest.approx(0.3)
    assert (noised.estimate.low, noised.estimate.high) == (pytest.approx(0.1), pytest.approx(0.5))
    assert (noised.estimate.n_seeds, noised.estimate.n_pieces, noised.estimate.n_clusters) == (2, 4, 2)
    assert (plain.estimate.low, plain.estimate.high) == (pytest.approx(0.9), pytest.approx(0.9))
    table = list(csv.DictReader(csv_tables(results)["pitch_intervals.csv"].splitlines()))
    assert [(row["arm"], row["measure"], row["n_seeds"]) for row in table] == [
        ("tanh E+D m=0.0", "spearman", "2"),
        ("tanh none", "spearman", "1"),
    ]
    with style.applied():
        assert pitch_correlation.draw(results) is not None


def test_scores_without_readable_rows_make_no_figure():
    broken = Score("v", "0.4", {"spearman_mean": 0.3}, ({"recording": "r", "spearman": "x"},))
    results = Results("demo", ("v",), pitch=(broken, Score("v", "0.6", {}, ())))
    assert estimates(results) == []
    assert pitch_correlation.draw(results) is None


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
