"""The audits of IC and its solver's error, in words, tables and on the page."""

from __future__ import annotations

import csv

import made_up_study

from orchestrator.graph import Graph
from orchestrator.report import build, solver_audit
from orchestrator.report.gathering import gather
from orchestrator.report.methods import methods
from orchestrator.report.results import Results, Score
from orchestrator.report.solver import precisions, warning
from orchestrator.report.tables import audit_rows, error_rows, surprisal_rows


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


def _audited(*levels: float, **options: object) -> tuple[Graph, made_up_study.FakeLedger]:
    return made_up_study.make(("layernorm",), {"none": ("none", 0.0)}, eeg=False, audited=levels, **options)


def test_the_audit_of_the_solver_is_shown_with_its_degenerate_level_marked(tmp_path):
    report = build(*_audited(*made_up_study.LEVELS), "demo", tmp_path)
    rows = solver_audit.rows(report.results)
    assert len(rows) == len(made_up_study.LEVELS)
    assert rows[0][:3] == ("layernorm none", "melodies", "0*")
    assert rows[1][2:] == (
        *("0.2", "+0.920 ± 0.010", "+0.940", "1", "-0.1", "0.180", "0.5", "+0.05", "+1.2 ± 0.06", "6", "24"),
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
