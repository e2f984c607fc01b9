"""Contrasts, chosen levels, clusters, and who lacks what, in words, tables and figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up_study

from orchestrator.report import Report, build, eeg_tables
from orchestrator.report.figures import cortical_tracking, scalp_maps, style
from orchestrator.report.gathering import gather
from orchestrator.report.headline import headline
from orchestrator.report.methods import methods
from orchestrator.report.results import Results

Change = Callable[[dict[str, Any]], None]
ARM, OTHER = "layernorm E+D m=0.0", "layernorm none"
SHARED = {
    "n_subjects": 8,
    "n_pieces": 10,
    "n_contrasts": 2,
    "ci": [0.001, 0.003],
    "by_seed": {"0": 0.002},
    "seed_sd": None,
}


def contrast(
    family: str, first: tuple[str, list[float]], second: tuple[str, list[float]], **other: Any
) -> dict[str, Any]:
    sides = [{"arm": arm, "levels": levels} for arm, levels in (first, second)]
    row = {"family": family, "first": sides[0], "second": sides[1], "mean": 0.002, "n_seeds": 1, "p": 0.01}
    row |= {"p_subject": 0.008, "p_piece": 0.01}
    return {**SHARED, **row, "higher": ["E1"], "lower": [], "claimed": True, **other}


def compare(content: dict[str, Any]) -> None:
    inner = [0.3, 0.4, 0.5, 0.6]
    content["contrasts"] = [
        contrast("levels", (ARM, [0.4]), (ARM, [0.0])),
        contrast("levels", (ARM, [0.8]), (ARM, [0.6]), p=0.4, higher=[], claimed=False),
        contrast("intermediate", (ARM, inner), (ARM, [0.0])),
        contrast("arms", (ARM, [0.4]), (OTHER, [0.4]), n_seeds=3, seed_sd=0.0004, by_seed={"0": 0.002, "1": 0.003}),
        contrast("arms", (ARM, [0.6]), (OTHER, [0.6]), claimed=False),
    ]
    judged = {"arm": ARM, "levels": inner, "above_clean": 0.002, "above_noisy": 0.001, "n_seeds": 1}
    content["intermediate"] = [{**judged, "p": 0.02, "best": True, "channels": ["E1", "E2"]}]
    content["chosen_level"] = [
        {"arm": ARM, "wins": {"0.0": 0, "0.2": 1, "0.4": 9}, "excess_delta_r": 0.0021, "ci": [0.001, 0.003]}
        | {"by_choice": 0.0002, "n_seeds": 1, "n_subjects": 8, "n_pieces": 10, "p": 0.004}
    ]
    content["clusters"] = [{"variant": ARM, "noise_level": 0.4, "channels": ["E1", "E2", "E3"], "mass": 9.5, "p": 0.01}]


def lack(content: dict[str, Any]) -> None:
    content["n"] = {"subjects": 8, "subjects_known": 9, "channels": 31, "channels_known": 32}
    content["n"] |= {"pieces": [8, 10], "pieces_known": 10}
    content["notes"] = ["S03 lacks E31: in no test, which are over 31 of 32 channels"]


def study(*changes: Change, every: bool = True, **options: Any) -> tuple[Any, Any]:
    graph, ledger = made_up_study.make(("layernorm",), **options)
    for cell in graph:
        if cell.stage == "group" and (every or cell.labels["tested"] == "true"):
            content = json.loads(ledger.files[cell.signature]["group.json"])
            for change in changes:
                if content["tested"] or change is not compare:
                    change(content)
            ledger.files[cell.signature]["group.json"] = json.dumps(content).encode()
    return graph, ledger


def report(folder: Path, *changes: Change, **options: Any) -> Report:
    return build(*study(*changes, **options), "demo", folder)


def rows(built: Report, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(built.paths[name].read_text().splitlines()))


def test_comparisons_are_said_on_the_console_and_the_page(tmp_path: Path) -> None:
    built = report(tmp_path, compare)
    page = (tmp_path / "report.html").read_text()
    for text in (
        f"Intermediate noise levels (0.3 to 0.6) of {ARM} (one model) best recover the planted response: excess Δr "
        "+0.0020 against s = 0 (degenerate) and +0.0010 against s = 0.9, p = 0.02 over subjects and over "
        "pieces, at E1, E2.",
        "1 of 2 pairs of noise levels differ significantly over subjects and pieces (smallest p = 0.008 over subjects, "
        "p = 0.01 over pieces).",
        "1 of 2 pairs of arms at one noise level differ significantly over subjects and pieces (smallest p = 0.008 "
        "over subjects, p = 0.01 over pieces); arms with fewer than 3 seeds are one model each and claim nothing.",
        f"Noise level of {ARM}, chosen for each of 10 pieces on the others: s = 0.4 at 9, s = 0.2 at 1. Excess Δr "
        "there is +0.0021 [+0.0010, +0.0030] (by choosing alone: +0.0002), p = 0.004 over subjects.",
        f"At s = 0.4 of {ARM} the cluster extends over E1, E2, E3 (3 channels, p = 0.01 over subjects, corrected over "
        "all conditions).",
    ):
        assert text in built.text
        assert text in page
    assert "Noise levels and arms compared" in page
    shown = eeg_tables.rows(built.results)
    assert [row[-1] for row in shown] == ["yes", "yes", "yes", "no"], "levels that don't differ are in the csv alone"
    assert shown[2][2:6] == ("+0.0020 [+0.0010, +0.0030]", "3 (SD 0.0004)", "0.0080", "0.0100")
    assert len(shown[2]) == len(eeg_tables.HEADER)


def test_comparisons_are_tables_for_programs(tmp_path: Path) -> None:
    built = report(tmp_path, compare)
    found = rows(built, "contrasts.csv")
    assert len(found) == 5
    [arms] = [row for row in found if row["family"] == "arms" and row["claimed"] == "true"]
    assert (arms["first_arm"], arms["second_arm"], arms["first_levels"]) == (ARM, OTHER, "0.4")
    assert (arms["p_subject"], arms["p_piece"], arms["p"], arms["n_pieces"]) == ("0.008", "0.01", "0.01", "10")
    assert (arms["by_seed"], arms["mean_low"], arms["higher"]) == ("0:0.002;1:0.003", "0.001", "E1")
    assert [row["first_levels"] for row in found if row["family"] == "intermediate"] == ["0.3;0.4;0.5;0.6"]
    assert {row["noise_level"]: row["n_pieces_won"] for row in rows(built, "chosen_level.csv")} == {
        "0.0": "0",
        "0.2": "1",
        "0.4": "9",
    }
    [cluster] = rows(built, "clusters.csv")
    assert (cluster["channels"], cluster["n_channels"]) == ("E1;E2;E3", "3")


def test_contrasts_over_too_few_pieces_say_so() -> None:
    def few(content: dict[str, Any]) -> None:
        compare(content)
        content["contrasts"] = [
            {**row, "n_pieces": 5, "p_piece": None, "p": None, "higher": [], "claimed": False}
            for row in content["contrasts"]
        ]

    found = eeg_tables.sentences(gather(*study(few), "demo"))
    assert (
        "2 pairs of noise levels are described, and nothing is claimed of them: 5 pieces, and a two-sided test needs 6 "
        "of each."
    ) in found


def test_nothing_compared_is_not_mentioned(tmp_path: Path) -> None:
    built = report(tmp_path)
    assert "comparisons of excess" not in built.text
    assert "Noise levels and arms compared" not in (tmp_path / "report.html").read_text()
    assert not {"contrasts.csv", "chosen_level.csv", "clusters.csv", "long.csv"} & set(built.paths)


def test_the_headline_says_whether_intermediate_is_best_unless_it_is_red() -> None:
    for simulated, words in ((True, "best recover the planted response"), (False, "are best")):
        sentences = headline(gather(*study(compare, simulated=simulated), "demo"))
        assert sum(f"(one model) {words}: excess" in sentence for sentence in sentences) == 1

    def not_best(content: dict[str, Any]) -> None:
        compare(content)
        content["intermediate"][0] |= {"best": False, "channels": [], "p": 0.3}

    sentences = headline(gather(*study(not_best, simulated=False), "demo"))
    assert any("are not shown to be best" in sentence and sentence.endswith("over pieces.") for sentence in sentences)
    sentences = headline(gather(*study(compare, red=True), "demo"))
    assert not any("ntermediate" in sentence for sentence in sentences)
    below = eeg_tables.sentences(gather(*study(compare, red=True), "demo"))
    assert below[0] == "RED: the canaries failed, so none of this is claimed."
    sentences = headline(gather(*study(compare, simulated=False), "demo"))
    assert not any("were not compared" in sentence for sentence in sentences)


def test_the_n_counts_what_is_lacking_and_who_lacks_it_is_named(tmp_path: Path) -> None:
    built = report(tmp_path, lack)
    assert "(8 of 9 listeners, 31 of 32 channels, 8-10 of 10 pieces each, corrected p" in built.headline[0]
    assert built.text.count("group: S03 lacks E31: in no test, which are over 31 of 32 channels") == 1
    page = (tmp_path / "report.html").read_text()
    assert "S03 lacks E31: in no test, which are over 31 of 32 channels" in page
    first = rows(built, "group.csv")[0]
    assert (first["n_subjects_known"], first["n_channels"], first["n_channels_known"]) == ("9", "31", "32")
    assert (first["n_pieces_least"], first["n_pieces_most"]) == ("8", "10")


def test_intervals_are_in_the_table_and_in_the_figure(tmp_path: Path) -> None:
    built = report(tmp_path)
    for row in rows(built, "group.csv"):
        assert float(row["delta_r_low"]) < float(row["delta_r_mean"]) < float(row["delta_r_high"])
        assert (row["excess_delta_r_low"] != "") == (row["tested"] == "true")
    results = built.results
    with style.applied():
        figure = cortical_tracking.draw(results)
    assert figure is not None
    group = results.paper
    assert group is not None
    drawn = figure.axes[0]
    thin = [line for line in drawn.get_lines() if line.get_linewidth() == 0.5]
    assert len(thin) == 3 * group.n_subjects, "one for each subject and arm"
    heights = sorted(float(line.get_ydata()[2]) for line in thin)
    expected = sorted(v for c in group.conditions if c.noise_level == 0.4 for v in c.by_subject.values())
    assert heights == expected
    ends = sorted(
        tuple(round(float(y), 12) for y in segment[:, 1]) for bars in drawn.collections for segment in _segments(bars)
    )
    assert ends == sorted(tuple(round(end, 12) for end in c.delta_r_ci) for c in group.conditions)


def _segments(collection: Any) -> Any:
    return collection.get_segments() if hasattr(collection, "get_segments") else []


def test_no_positions_no_map_and_it_is_said(tmp_path: Path) -> None:
    built = report(tmp_path, lambda content: content.update(positions=None))
    assert "scalp_maps" not in built.paths
    assert "figure scalp_maps: the channels have no positions, so there is no map of them" in built.text
    assert scalp_maps.draw(built.results) is None


def test_long_tables_of_all_models_are_one(tmp_path: Path) -> None:
    graph, ledger = made_up_study.make(("layernorm",))
    for cell in graph:
        if cell.stage == "group":
            text = f"model,subject,delta_r\n{cell.labels['model']},S01,0.1\n{cell.labels['model']},S02,0.2\n"
            files = {**ledger.files[cell.signature], "long.csv": text.encode()}
            ledger.finish(cell, files, ledger.statuses[cell.signature].metrics)
    built = build(graph, ledger, "demo", tmp_path)
    found = rows(built, "long.csv")
    assert [row["model"] for row in found] == [m for m in sorted(made_up_study.MODELS) for _ in range(2)]
    assert [row["delta_r"] for row in found] == ["0.1", "0.2"] * 3


def test_methods_say_how_levels_were_compared() -> None:
    results: Results = gather(*study(compare), "demo")
    text = " ".join(methods(results))
    assert "sign-flips over subjects and sign-flips over pieces" in text
    assert "Intervals are bootstrapped over subjects" in text
    assert "cluster" in text
    plain = " ".join(methods(gather(*study(), "demo")))
    assert "paired sign-flips" not in plain
