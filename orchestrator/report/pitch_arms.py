"""Figure 4: correlations of IC with pitch surprisal per arm and level, with intervals over tunes and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.report.results import Results, Score
from tasks.cluster_bootstrap import Estimate, bootstrap, table

MEASURES = ("spearman", "spearman_partial", "pearson")
BASELINES = ("baseline_interval_spearman", "baseline_unigram_spearman", "baseline_repetition_spearman")


@dataclass(frozen=True)
class ArmEstimate:
    """One measure of one arm (variants that differ in their seed alone) at one noise level."""

    arm: str
    variants: tuple[str, ...]
    noise_level: float
    measure: str
    estimate: Estimate


def arms(results: Results, variants: Sequence[str]) -> dict[str, list[str]]:
    """Variants by arm: those whose names differ in the seed alone."""
    found: dict[str, list[str]] = {}
    for variant in variants:
        seed = results.arms.get(variant, {}).get("seed")
        name = " ".join(part for part in variant.split(" ") if part != f"seed={seed}")
        found.setdefault(name, []).append(variant)
    return found


def estimates(
    results: Results, measures: Sequence[str] = MEASURES, scores: Sequence[Score] | None = None
) -> list[ArmEstimate]:
    """Every measure of every arm and level that has rows, in the order of the arms, levels and measures.

    `scores` are those of the study's `melodies` unless others are given.
    """
    found = []
    given = results.pitch if scores is None else scores
    by_variant = [score.variant for score in given]
    for arm, variants in arms(results, [v for v in results.variants if v in by_variant]).items():
        for level in sorted({float(score.x) for score in given if score.variant in variants}):
            of_level = [s for s in given if s.variant in variants and float(s.x) == level and s.rows]
            for measure in measures:
                estimate = estimate_of(of_level, measure)
                if estimate is not None:
                    found.append(ArmEstimate(arm, tuple(variants), level, measure, estimate))
    return found


def estimate_of(scores: Sequence[Score], measure: str) -> Estimate | None:
    """Mean of a column over pieces, with its interval; `scores` are of one setting, one for each seed."""
    pieces, values = table([{piece_of(row): value_of(row, measure) for row in score.rows} for score in scores])
    families = {piece_of(row): row.get("cluster") or piece_of(row) for score in scores for row in score.rows}
    return bootstrap(values, [families[str(piece)] for piece in pieces]) if pieces else None


def piece_of(row: Mapping[str, str]) -> str:
    """What a row of a table of pieces is about: the recording."""
    return row.get("recording") or row.get("piece", "")


def value_of(row: Mapping[str, str], measure: str) -> float | None:
    """A cell of a table that a stage wrote; None where it is empty, missing or no number."""
    try:
        value = float(row.get(measure) or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
