"""Corrected p-values: max-T over everything searched, against permutations and against sign-flips over subjects."""

from __future__ import annotations

from itertools import product
from math import ceil, log2

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from tasks.seeds import numpy_stream

Floats = npt.NDArray[np.float64]

ALL_FLIPS_UP_TO = 12
"""With more subjects than this, sign-flips are drawn instead of enumerated."""

N_FLIPS = 10_000
TIE = 1e-12
"""Statistics closer than this are equal: flips that only exchange subjects differ by rounding."""

MOST_AT_ONCE = 10_000_000
"""Statistics held in memory at a time: flips x tests."""

FEWEST_SUBJECTS = 5
"""A test over fewer subjects, or pieces, is refused whatever alpha is."""


def least_subjects(alpha: float, two_sided: bool = False) -> int:
    """The least number of subjects, or pieces, whose 2^n sign-flips can reach p = alpha, and at least 5.

    In a two-sided test the opposite of all signs counts as much as the signs themselves, so it takes one more.
    """
    return max(FEWEST_SUBJECTS, ceil(log2((2 if two_sided else 1) / alpha)))


def studentised(observed: Floats, null: Floats) -> tuple[Floats, Floats]:
    """Observed and permuted statistics less their mean, over their standard deviation, per test.

    Mean and deviation are those of all B + 1 values, the observed one among them: every value is treated alike, so
    ranks keep their exact level at any B. A test without spread gets 0.

    Parameters
    ----------
    observed : ndarray, shape (...)
    null : ndarray, shape (B, ...)

    Returns
    -------
    tuple of ndarray, shapes (...) and (B, ...)
    """
    values = np.concatenate([observed[None], null])
    centred = values - values.mean(axis=0)
    spread = values.std(axis=0, ddof=1)
    flat = spread <= TIE * np.abs(values).max(axis=0)
    z = np.where(flat, 0.0, centred / np.where(flat, 1.0, spread))
    return z[0], z[1:]


def exceedances(observed: Floats, null: Floats) -> npt.NDArray[np.int64]:
    """How many permutations' maxima over all tests reach each observed value.

    Parameters
    ----------
    observed : ndarray, shape (...)
    null : ndarray, shape (B, ...)
    """
    maxima = null.reshape(len(null), -1).max(axis=1)
    return np.asarray((maxima[(...,) + (None,) * observed.ndim] >= observed - TIE).sum(axis=0), dtype=np.int64)


def p_value(exceeding: npt.ArrayLike, n_permutations: int) -> Floats:
    """(1 + b) / (1 + B): never zero (Phipson & Smyth 2010, doi 10.2202/1544-6115.1585)."""
    return (1.0 + np.asarray(exceeding, dtype=np.float64)) / (1.0 + n_permutations)


def clopper_pearson(exceeding: int, n_permutations: int, level: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval of the p-value that infinitely many permutations would give."""
    tail = (1 - level) / 2
    low = 0.0 if exceeding == 0 else float(beta.ppf(tail, exceeding, n_permutations - exceeding + 1))
    if exceeding == n_permutations:
        return low, 1.0
    return low, float(beta.ppf(1 - tail, exceeding + 1, n_permutations - exceeding))


def sign_flips(n_subjects: int) -> Floats:
    """Signs of subjects, the unflipped ones first.

    Returns
    -------
    ndarray, shape (2^n, n) up to 12 subjects, else (1 + 10 000, n) with signs from a fixed stream
    """
    if n_subjects <= ALL_FLIPS_UP_TO:
        return np.array(list(product((1.0, -1.0), repeat=n_subjects)))
    drawn = numpy_stream("group", "sign flips", n_subjects).integers(0, 2, size=(N_FLIPS, n_subjects))
    return np.concatenate([np.ones((1, n_subjects)), 1.0 - 2.0 * drawn])


def sign_flip_p(values: Floats, spread: Floats, two_sided: bool = False) -> Floats:
    """Max-T sign-flip test of mean > 0 over subjects (or pieces), or of mean != 0.

    The statistic is the largest over tests of the signed sum over subjects, each test in units of its `spread`. As no
    flip changes `spread`, the test is exact wherever signs are symmetric under the null hypothesis. Student's t would
    be no better scale: with six subjects it cannot exceed a ceiling that chance reaches somewhere among hundreds of
    tests, for almost any flip.

    Parameters
    ----------
    values : ndarray, shape (n_subjects, tests)
    spread : ndarray, shape (tests,)
        What each test is divided by, known without the subjects' signs. A test without spread gets 0.
    two_sided : bool
        Whether sums count by their size alone.

    Returns
    -------
    ndarray, shape (tests,)
        Share of flips, the observed signs among them, whose maximum over tests reaches the observed value.
    """
    return max_t_p(sign_flips(len(values)), values, spread, two_sided)


def max_t_p(weights: Floats, values: Floats, spread: Floats, two_sided: bool) -> Floats:
    """Max-T test of a weighted sum over subjects, against the same sum with other weights.

    Parameters
    ----------
    weights : ndarray, shape (R, n_subjects)
        The observed weights first; under the null hypothesis all rows are equally likely.
    values : ndarray, shape (n_subjects, tests)
    spread : ndarray, shape (tests,)
        What each test is divided by, the same for all weights. A test without spread gets 0.
    two_sided : bool
        Whether sums count by their size alone.

    Returns
    -------
    ndarray, shape (tests,)
        Share of rows, the observed one among them, whose maximum over tests reaches the observed value.
    """
    scaled = np.where(spread > 0, values / np.where(spread > 0, spread, 1.0), 0.0)
    size = np.abs if two_sided else np.asarray
    step = max(1, MOST_AT_ONCE // scaled.shape[1])
    observed, maxima = np.empty(0), []
    for first in range(0, len(weights), step):
        statistics = size(weights[first : first + step] @ scaled)
        observed = statistics[0] if first == 0 else observed
        maxima.append(statistics.max(axis=1))
    ranked = np.sort(np.concatenate(maxima))
    near = TIE * np.abs(scaled).sum(axis=0)
    reached = len(ranked) - np.searchsorted(ranked, observed - near, side="left")
    return np.asarray(reached / len(weights), dtype=np.float64)
