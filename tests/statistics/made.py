"""p-values of the tests on data sets: what takes hours, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np
from comparisons import ALPHA, CASES, comparison_p
from fits import fit
from null_data import GENERATORS, data_set

from tasks.eeg import group
from tasks.eeg.config import Null
from tasks.eeg.maxima import sign_flip_p
from tasks.eeg.nulls import CALIBRATED

Array = np.ndarray[Any, Any]
TESTS = ("stimuli", "subjects", "both")
"""Over stimuli, over subjects, and the claim: the larger p of the two at the best channel."""

RAW = "raw delta_r"
"""The sign-flip of delta_r itself, without a null distribution: a diagnostic."""

PRIMARY: Null = "residual_shift"
DIAGNOSTICS: tuple[Null, ...] = tuple(null for null in get_args(Null) if null not in CALIBRATED)
NAMES = (*GENERATORS, *CASES)


def offered(generator: str) -> tuple[Null, ...]:
    """The null distributions that a study may choose and claim with."""
    on_notes = generator in GENERATORS and GENERATORS[generator].on_notes
    return (PRIMARY, "onset_values") if on_notes else (PRIMARY,)


def asked(generator: str) -> tuple[Null, ...]:
    """The null distributions of the full calibration: of conditions the one that a study has by default.

    Whole series can't be moved across pieces where IC has gaps.
    """
    if generator in CASES:
        return (PRIMARY,)
    gaps = GENERATORS[generator].gaps
    return (*offered(generator), *(null for null in DIAGNOSTICS if not (gaps and null == "across_pieces")))


def p_of(name: str, number: int, nulls: Sequence[Null]) -> dict[tuple[str, str], float]:
    """Smallest p over channels by (null, test) on a data set; `RAW` has the test over subjects alone."""
    if name in CASES:
        return {(PRIMARY, test): p for test, p in comparison_p(name, number).items()}
    fitted, found = fit(data_set(name, number), nulls, number), {}
    gain = fitted.gain
    for null, null_gain in fitted.null.items():
        tests = group.run_tests(gain, null_gain, ALPHA)
        assert tests.p is not None
        assert tests.p_subject is not None
        for test, p in zip(TESTS, (tests.p_stimulus, tests.p_subject, tests.p), strict=True):
            found[null, test] = float(p.min())
    spread = np.sqrt(fitted.null[nulls[0]].var(axis=1).mean(axis=0)).ravel()
    found[RAW, "subjects"] = float(sign_flip_p(gain.reshape(len(gain), -1), spread).min())
    return found


def together(rows: Sequence[dict[tuple[str, str], float]]) -> dict[tuple[str, str], Array]:
    """p-values of many data sets, one per data set, by (null, test)."""
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def p_values(name: str, nulls: Sequence[Null], numbers: Iterable[int]) -> dict[tuple[str, str], Array]:
    """As `p_of`, of several data sets."""
    return together([p_of(name, number, nulls) for number in numbers])
