"""Figure 4's judgement in words, and in rows for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from orchestrator.report.pitch_contrasts import PRIMARY, Contrast, bounds, difference, interval
from orchestrator.report.pitch_judgement import REACH, Judgement, Verdict
from orchestrator.report.results import Results
from tasks.cluster_bootstrap import Estimate

MEASURE_NAMES = {PRIMARY: "Spearman", "spearman_partial": "partial Spearman"}
BASELINE_NAMES = {
    "baseline_interval_spearman": "|interval|",
    "baseline_unigram_spearman": "unigram",
    "baseline_repetition_spearman": "repeated note",
}
NOTE = (
    "s* has the largest mean Spearman ρ over dev tunes and seeds; everything else is of test tunes. Brackets: 95 % "
    "bootstrap over clusters of tunes, crossed with seeds. Intermediate is best only where ρ(s*) exceeds both ρ(0) and "
    "ρ(0.9), by their intervals and in every seed."
)
CAVEATS = (
    f"ρ's SD per tune is about .18: differences below {REACH:g} are out of reach, and an interval that holds 0 does "
    "not say that there is none. An interior maximum alone is no evidence of alignment."
)
ARMS_HEADER = ("arm", "s*", "ρ dev", "ρ test", "partial ρ test", "seeds", "tunes", "clusters")
CONTRASTS_HEADER = ("difference", "measure", "mean", "95 % interval", "seeds", "SD of seeds")


def sentences(results: Results) -> list[str]:
    """What may be said first: of intermediate levels, then of the encoding."""
    found = results.judgement
    if found is None:
        return []
    best = [arm for arm in found.arms if arm.verdict.claimed]
    where = "; ".join(f"{arm.arm} at s = {arm.chosen:g}" for arm in best)
    first = (
        f"IC follows pitch surprisal best at an intermediate noise level: {where}."
        if best
        else f"That IC follows pitch surprisal best at an intermediate noise level is claimed for no arm{_why(found)}."
    )
    encodings = [pair for pair in found.alignments if pair.about_encoding]
    claimed = [f"{pair.verdict.words}." for pair in encodings if pair.verdict.claimed]
    if not claimed and encodings:
        claimed = ["No difference between encodings trained with and without noise is claimed (pitch surprisal)."]
    return [first, *claimed]


def _why(judgement: Judgement) -> str:
    """What no arm could be judged for, where that is the same for all."""
    words = {arm.verdict.words for arm in judgement.arms}
    return f" ({words.pop()})" if len(words) == 1 and not judgement.arms[0].verdict.judged else ""


def verdicts(judgement: Judgement) -> list[tuple[str, Verdict]]:
    """What is judged, and how: every arm's levels, then every pair of arms."""
    pairs = [(f"{pair.first} against {pair.second}", pair.verdict) for pair in judgement.alignments]
    return [*((arm.arm, arm.verdict) for arm in judgement.arms), *pairs]


def arm_rows(results: Results) -> list[tuple[str, ...]]:
    """One row per arm: its level, and its correlations there."""
    found = results.judgement
    rows: list[tuple[str, ...]] = []
    for arm in found.arms if found is not None else ():
        assert found is not None
        test = found.at(arm.arm, arm.chosen)
        degenerate = arm.chosen is not None and results.degenerate(arm.variants[0], arm.chosen)
        sizes = (test.n_seeds, test.n_pieces, test.n_clusters) if test is not None else ("–", "–", "–")
        rows.append(
            (
                arm.arm,
                "–" if arm.chosen is None else f"{arm.chosen:g}" + ("*" if degenerate else ""),
                _mean(found.at(arm.arm, arm.chosen, dev=True)),
                interval(test),
                interval(found.at(arm.arm, arm.chosen, "spearman_partial")),
                *map(str, sizes),
            )
        )
    return rows


