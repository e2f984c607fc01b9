"""Which electrodes at which levels, as an exploration: the false discovery rate over a whole grid of tests.

Benjamini & Hochberg 1995 (doi 10.1111/j.2517-6161.1995.tb02031.x) bound the expected share of false finds among all
finds, where tests don't depend on each other in a negative way. Single finds may be false, so none is a claim.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import false_discovery_control

from tasks.eeg.maxima import TIE, p_value

Floats = npt.NDArray[np.float64]


def uncorrected(gain: Floats, null: Floats) -> Floats:
    """p of each test over stimuli by itself: the mean over subjects against the same mean of permutations.

    Parameters
    ----------
    gain : ndarray, shape (S, conditions, C)
    null : ndarray, shape (S, B, conditions, C)

    Returns
    -------
    ndarray, shape (conditions, C)
    """
    observed, permuted = gain.mean(axis=0), null.mean(axis=0)
    near = TIE * np.abs(permuted).max(axis=0, initial=0.0)
    return p_value((permuted >= observed - near).sum(axis=0), null.shape[1])


def explored(gain: Floats, null: Floats, alpha: float) -> dict[str, Any]:
    """The grid of all conditions and channels, each with the smallest rate at which it is among the finds.

    Returns
    -------
    dict
        `p` and `q`, (conditions, C) each; `n_tests` and `n_found` (q at most `alpha`); `needed`: how many tests must
        have the least possible p together, 1 / (1 + B), before any of them is found.
    """
    p = uncorrected(gain, null)
    q = false_discovery_control(p.ravel(), method="bh").reshape(p.shape)
    least = 1.0 / (1.0 + null.shape[1])
    return {
        "procedure": "Benjamini-Hochberg",
        "exploratory": True,
        "p": p.tolist(),
        "q": q.tolist(),
        "n_tests": int(p.size),
        "n_found": int((q <= alpha).sum()),
        "needed": int(np.ceil(least * p.size / alpha - TIE)),
    }
