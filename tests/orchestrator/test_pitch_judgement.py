"""Figure 4's judgement on tables made by hand: which level is chosen, and what may then be said."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import made_up_study
import pytest

from orchestrator.graph import CellSpec, Graph
from orchestrator.mirror import best, by_level
from orchestrator.report import build
from orchestrator.report.headline import headline
from orchestrator.report.pitch_contrasts import interval
from orchestrator.report.pitch_judgement import Judgement, judge
from orchestrator.report.results import Results, Score
from orchestrator.report.tables import condition_rows, csv_tables
from orchestrator.search.objective import OBJECTIVES, judges

ARMS = {"none": "none", "D m=0.0": "decoder", "E+D m=0.0": "encoder+decoder"}
PEAK = {0.0: 0.2, 0.4: 0.5, 0.9: 0.3}
"""A curve over noise levels with its maximum inside."""

Curve = Mapping[float, float | Sequence[float | None] | None]
"""Correlation by level: of all seeds, or one of each."""


def scores(variant: str, place: int, curve: Curve, n_tunes: int) -> list[Score]:
    """One score per level; tunes differ by fixed amounts, which paired differences don't see, and by a little more."""
    found = []
    for level, given in curve.items():
        value = given[place] if isinstance(given, Sequence) else given
        if value is None:
            continue
        rows = [
            {
                "recording": f"t{i}",
                "cluster": str(i // 2),
                "spearman": repr(value + 0.18 * (-1) ** i + 0.02 * ((i + round(10 * level)) % 3 - 1)),
                "spearman_partial": repr(value / 2),
                "baseline_interval_spearman": "0.17",
                "baseline_unigram_spearman": "0.2",
                "baseline_repetition_spearman": "0.16",
            }
            for i in range(n_tunes)
        ]
        found.append(Score(variant, repr(level), {"spearman_mean": value}, tuple(rows)))
    return found


def study(
    test: Mapping[str, Curve],
    dev: Mapping[str, Curve] | None = None,
    n_seeds: int = 3,
    n_tunes: int = 66,
    bottleneck: str = "tanh",
) -> Results:
    names = [(arm, seed, f"{bottleneck} {arm} seed={seed}") for arm in test for seed in range(n_seeds)]
    variants = tuple(name for _, _, name in names)
    made = [score for arm, seed, name in names for score in scores(name, seed, test[arm], n_tunes)]
    chosen = [score for arm, seed, name in names for score in scores(name, seed, (dev or test)[arm], 30)]
    arms = {name: {"seed": seed, "latent_noise": {"applied_to": ARMS[arm]}} for arm, seed, name in names}
    bottlenecks = dict.fromkeys(variants, bottleneck)
    return Results("made", variants, pitch=tuple(made), pitch_dev=tuple(chosen), arms=arms, bottlenecks=bottlenecks)


def judged(*args: Any, **options: Any) -> Judgement:
    found = judge(study(*args, **options))
    assert found is not None
    return found


def words(curve: Curve, dev: Curve | None = None, **options: Any) -> str:
    (arm,) = judged({"none": curve}, None if dev is None else {"none": dev}, **options).arms
    return arm.verdict.words


# The level


def test_the_level_is_chosen_on_dev_and_judged_on_test() -> None:
    (arm,) = judged({"none": {0.0: 0.1, 0.4: 0.3, 0.6: 0.5, 0.9: 0.2}}, {"none": {0.0: 0.1, 0.4: 0.6, 0.6: 0.5}}).arms
    assert arm.chosen == 0.4
    assert [(c.measure, c.second.noise_level) for c in arm.contrasts] == [
        ("spearman", 0.0),
        ("spearman_partial", 0.0),
        ("spearman", 0.9),
        ("spearman_partial", 0.9),
    ]
    clean, partial, noisy, _ = (contrast.estimate for contrast in arm.contrasts)
    assert clean.mean == pytest.approx(0.2, abs=0.003)
    assert noisy.mean == pytest.approx(0.1, abs=0.003)
    assert partial.mean == pytest.approx(0.1)
    assert (clean.n_seeds, clean.n_pieces, clean.n_clusters) == (3, 66, 33)
    assert clean.low is not None
    assert clean.low > 0.18  # paired: the tunes' own .18 is not in it


def test_of_equal_levels_the_lower_is_chosen() -> None:
    (arm,) = judged({"none": PEAK}, {"none": {0.9: 0.5, 0.3: 0.5, 0.6: 0.5, 0.0: 0.1}}).arms
    assert arm.chosen == 0.3


def test_a_level_without_correlations_is_left_out() -> None:
    (arm,) = judged({"none": PEAK}, {"none": {0.0: 0.2, 0.4: 0.5, 0.9: float("nan")}}).arms
    assert (arm.chosen, arm.verdict.claimed) == (0.4, True)


def test_a_level_that_a_seed_lacks_is_not_chosen_and_nothing_is_judged() -> None:
    (arm,) = judged({"none": PEAK}, {"none": {0.0: 0.2, 0.4: 0.5, 0.9: [0.9, None, 0.9]}}).arms
    assert arm.chosen == 0.4
    assert arm.verdict.words == "not judged: not every seed has a result on dev tunes at s = 0.9"


def test_without_tunes_to_choose_by_there_is_no_judgement() -> None:
    results = study({"none": PEAK})
    assert judge(Results("made", results.variants, pitch=results.pitch, arms=results.arms)) is None


# Intermediate


def test_intermediate_is_best_where_both_ends_are_exceeded_in_every_seed() -> None:
    (arm,) = judged({"none": {0.0: [0.1, 0.2, 0.3], 0.4: 0.5, 0.9: [0.1, 0.2, 0.3]}}).arms
    assert arm.verdict.claimed
    clean, _, noisy, _ = arm.contrasts
    assert arm.verdict.words == (
        f"intermediate is best: s = 0.4 exceeds s = 0 by {interval(clean.estimate)} and s = 0.9 by "
        f"{interval(noisy.estimate)}, in every seed"
    )
    assert list(clean.by_seed) == ["0", "1", "2"]
    assert list(clean.by_seed.values()) == pytest.approx([0.4, 0.3, 0.2], abs=0.003)
    assert clean.seed_sd == pytest.approx(0.1)


def test_one_end_that_is_not_exceeded_withdraws_the_claim() -> None:
    assert words({0.0: 0.2, 0.4: 0.5, 0.9: 0.5}, PEAK).startswith(
        "not claimed: the interval of ρ(0.4) − ρ(0.9) holds 0: "
    )
    assert words({0.0: 0.7, 0.4: 0.5, 0.9: 0.3}, PEAK).startswith("not claimed: ρ(0.4) − ρ(0) is below 0: -0.2")


def test_an_end_is_no_intermediate_level() -> None:
    assert words({0.0: 0.6, 0.4: 0.5, 0.9: 0.3}) == "not claimed: s = 0, chosen on dev, is no intermediate level"
    assert words({0.0: 0.1, 0.4: 0.5, 0.9: 0.6}) == "not claimed: s = 0.9, chosen on dev, is no intermediate level"


def test_a_seed_of_the_other_sign_withdraws_the_claim() -> None:
    mixed = {0.0: [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.51], 0.4: 0.5, 0.9: 0.3}
    assert words(mixed, n_seeds=10).startswith("not claimed: ρ(0.4) − ρ(0) differs in sign between seeds: +0.2")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n_seeds": 1}, "one model each, and a claim needs 3 seeds"),
        ({"n_seeds": 2}, "2 seeds, and a claim needs 3"),
        ({"n_tunes": 64}, "64 test tunes, and a claim needs 65"),
    ],
)
def test_a_design_that_is_too_small_is_not_judged(options: dict[str, int], reason: str) -> None:
    assert words(PEAK, **options) == f"not judged: {reason}"


