"""What p-values say of the tests: rates of false positives, their bounds, uniformity, and what is asked of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

import numpy as np
from comparisons import ALPHA, CASES, PIECES
from fits import N_PERMUTATIONS
from null_data import GENERATORS
from scipy.stats import binom, kstest

from tasks.eeg.maxima import clopper_pearson
from tasks.eeg.nulls import CALIBRATED
from tasks.seeds import numpy_stream

Array = np.ndarray[Any, Any]
Role = Literal["kept", "broken", "found", "described"]
CONFIDENCE = 0.99
MOST_SHOWN = 200
"""Data sets of a generator whose cells must reject more than half of the time and no more."""

BASIC = ("stimuli", "subjects", "both")
CLAIMS = ("levels claimed", "ends claimed", "best claimed")
ARM_CLAIMS = ("levels claimed", "arms claimed")


@dataclass(frozen=True)
class Asked:
    """Which tests of a case must keep their level, must find what is there (reject more than half), or are told."""

    kept: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    described: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return *self.kept, *self.found, *self.described


BOTH_LEVELS = ("levels subjects", "levels pieces")
BOTH_ARMS = ("arms subjects", "arms pieces")
BOTH_ENDS = ("ends subjects", "ends pieces")
BOTH_GROUPS = ("groups stimuli", "groups subjects")

ASKED = {
    "levels, nothing": Asked(kept=(*BASIC, *BOTH_LEVELS, *BOTH_ENDS, "intermediate", "choice", *CLAIMS)),
    "levels, equal": Asked(
        kept=("levels subjects", "ends subjects", "intermediate", *CLAIMS), described=("levels pieces", "ends pieces")
    ),
    "levels, one signal": Asked(
        kept=("levels pieces", "ends pieces", "intermediate", *CLAIMS), described=("levels subjects", "ends subjects")
    ),
    "levels, shared activity": Asked(
        kept=("stimuli", "both", "levels pieces", "ends pieces", "intermediate", *CLAIMS),
        described=("subjects", "levels subjects", "ends subjects", "choice"),
    ),
    "levels, different": Asked(found=(*BOTH_LEVELS, *BOTH_ENDS, "intermediate", "choice", *CLAIMS)),
    "arms, nothing": Asked(kept=(*BASIC, *BOTH_LEVELS, *BOTH_ARMS, "choice", *ARM_CLAIMS)),
    "arms, equal": Asked(
        kept=("levels subjects", "arms subjects", *ARM_CLAIMS), described=("levels pieces", "arms pieces")
    ),
    "arms, different": Asked(found=(*BOTH_ARMS, "arms claimed")),
    "maps, nothing": Asked(kept=(*BASIC, *BOTH_LEVELS, "clusters")),
    "maps, different": Asked(found=("clusters",)),
    "groups, equal": Asked(kept=("groups subjects", "groups claimed"), described=("groups stimuli",)),
    "groups, shared activity": Asked(kept=("groups stimuli", "groups claimed"), described=("groups subjects",)),
    "groups, different": Asked(found=(*BOTH_GROUPS, "groups claimed")),
}

STEPS: dict[str, Callable[[int], float]] = {
    "stimuli": lambda n_subjects: 1 / (N_PERMUTATIONS + 1),
    "subjects": lambda n_subjects: 0.5**n_subjects,
    "levels subjects": lambda n_subjects: 2 * 0.5**n_subjects,
    "arms subjects": lambda n_subjects: 2 * 0.5**n_subjects,
    "ends subjects": lambda n_subjects: 0.5**n_subjects,
    "levels pieces": lambda n_subjects: 2 * 0.5 ** len(PIECES),
    "arms pieces": lambda n_subjects: 2 * 0.5 ** len(PIECES),
    "ends pieces": lambda n_subjects: 0.5 ** len(PIECES),
    "choice": lambda n_subjects: 0.5**n_subjects,
    "groups stimuli": lambda n_subjects: 1 / (N_PERMUTATIONS + 1),
    "groups subjects": lambda n_subjects: 2 / comb(n_subjects, n_subjects // 2),
}
"""Step of the p-values of tests whose p should be uniform, by the number of subjects. A claim's p is the larger of two
or is told only where something is claimed, and so is a cluster's: they are judged by their rate alone."""


