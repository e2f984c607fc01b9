"""Groups of subjects, the noise ceiling, exploratory finds, kernels and clusters: words, tables, figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up_study
import numpy as np

from orchestrator.report import console, group_tables, html
from orchestrator.report.eeg_results import Curve, KernelRow, Kernels
from orchestrator.report.figures import cortical_tracking, kernels, scalp_maps, style
from orchestrator.report.gathering import gather
from orchestrator.report.headline import headline
from orchestrator.report.methods import methods
from orchestrator.report.results import Condition, Group, Results
from orchestrator.report.tables import csv_tables

Change = Callable[[dict[str, Any]], None]
ARM = "layernorm E+D m=0.0"
RINGED = ["E20", "E23", "E31"]


def everything(content: dict[str, Any]) -> None:
    rows = []
    for row in content["conditions"]:
        best = (row["variant"], row["noise_level"]) == (ARM, 0.4)
        p = 0.004 if best else 0.3
        where = {"no": [], "yes": ["E1", "E2"] if best else []}
        shared = {"p_stimulus": p, "p_subject": p / 2, "p": p, "higher_in": where, "claimed": best}
        own = {"means": [0.001, 0.003], "difference": -0.002, "ci": [-0.003, -0.001]}
        rows.append({"variant": row["variant"], "noise_level": row["noise_level"], **own, **shared})
        row["p_exploratory_by_channel"] = [0.01] * 32
        row["q_exploratory_by_channel"] = [0.04] * 32
    names = [{"value": "no", "n": 3}, {"value": "yes", "n": 3}]
    content["between"] = {"column": "musician", "groups": names, "n_relabelings": 20, "conditions": rows}
    content["exploratory"] = {"procedure": "Benjamini-Hochberg", "n_tests": 480, "n_found": 7, "needed": 10}
    content["ceiling"] = {
        "why": None, "mean": 0.2, "ci": [0.17, 0.23], "of_mean": 0.31, "by_subject": {"S01": 0.19, "S02": 0.21},
        "r_full": 0.06, "share": 0.3, "variant": ARM, "noise_level": 0.4, "n_subjects": 2, "n_pieces": [10, 10],
        "n_repetitions": [2, 3], "subjects_without": ["S03"],
        "across": {"mean": 0.12, "n_subjects": 6},
    }  # fmt: skip
    content["clusters"] = [{"variant": ARM, "noise_level": 0.4, "channels": RINGED, "mass": 9.5, "p": 0.01}]


def unknown(content: dict[str, Any]) -> None:
    content["ceiling"] = {"why": "no subject heard a piece more than once (no repetitions: not known)", "mean": None}
    content["exploratory"] = {"procedure": "Benjamini-Hochberg", "n_tests": 480, "n_found": 0, "needed": 10}


def study(change: Change, **options: Any) -> tuple[Any, Any]:
    graph, ledger = made_up_study.make(("layernorm",), **options)
    for cell in graph:
        if cell.stage == "group" and cell.labels["tested"] == "true":
            content = json.loads(ledger.files[cell.signature]["group.json"])
            change(content)
            ledger.files[cell.signature]["group.json"] = json.dumps(content).encode()
    return graph, ledger


def results(change: Change, **options: Any) -> Results:
    return gather(*study(change, **options), "demo")


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def written(found: Results) -> tuple[str, str]:
    """Console and page, without figures."""
    return console.text(found, (), {}, Path(), None), html.page(found, (), [], {}, [])


def test_all_of_it_is_on_the_console_and_on_the_page() -> None:
    found = results(everything)
    shown, page = written(found)
    for text in (
        "musician: no (n = 3) minus yes (n = 3): excess Δr differs in 1 of 15 conditions (smallest p = 0.004, over "
        "stimuli and over exchanges of labels, corrected over conditions and channels).",
        "Noise ceiling: a perfect model would reach r = 0.200 [0.170, 0.230] with single presentations, 0.310 with "
        "their mean (2 listeners, 10 pieces heard 2-3 times). The full model reaches 0.060, 30 % of it (s = 0.4 of "
        f"{ARM}). Not known for S03, who heard no piece twice. A perfect model of what 6 listeners share would "
        "reach 0.120.",
        "Exploratory, no claim: 7 of 480 channels × levels × variants have a false discovery rate q ≤ 0.05 "
        "(Benjamini-Hochberg, each tested over stimuli by itself).",
    ):
        assert text in shown
        assert text in page
    [claimed] = [row for row in group_tables.between_rows(found) if row[-1] == "yes"]
    assert claimed[:5] == (ARM, "0.4", "+0.0010", "+0.0030", "-0.0020 [-0.0030, -0.0010]")
    assert claimed[7] == "yes: E1, E2"
    said = " ".join(methods(found))
    assert "Groups of subjects (musician: 3 no, 3 yes)" in said
    assert "exploratory and enter no claim" in said


def test_red_canaries_withdraw_the_claim_of_a_difference() -> None:
    red, green = results(everything, red=True), results(everything)
    assert any(sentence.startswith("musician: no (n = 3) minus yes") for sentence in headline(green))
    assert not any("musician" in sentence for sentence in headline(red))
    assert {row[-1] for row in group_tables.between_rows(red)} == {"no", "no (canaries)"}
    assert group_tables.between_sentence(red).startswith("RED: the canaries failed")


def test_what_is_not_known_is_said() -> None:
    found = results(unknown)
    shown, page = written(found)
    assert "Noise ceiling: no subject heard a piece more than once (no repetitions: not known)." in shown
    assert "with 1000 permutations at least 10 of them must reach the least possible p" in shown
    assert "Groups of subjects compared" not in page
    assert "between.csv" not in csv_tables(found)


def test_tables_for_programs() -> None:
    tables = csv_tables(results(everything))
    [row] = [row for row in rows(tables["between.csv"]) if row["claimed"] == "true"]
    assert (row["column"], row["first"], row["n_second"]) == ("musician", "no", "3")
    assert (row["difference_low"], row["higher_in_second"]) == ("-0.003", "E1;E2")
    explored = rows(tables["exploratory.csv"])
    assert len(explored) == 15 * 32
    assert {row["label"] for row in explored} == {"exploratory, no claim"}
    assert [row["noise_ceiling_r"] for row in rows(tables["noise_ceiling.csv"])] == ["0.19", "0.21"]
    curves = rows(tables["kernels.csv"])
    assert len(curves) == 3 * 15 * 33
    assert all(float(row["mean_low"]) < float(row["mean"]) < float(row["mean_high"]) for row in curves)


def test_results_name_the_null_distribution_and_whether_it_is_calibrated() -> None:
    def diagnostic(content: dict[str, Any]) -> None:
        content |= {"null": "circular_shift", "calibrated": False}

    for change, name in ((unknown, "residual_shift"), (diagnostic, "circular_shift (diagnostic: not calibrated)")):
        for table in ("results.csv", "group.csv"):
            found = {(row["model"], row["null"]) for row in rows(csv_tables(results(change))[table])}
            assert found == {("acoustic_plus/onset", name), ("acoustic_plus/hold", ""), ("envelope/hold", "")}


def test_kernels_are_drawn_with_their_bands() -> None:
    found = results(everything)
    with style.applied():
        figure = kernels.draw(found)
    assert figure is not None
    assert len(figure.axes) == len(made_up_study.LEVELS)
    assert found.tested is not None
    assert found.tested.kernels is not None
    row = next(r for r in found.tested.kernels.conditions if (r.variant, r.noise_level) == (ARM, 0.4))
    panel = figure.axes[2]
    assert any(np.array_equal(line.get_ydata(), row.curves[0].mean) for line in panel.get_lines())
    lows = [band.get_paths()[0].vertices[:, 1].min() for band in panel.collections]
    assert len(lows) == 3
    assert any(np.isclose(low, min(row.curves[0].low or ())) for low in lows)


def test_of_many_levels_the_ends_and_the_best_are_drawn() -> None:
    levels = [number / 10 for number in range(10)]
    conditions = [Condition(variant="a", noise_level=s, excess_delta_r_mean=0.01 * (s == 0.7)) for s in levels]
    curve = Curve(mean=(0.0, 1.0))
    curves = [KernelRow(variant="a", noise_level=level, curves=(curve,)) for level in levels]
    found = Kernels(channels=("Cz",), lags_s=(0.0, 0.1), conditions=tuple(curves))
    drawn = kernels._levels(Group(model="m", conditions=tuple(conditions)), found)
    assert len(drawn) == len(set(drawn)) == kernels.MOST_LEVELS
    assert {0.0, 0.7, 0.9} <= set(drawn)


def test_results_without_kernels_are_older_and_it_is_said() -> None:
    found = results(lambda content: content.pop("kernels"))
    assert kernels.draw(found) is None
    [older] = [absence for absence in found.absences if absence.what == "figure kernels, noise ceiling"]
    assert older.why.startswith("these results were computed before they were kept with them")


def test_clusters_are_rings_at_their_channels() -> None:
    found = results(everything)
    with style.applied():
        figure = scalp_maps.draw(found)
        tracking = cortical_tracking.draw(found)
    assert figure is not None
    [head] = [axes for axes in figure.axes if ARM in axes.get_title(loc="center")]
    [rings] = [c for c in head.collections if hasattr(c, "get_sizes") and 34 in c.get_sizes()]
    places = np.array(made_up_study.positions())[[int(name[1:]) for name in RINGED]]
    x, y = np.asarray(rings.get_offsets()).T
    assert np.array_equal(np.argsort(x), np.argsort(places[:, 0]))
    assert np.array_equal(np.argsort(y), np.argsort(places[:, 1]))
    assert any("cluster over 3 channels, p = 0.01" in text.get_text() for text in head.texts)
    assert any("Rings: the cluster extends over these channels" in text.get_text() for text in figure.texts)
    assert tracking is not None
    assert any("ceiling of r 0.200" in " ".join(text.get_text().split()) for text in tracking.texts)