def contrast_rows(judgement: Judgement) -> list[tuple[str, ...]]:
    """One row per difference and measure: each arm's s* against both ends, then arm against arm."""
    rows: list[tuple[str, ...]] = []
    for owner, contrasts in _groups(judgement):
        for contrast in contrasts:
            found, sd = contrast.estimate, contrast.seed_sd
            seeds = ", ".join(f"{value:+.3f}" for value in contrast.by_seed.values())
            rows.append(
                (
                    owner + difference(contrast) + (" *" if contrast.degenerate else ""),
                    MEASURE_NAMES[contrast.measure],
                    f"{found.mean:+.3f}",
                    bounds(found),
                    seeds,
                    "–" if sd is None else f"{sd:.3f}",
                )
            )
    return rows


def _groups(judgement: Judgement) -> list[tuple[str, tuple[Contrast, ...]]]:
    levels = [(f"{arm.arm}: ", arm.contrasts) for arm in judgement.arms]
    return [*levels, *(("", pair.contrasts) for pair in judgement.alignments)]


def baseline_rows(judgement: Judgement) -> list[tuple[str, ...]]:
    """What needs no audio, against pitch surprisal on the same test tunes."""
    return [(BASELINE_NAMES[name], interval(found)) for name, found in judgement.baselines.items()]


def _mean(found: Estimate | None) -> str:
    return "–" if found is None else f"{found.mean:+.3f}"


JUDGED_COLUMNS = (
    "question", "arm", "noise_level", "against_arm", "against_noise_level", "measure", "mean", "low", "high", "n_seeds",
    "n_pieces", "n_clusters", "seed_sd", "by_seed", "degenerate", "claimed", "judged", "verdict",
)  # fmt: skip
LEVEL_COLUMNS = (
    "arm", "noise_level", "measure", "mean", "low", "high", "n_seeds", "n_pieces", "n_clusters", "chosen", "variants",
)  # fmt: skip
BASELINE_COLUMNS = ("baseline", "mean", "low", "high", "n_pieces", "n_clusters")


def judged_rows(judgement: Judgement) -> Iterable[Mapping[str, Any]]:
    """One row per difference and measure; what could not be compared has a row without numbers."""
    for arm in judgement.arms:
        empty = {"arm": arm.arm, "noise_level": arm.chosen, "measure": PRIMARY}
        for row in [_row(contrast) for contrast in arm.contrasts] or [empty]:
            yield {**row, "question": "intermediate level", **asdict(arm.verdict), "verdict": arm.verdict.words}
    for pair in judgement.alignments:
        question = "encoding" if pair.about_encoding else "against none"
        empty = {"arm": pair.first, "against_arm": pair.second, "measure": PRIMARY}
        for row in [_row(contrast) for contrast in pair.contrasts] or [empty]:
            yield {**row, "question": question, **asdict(pair.verdict), "verdict": pair.verdict.words}


def _row(contrast: Contrast) -> dict[str, Any]:
    return {
        **asdict(contrast.estimate),
        "arm": contrast.first.arm,
        "noise_level": contrast.first.noise_level,
        "against_arm": contrast.second.arm,
        "against_noise_level": contrast.second.noise_level,
        "measure": contrast.measure,
        "seed_sd": contrast.seed_sd,
        "by_seed": ";".join(f"{seed}:{value!r}" for seed, value in contrast.by_seed.items()),
        "degenerate": contrast.degenerate,
    }


def level_rows(judgement: Judgement) -> Iterable[Mapping[str, Any]]:
    """One row per arm, level and measure on dev tunes; `chosen` marks s*."""
    chosen = {arm.arm: arm.chosen for arm in judgement.arms}
    for row in judgement.dev:
        yield {
            **asdict(row.estimate),
            "arm": row.arm,
            "noise_level": row.noise_level,
            "measure": row.measure,
            "chosen": chosen.get(row.arm) == row.noise_level,
            "variants": ";".join(row.variants),
        }


def baselines(judgement: Judgement) -> Iterable[Mapping[str, Any]]:
    """One row per baseline."""
    return ({**asdict(found), "baseline": name} for name, found in judgement.baselines.items())