def test_absent_ends_are_said_and_the_outermost_levels_shown() -> None:
    (arm,) = judged({"none": {0.1: 0.2, 0.4: 0.5, 0.8: 0.3}}).arms
    assert arm.verdict.words == "not judged: the study has no s = 0 and no s = 0.9 to compare s = 0.4 with"
    assert {contrast.second.noise_level for contrast in arm.contrasts} == {0.1, 0.8}


def test_a_seed_without_test_results_is_not_passed_over() -> None:
    lacking = {0.0: 0.2, 0.4: [0.5, 0.5, 0.5, None], 0.9: 0.3}
    assert words(lacking, PEAK, n_seeds=4) == "not judged: 3 of 4 seeds have a result on test tunes"


def test_clean_latents_behind_a_layer_norm_are_marked() -> None:
    (arm,) = judged({"none": PEAK}, bottleneck="layernorm").arms
    assert [contrast.degenerate for contrast in arm.contrasts] == [True, True, False, False]
    assert "exceeds s = 0 (degenerate here) by +0.3" in arm.verdict.words
    assert not any(contrast.degenerate for contrast in judged({"none": PEAK}).arms[0].contrasts)


# Alignment


def test_arms_are_compared_each_at_its_own_level() -> None:
    curves = {
        "none": {0.0: 0.2, 0.4: 0.3, 0.6: 0.35, 0.9: 0.2},
        "D m=0.0": {0.0: 0.2, 0.4: 0.3, 0.6: 0.4, 0.9: 0.2},
        "E+D m=0.0": PEAK,
    }
    found = judged(curves)
    assert [arm.chosen for arm in found.arms] == [0.6, 0.6, 0.4]
    decoder, none = found.alignments
    assert (decoder.first, decoder.second, decoder.about_encoding) == ("tanh E+D m=0.0", "tanh D m=0.0", True)
    assert (none.second, none.about_encoding) == ("tanh none", False)
    assert decoder.contrasts[0].estimate.mean == pytest.approx(0.1, abs=0.003)
    assert none.contrasts[0].estimate.mean == pytest.approx(0.15, abs=0.003)
    assert decoder.verdict.claimed
    assert decoder.verdict.words == (
        "IC follows pitch surprisal more closely in tanh E+D m=0.0 than in tanh D m=0.0, "
        f"{interval(decoder.contrasts[0].estimate)} in ρ, in every seed (a claim about the encoding)"
    )
    assert none.verdict.words.endswith("(no claim about the encoding alone)")