def role(generator: str, null: str, test: str) -> Role:
    """Whether a test must keep its level here, must be seen to break it, must find what is there, or is only described.

    Both controls are broken in both tests. A test over subjects alone says nothing about other stimuli, so it isn't
    held to its level where listeners share activity that nothing explains: that is why a claim needs both.
    """
    if generator in CASES:
        own = ASKED[generator]
        return "kept" if test in own.kept else "found" if test in own.found else "described"
    onsets_missing, linear = generator == "onsets unmodelled", generator == "compressive, linear model"
    if (onsets_missing and null == "circular_shift") or (linear and null == "residual_shift"):
        return "described" if test == "both" else "broken"
    if null not in CALIBRATED or linear or (onsets_missing and null == "residual_shift"):
        return "described"
    return "described" if generator.startswith("shared activity") and test == "subjects" else "kept"


def n_asked(generator: str, n_data_sets: int) -> int:
    """How many data sets a generator needs: fewer where the tests have only to find what is there."""
    shown = generator in CASES and not ASKED[generator].kept and not ASKED[generator].described
    return min(n_data_sets, MOST_SHOWN) if shown else n_data_sets


def n_subjects(generator: str) -> int:
    """Listeners of each data set."""
    return CASES[generator].n_listeners if generator in CASES else GENERATORS[generator].n_subjects


def rate_interval(rejections: int, count: int) -> tuple[float, float]:
    """One-sided Clopper-Pearson bounds of a rate, each at 99 %."""
    return clopper_pearson(rejections, count, 2 * CONFIDENCE - 1)


def holm(p: Array) -> Array:
    """p adjusted for as many tests (Holm 1979): p <= .01 where the bound at the adjusted level exceeds .05."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate((p.size - np.arange(p.size)) * p[order])
    adjusted = np.empty(p.size)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


@dataclass(frozen=True)
class Cell:
    """One test on one generator's data sets.

    Attributes
    ----------
    p_rate : float
        Binomial probability of as many rejections at a rate of .05, Holm-adjusted over the cells that must keep it.
    p_uniform : float, optional
        One-sided Kolmogorov-Smirnov p of "no p-value comes too often small", adjusted likewise. None for tests that
        `STEPS` hasn't.
    """

    generator: str
    null: str
    test: str
    role: Role
    count: int
    rejections: int
    low: float
    high: float
    p_rate: float
    p_uniform: float | None

    @property
    def rate(self) -> float:
        """Share of data sets with p <= .05."""
        return self.rejections / self.count

    @property
    def ok(self) -> bool:
        """Whether the cell does what its role asks."""
        if self.role == "kept":
            return self.p_rate > 1 - CONFIDENCE and (self.p_uniform is None or self.p_uniform > 1 - CONFIDENCE)
        return self.role == "described" or self.rate > 0.5

    @property
    def conservative(self) -> bool:
        """Whether the rate is below .05 beyond doubt."""
        return self.high < ALPHA


def randomised(p: Array, step: float, generator: str, null: str, test: str) -> Array:
    """p less a uniform share of its step: exactly uniform where ranks are, though p takes few values."""
    return np.asarray(p - step * numpy_stream("randomised", generator, null, test).random(p.size))


def judge(found: dict[str, dict[tuple[str, str], Array]]) -> list[Cell]:
    """Cells of all generators' p-values. The adjustment is over the cells that must keep their level."""
    rows = [
        (generator, *key, p)
        for generator, own in found.items()
        for key, p in own.items()
        if generator not in CASES or key[1] in ASKED[generator].all
    ]
    kept = [index for index, row in enumerate(rows) if role(*row[:3]) == "kept"]
    counts = [int((row[3] <= ALPHA).sum()) for row in rows]
    chance = np.array([float(binom.sf(n - 1, row[3].size, ALPHA)) for n, row in zip(counts, rows, strict=True)])
    uniform = np.array([_uniform(*row) if row[2] in STEPS else np.nan for row in rows])
    for values in (chance, uniform):
        family = [index for index in kept if np.isfinite(values[index])]
        values[family] = holm(values[family])
    cells = []
    for index, (generator, null, test, p) in enumerate(rows):
        even = None if np.isnan(uniform[index]) else float(uniform[index])
        bounds = rate_interval(counts[index], p.size)
        place = generator, null, test, role(generator, null, test)
        cells.append(Cell(*place, p.size, counts[index], *bounds, float(chance[index]), even))
    return cells


def _uniform(generator: str, null: str, test: str, p: Array) -> float:
    step = STEPS[test](n_subjects(generator))
    return float(kstest(randomised(p, step, generator, null, test), "uniform", alternative="greater").pvalue)
