"""How mTRF-Toolbox and mTRFpy count, for comparisons with them.

They agree with this package on zero padding and on a bias without penalty, and differ in three points: the ends of the
lag window are rounded outwards, features keep their mean and scale, and lambda has another unit.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tasks.eeg.sufficient import Layout

Floats = npt.NDArray[np.float64]


def mtrf_lags(lag_min_s: float, lag_max_s: float, sample_rate_hz: float) -> npt.NDArray[np.int64]:
    """Lags from the floor of the first to the ceiling of the last."""
    first, last = math.floor(lag_min_s * sample_rate_hz), math.ceil(lag_max_s * sample_rate_hz)
    return np.arange(first, last + 1, dtype=np.int64)


def mtrf_penalty(layout: Layout, sample_rate_hz: float) -> Floats:
    """What `make_folds` multiplies lambdas in mTRF's units with: sample rate times number of training trials."""
    trials = [sum(part.n_trials for part in parts) for parts in layout.parts]
    return np.array(trials, dtype=np.float64) * sample_rate_hz


def mtrf_lambda(relative: float, n_samples: float, n_trials: int, sample_rate_hz: float) -> float:
    """The lambda of mTRF that penalises like `relative` does, for a training set of `n_trials` with `n_samples`."""
    return relative * n_samples / (n_trials * sample_rate_hz)