def test_the_opposite_and_no_difference_are_said_as_found() -> None:
    worse = judged({"D m=0.0": {0.0: 0.2, 0.4: 0.7, 0.9: 0.2}, "E+D m=0.0": PEAK}).alignments[0].verdict
    assert worse.claimed
    assert "less closely in tanh E+D" in worse.words
    same = judged({"D m=0.0": PEAK, "E+D m=0.0": PEAK}).alignments[0].verdict
    assert not same.claimed
    assert same.words.startswith("no difference is claimed: the interval of ρ(tanh E+D m=0.0, 0.4)")
    few = judged({"D m=0.0": PEAK, "E+D m=0.0": PEAK}, n_seeds=1).alignments[0].verdict
    assert few.words == "not judged: one model each, and a claim needs 3 seeds"


def test_seeds_are_paired() -> None:
    base = [0.3, 0.5, 0.7]
    curves = {
        "D m=0.0": {0.0: 0.1, 0.4: base, 0.9: 0.1},
        "E+D m=0.0": {0.0: 0.1, 0.4: [value + 0.1 for value in base], 0.9: 0.1},
    }
    (pair,) = judged(curves).alignments
    assert list(pair.contrasts[0].by_seed.values()) == pytest.approx([0.1] * 3)
    assert pair.verdict.claimed


# What is shown


def judged_study(**options: Any) -> Results:
    results = study(dict.fromkeys(ARMS, PEAK), **options)
    return Results(**{**vars(results), "judgement": judge(results)})


def test_the_headline_says_what_is_claimed_and_what_is_not() -> None:
    first, second, third = headline(judged_study())
    assert first.startswith("IC follows pitch surprisal best at an intermediate noise level: tanh none at s = 0.4; ")
    assert second.startswith("No difference between encodings")
    assert third == "This study has no EEG: nothing is said about listeners."
    unjudged = headline(judged_study(n_seeds=1))[0]
    assert unjudged.endswith("is claimed for no arm (not judged: one model each, and a claim needs 3 seeds).")


