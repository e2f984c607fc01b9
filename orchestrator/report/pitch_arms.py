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


def estimates(results: Results, measures: Sequence[str] = MEASURES) -> list[ArmEstimate]:
    """Every measure of every arm and level that has rows, in the order of the arms, levels and measures."""
    found = []
    by_variant = [score.variant for score in results.pitch]
    for arm, variants in arms(results, [v for v in results.variants if v in by_variant]).items():
        for level in sorted({float(score.x) for score in results.pitch if score.variant in variants}):
            scores = [s for s in results.pitch if s.variant in variants and float(s.x) == level and s.rows]
            for measure in measures:
                estimate = _estimate(scores, measure)
                if estimate is not None:
                    found.append(ArmEstimate(arm, tuple(variants), level, measure, estimate))
    return found


def _estimate(scores: Sequence[Score], measure: str) -> Estimate | None:
    pieces, values = table([{_piece(row): _value(row, measure) for row in score.rows} for score in scores])
    families = {_piece(row): row.get("cluster") or _piece(row) for score in scores for row in score.rows}
    return bootstrap(values, [families[str(piece)] for piece in pieces]) if pieces else None


def _piece(row: Mapping[str, str]) -> str:
    return row.get("recording") or row.get("piece", "")


def _value(row: Mapping[str, str], measure: str) -> float | None:
    """A cell of a table that a stage wrote; None where it is empty, missing or no number."""
    try:
        value = float(row.get(measure) or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
