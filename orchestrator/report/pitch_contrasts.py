"""Paired differences of arms and noise levels on the tunes of `melodies`, with intervals over tunes and seeds."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from orchestrator.report.pitch_arms import arms, piece_of, value_of
from orchestrator.report.results import Results
from tasks.cluster_bootstrap import Estimate, bootstrap, table

PRIMARY = "spearman"
SHOWN = (PRIMARY, "spearman_partial")
"""The measure that decides, and the one shown beside it."""


@dataclass(frozen=True)
class Setting:
    """One arm at one noise level."""

    arm: str
    noise_level: float


@dataclass(frozen=True)
class Contrast:
    """Paired differences, first setting minus second, on test tunes: their mean, and the mean of each seed."""

    first: Setting
    second: Setting
    measure: str
    estimate: Estimate
    by_seed: Mapping[str, float]
    degenerate: bool = False

    @property
    def seed_sd(self) -> float | None:
        """SD of the difference between seeds; None where there is one."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    def exceeds(self, sign: int = 1) -> bool:
        """Whether its interval and every seed lie above 0 (below, for a `sign` of -1)."""
        bound = self.estimate.low if sign > 0 else self.estimate.high
        return bound is not None and sign * bound > 0 and all(sign * value > 0 for value in self.by_seed.values())


def bounds(found: Estimate) -> str:
    """An interval in brackets; empty where there is none."""
    return "" if found.low is None or found.high is None else f"[{found.low:+.3f}, {found.high:+.3f}]"


def interval(found: Estimate | None) -> str:
    """A mean with its interval; a dash where there is none."""
    return "–" if found is None else f"{found.mean:+.3f} {bounds(found)}".rstrip()


def difference(contrast: Contrast) -> str:
    """A contrast in symbols."""
    first, second = contrast.first, contrast.second
    if first.arm == second.arm:
        return f"ρ({first.noise_level:g}) − ρ({second.noise_level:g})"
    return f"ρ({first.arm}, {first.noise_level:g}) − ρ({second.arm}, {second.noise_level:g})"


class Tables:
    """Test correlations by variant and level, and which variants are seeds of one arm."""

    def __init__(self, results: Results) -> None:
        self.results = results
        there = {score.variant for score in (*results.pitch, *results.pitch_dev)}
        self.arms = arms(results, [variant for variant in results.variants if variant in there])
        self.rows = {(score.variant, float(score.x)): score.rows for score in results.pitch}
        self.levels = sorted({float(score.x) for score in (*results.pitch, *results.pitch_dev)})

    def seeds(self, arm: str) -> dict[str, str]:
        """The variants of an arm by seed."""
        return {str(self.results.arms.get(variant, {}).get("seed", variant)): variant for variant in self.arms[arm]}

    def noise(self, arm: str) -> Mapping[str, object]:
        """The settings of an arm's latent noise."""
        found = self.results.arms.get(self.arms[arm][0], {}).get("latent_noise", {})
        return found if isinstance(found, Mapping) else {}

    def contrast(self, first: Setting, second: Setting, measure: str) -> Contrast | None:
        """First minus second, seed by seed and piece by piece, where both have a value."""
        of_first, of_second = self.seeds(first.arm), self.seeds(second.arm)
        differences: list[dict[Hashable, float | None]] = []
        by_seed: dict[str, float] = {}
        families: dict[str, str] = {}
        for seed in [seed for seed in of_first if seed in of_second]:
            one = self._values(of_first[seed], first.noise_level, measure, families)
            two = self._values(of_second[seed], second.noise_level, measure, families)
            both = [piece for piece in one if piece in two]
            gains = [one[piece] - two[piece] for piece in both]
            if gains:
                differences.append(dict(zip(both, gains, strict=True)))
                by_seed[seed] = statistics.fmean(gains)
        pieces, values = table(differences)
        estimate = bootstrap(values, [families[str(piece)] for piece in pieces]) if pieces else None
        if estimate is None:
            return None
        used = [(self.arms[setting.arm][0], setting.noise_level) for setting in (first, second)]
        degenerate = any(self.results.degenerate(variant, level) for variant, level in used)
        return Contrast(first, second, measure, estimate, by_seed, degenerate)

    def _values(self, variant: str, level: float, measure: str, families: dict[str, str]) -> dict[str, float]:
        found = {}
        for row in self.rows.get((variant, level), ()):
            value = value_of(row, measure)
            if value is not None:
                found[piece_of(row)] = value
                families[piece_of(row)] = row.get("cluster") or piece_of(row)
        return found

    def contrasts(self, first: Setting, second: Setting) -> list[Contrast]:
        """Of every shown measure, the primary first."""
        found = (self.contrast(first, second, measure) for measure in SHOWN)
        return [contrast for contrast in found if contrast is not None]
