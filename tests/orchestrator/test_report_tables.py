"""Tables for programs: equal bytes for equal ledgers, every subject and piece with its columns."""

from __future__ import annotations

import csv

import made_up_study
import pytest

from orchestrator.graph import Graph
from orchestrator.report.figures import pitch_correlation, style
from orchestrator.report.gathering import gather
from orchestrator.report.pitch_arms import estimates
from orchestrator.report.results import Results, Score
from orchestrator.report.tables import csv_tables


def test_tables_are_equal_byte_for_byte():
    graph, ledger = made_up_study.make(("layernorm",))
    first = csv_tables(gather(graph, ledger, "demo"))
    shuffled = Graph(dict(sorted(graph.cells.items(), reverse=True)))
    assert set(first) == {
        "results.csv",
        "group.csv",
        "pitch.csv",
        "kernels.csv",
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


def test_group_csv_carries_the_verdicts(built):
    rows = list(csv.DictReader(built[0].paths["group.csv"].read_text().splitlines()))
    claimed = {(row["variant"], row["noise_level"]) for row in rows if row["claimed"] == "true"}
    assert claimed == {(f"{b} E+D m=0.0", s) for b in ("layernorm", "tanh") for s in ("0.4", "0.6")}
    assert all(row["p"] == "" for row in rows if row["tested"] == "false")
