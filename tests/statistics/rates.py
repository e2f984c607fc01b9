"""Tests on data sets, and what their p-values say of the tests: rates of false positives, their bounds, uniformity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from null_data import GENERATORS, RATE, DataSet, data_set
from scipy.stats import beta, binom, kstest

from tasks.eeg import group
from tasks.eeg.config import Null
from tasks.eeg.draws import Source
from tasks.eeg.folds import make_folds, prepare
from tasks.eeg.lags import lag_samples, lagged
from tasks.eeg.maxima import sign_flip_p, sign_flips
from tasks.eeg.nested import full_scores, reduced_scores
from tasks.eeg.nulls import CALIBRATED
from tasks.eeg.residual import Explainer, OnsetExplainer, Split
from tasks.eeg.sufficient import Layout, Part, reduced_sums, regressor_sums, response_sums
from tasks.seeds import numpy_stream

Array = np.ndarray[Any, Any]
Role = Literal["kept", "broken", "described"]
ALPHA, CONFIDENCE = 0.05, 0.99
N_PERMUTATIONS = 39
"""p can be .05 exactly: with another number the test's own level would be below it."""

LAMBDAS = (1e-2, 1e-1)
LAGS = lag_samples(0.0, 0.25, RATE)
TESTS = ("stimuli", "subjects", "both")
"""Over stimuli, over subjects, and the claim: the larger p of the two at the best channel."""

RAW = "raw delta_r"
"""The sign-flip of delta_r itself, without a null distribution: a diagnostic."""


@dataclass(frozen=True)
class Setting:
    """How data are fitted and permuted."""

    lags: Array
    rate: int
    n_permutations: int


SMALL = Setting(LAGS, RATE, N_PERMUTATIONS)
BATCH = 100
"""Permutations are computed this many at a time."""


def gains(data: DataSet, nulls: Sequence[Null], seed: int, setting: Setting = SMALL) -> dict[str, tuple[Array, Array]]:
    """delta_r (S, 1, C) and its permutations (S, B, 1, C) under each null distribution."""
    lags = setting.lags
    design = {piece: lagged(values, lags) for piece, values in data.reduced.items()}
    names, n_trials = tuple(data.reduced), len(data.eeg[0][0])
    layout = Layout(names, tuple((Part(name, len(data.reduced[name]), n_trials),) for name in names))
    folds = make_folds(reduced_sums(layout, design), LAMBDAS)
    heard = [prepare(folds, response_sums(layout, design, [[trials] for trials in own])) for own in data.eeg]
    base = np.array([reduced_scores(folds, own).r[0].mean(axis=0) for own in heard])

    def gain(versions: Mapping[str, Array]) -> Array:
        sums, crosses = regressor_sums(layout, design, versions, lags, [own.sums for own in heard])
        r = np.array([scores.r.mean(axis=1) for scores in full_scores(folds, sums, heard, crosses)])
        return np.asarray(r - base[:, None])[:, :, None]

    observed = gain({name: values[None] for name, values in data.regressor.values.items()})[:, 0]
    found = {}
    for null in nulls:
        draw = Source(
            null, data.regressor, _split(data, null, lags.size), data.counts, seed, 2.0, lags.size, setting.rate
        )
        starts = range(0, setting.n_permutations, BATCH)
        blocks = [gain(draw(range(start, min(start + BATCH, setting.n_permutations)))) for start in starts]
        found[null] = observed, np.concatenate(blocks, axis=1)
    return found


def _split(data: DataSet, null: Null, n_lags: int) -> Split | None:
    if null == "residual_shift":
        return Explainer(data.reduced, n_lags).split(data.regressor)
    return OnsetExplainer(data.reduced, data.counts, n_lags).split(data.regressor) if null == "onset_values" else None


def p_values(generator: str, nulls: Sequence[Null], numbers: Iterable[int]) -> dict[tuple[str, str], Array]:
    """Smallest p over channels by (null, test), one per data set; `RAW` has the test over subjects alone."""
    rows: dict[tuple[str, str], list[float]] = {}
    for number in numbers:
        by_null = gains(data_set(generator, number), nulls, number)
        for null, (gain, null_gain) in by_null.items():
            tests = group.run_tests(gain, null_gain, ALPHA)
            assert tests.p is not None
            assert tests.p_subject is not None
            for test, p in zip(TESTS, (tests.p_stimulus, tests.p_subject, tests.p), strict=True):
                rows.setdefault((null, test), []).append(float(p.min()))
        gain, null_gain = by_null[nulls[0]]
        spread = np.sqrt(null_gain.var(axis=1).mean(axis=0)).ravel()
        rows.setdefault((RAW, "subjects"), []).append(float(sign_flip_p(gain.reshape(len(gain), -1), spread).min()))
    return {key: np.array(found) for key, found in rows.items()}


def role(generator: str, null: str, test: str) -> Role:
    """Whether a test must keep its level here, must be seen to break it, or is only described.

    Both controls are broken in both tests. A test over subjects alone says nothing about other stimuli, so it isn't
    held to its level where listeners share activity that nothing explains: that is why a claim needs both.
    """
    onsets_missing, linear = generator == "onsets unmodelled", generator == "compressive, linear model"
    if (onsets_missing and null == "circular_shift") or (linear and null == "residual_shift"):
        return "described" if test == "both" else "broken"
    if null not in CALIBRATED or linear or (onsets_missing and null == "residual_shift"):
        return "described"
    return "described" if generator == "shared activity" and test == "subjects" else "kept"


def offered(generator: str) -> tuple[Null, ...]:
    """The null distributions that a study may choose and claim with."""
    return ("residual_shift", "onset_values") if GENERATORS[generator].on_notes else ("residual_shift",)


def rate_interval(rejections: int, count: int) -> tuple[float, float]:
    """One-sided Clopper-Pearson bounds of a rate, each at 99 %."""
    low = 0.0 if rejections == 0 else float(beta.ppf(1 - CONFIDENCE, rejections, count - rejections + 1))
    high = 1.0 if rejections == count else float(beta.ppf(CONFIDENCE, rejections + 1, count - rejections))
    return low, high


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
        One-sided Kolmogorov-Smirnov p of "no p-value comes too often small", adjusted likewise. None for the claim,
        whose p is the larger of two.
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
    rows = [(generator, *key, p) for generator, own in found.items() for key, p in own.items()]
    kept = [index for index, row in enumerate(rows) if role(*row[:3]) == "kept"]
    counts = [int((row[3] <= ALPHA).sum()) for row in rows]
    chance = np.array([float(binom.sf(n - 1, row[3].size, ALPHA)) for n, row in zip(counts, rows, strict=True)])
    uniform = np.array([_uniform(*row) if row[2] != "both" else np.nan for row in rows])
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
    flips = len(sign_flips(GENERATORS[generator].n_subjects))
    step = 1 / (N_PERMUTATIONS + 1) if test == "stimuli" else 1 / flips
    return float(kstest(randomised(p, step, generator, null, test), "uniform", alternative="greater").pvalue)