def test_tables_hold_every_difference_and_its_verdict() -> None:
    tables = csv_tables(judged_study())
    rows = list(csv.DictReader(tables["pitch_judgement.csv"].splitlines()))
    assert len(rows) == 3 * 4 + 2 * 2
    first = rows[0]
    assert (first["arm"], first["against_noise_level"], first["claimed"]) == ("tanh none", "0.0", "true")
    assert float(first["low"]) < float(first["mean"]) < float(first["high"])
    assert [part.split(":")[0] for part in first["by_seed"].split(";")] == ["0", "1", "2"]
    assert [row["question"] for row in rows[-4:]] == ["encoding", "encoding", "against none", "against none"]
    dev = list(csv.DictReader(tables["pitch_intervals_dev.csv"].splitlines()))
    assert {row["noise_level"] for row in dev if row["chosen"] == "true"} == {"0.4"}
    assert {row["n_pieces"] for row in dev} == {"30"}
    assert {row["n_pieces"] for row in csv.DictReader(tables["pitch_intervals.csv"].splitlines())} == {"66"}
    baselines = list(csv.DictReader(tables["pitch_baselines.csv"].splitlines()))
    assert [float(row["mean"]) for row in baselines] == pytest.approx([0.17, 0.2, 0.16])


def with_dev(graph: Graph, ledger: Any) -> Graph:
    """The made-up study with a cell on dev tunes beside every one on test tunes, each .5 above it."""
    cells = dict(graph.cells)
    for cell in graph:
        if cell.stage != "pitch":
            continue
        labels = {**cell.labels, "role": "melodies_dev"}
        twin = CellSpec("pitch", f"{cell.name} dev", cell.config, cell.inputs, f"dev{cell.signature[3:]}", labels)
        cells[twin.signature] = twin
        metrics = ledger.statuses[cell.signature].metrics
        metrics = {**metrics, "spearman_mean": metrics["spearman_mean"] + 0.5}
        ledger.finish(twin, ledger.files[cell.signature], metrics)
    return Graph(cells, graph.notes)


def test_dev_tunes_never_enter_the_ordinary_tables(tmp_path: Path) -> None:
    graph, ledger = made_up_study.make(("layernorm",), eeg=False)
    plain = build(graph, ledger, "demo", tmp_path / "plain")
    report = build(with_dev(graph, ledger), ledger, "demo", tmp_path / "both")
    assert condition_rows(report.results) == condition_rows(plain.results)
    for name in ("pitch.csv", "pitch_intervals.csv"):
        assert report.paths[name].read_bytes() == plain.paths[name].read_bytes()
    assert report.paths["pitch_dev.csv"].exists()
    curves, before = (by_level(r, "layernorm none") for r in (report, plain))
    assert curves["pitch_rho"] == before["pitch_rho"]
    assert curves["pitch_rho_dev"][400] == pytest.approx(curves["pitch_rho"][400] + 0.5)
    assert best(curves) == best(before)
    assert not {"pitch_dev.csv", "pitch_judgement.csv", "pitch_levels"} & set(plain.paths)


def test_the_report_shows_levels_verdicts_and_the_figure(tmp_path: Path) -> None:
    graph, ledger = made_up_study.make(("layernorm",), eeg=False)
    report = build(with_dev(graph, ledger), ledger, "demo", tmp_path)
    assert report.paths["pitch_levels"].stat().st_size > 10_000
    page = report.paths["report.html"].read_text()
    assert (
        page.index("Each arm&#39;s noise level")
        < page.index("Is IC best at intermediate noise")
        < page.index("<h2>Rec")
    )
    assert page.count("Is IC best at intermediate noise") == 1
    for shown in ("no s = 0.9 to compare s = 0.", "differences below 0.05 are out of reach"):
        assert shown in report.text
        assert shown in page


def test_a_figure_that_breaks_does_not_take_the_verdicts_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.report.figures.pitch_levels.draw", lambda _: 1 / 0)
    graph, ledger = made_up_study.make(("layernorm",), eeg=False)
    report = build(with_dev(graph, ledger), ledger, "demo", tmp_path)
    assert "figure pitch_levels: it could not be drawn" in report.text
    assert report.paths["report.html"].read_text().count("Is IC best at intermediate noise") == 1


def test_a_search_is_judged_by_its_melodies_alone() -> None:
    graph, ledger = made_up_study.make(("layernorm",), eeg=False)
    both = with_dev(graph, ledger)
    labelled = {
        key: CellSpec(c.stage, c.name, c.config, c.inputs, key, {"role": "melodies", **c.labels})
        for key, c in both.cells.items()
    }
    found = judges(Graph(labelled), OBJECTIVES["pitch_rho"])
    assert found
    assert {cell.labels["role"] for cell in found} == {"melodies"}
