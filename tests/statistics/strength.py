"""What trials of the study of power say: how often an effect is claimed, and whether that is often enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from power import Trial
from rates import rate_interval

ASKED_EXCESS, LEAST_POWER = 0.002, 0.8
"""The mean excess delta_r at which power must suffice. It is what is left of the planted effect: responses are
estimated, and the largest planted effect loses least. Where no effect comes within a quarter of it, nothing is said."""


@dataclass(frozen=True)
class Power:
    """Claims at one effect size; `excess` is the mean over data sets of excess delta_r, median over channels."""

    effect: float
    excess: float
    count: int
    claims: int
    stimuli: int
    subjects: int

    @property
    def power(self) -> float:
        """Share of data sets with a claim."""
        return self.claims / self.count

    @property
    def bounds(self) -> tuple[float, float]:
        """One-sided 99 % bounds of the power."""
        return rate_interval(self.claims, self.count)


def power_of(trials: Sequence[Trial]) -> list[Power]:
    """Claims at each effect, the smallest effect first."""
    found = []
    for effect in sorted({own.effect for own in trials}):
        here = [own for own in trials if own.effect == effect]
        claims, stimuli, subjects = np.sum([own.hits for own in here], axis=0).tolist()
        excess = float(np.mean([own.excess for own in here]))
        found.append(Power(effect, excess, len(here), claims, stimuli, subjects))
    return found


def asked_effect(found: Sequence[Power]) -> Power | None:
    """The effect whose mean excess delta_r is nearest to .002; None where none rounds to it."""
    nearest = min(found, key=lambda own: abs(own.excess - ASKED_EXCESS), default=None)
    return nearest if nearest is not None and abs(nearest.excess - ASKED_EXCESS) < ASKED_EXCESS / 4 else None


def strong_enough(found: Sequence[Power]) -> bool:
    """Power rises with the effect, and is .8 or more at the effect of about .002 and above it."""
    shares, there = [own.power for own in found], asked_effect(found)
    if there is None or shares != sorted(shares):
        return False
    return all(own.power >= LEAST_POWER for own in found if own.effect >= there.effect)
