"""Sums of lagged copies that follow from one another equal those of the copies themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.eeg.lags import Lagged, lagged
from tasks.eeg.toeplitz import BLOCK, Windows, pairs, sums_over_time, windows_of

Array = np.ndarray[Any, Any]
N_SAMPLES = BLOCK + 23


def masked(design: Array, spans: tuple[tuple[int, int], ...]) -> Array:
    kept = design.copy()
    for start, stop in spans:
        kept[start:stop] = 0.0
    return kept


@pytest.mark.parametrize("window", [(-3, 5), (0, 4), (2, 9), (-7, -2), (0, 1), (-40, 40)])
@pytest.mark.parametrize("n_samples", [N_SAMPLES, N_SAMPLES - 6, 9, 1])
@pytest.mark.parametrize("spans", [(), ((0, 1), (5, 8))], ids=["whole", "masked"])
def test_pairs_of_lagged_copies(window: tuple[int, int], n_samples: int, spans: tuple[tuple[int, int], ...]) -> None:
    """Also where the copies reach beyond the samples that count, into the series or out of it."""
    random = np.random.default_rng(1)
    spans = tuple(span for span in spans if span[1] <= n_samples)
    values, other = random.normal(size=(N_SAMPLES, 3)) + 5.0, random.normal(size=(N_SAMPLES, 1))
    lags, other_lags = np.arange(*window), np.arange(window[0] - 1, window[1] + 2)
    left, right = windows_of(Lagged(values, lags), n_samples), Windows(other, other_lags, n_samples)
    x, y = (masked(lagged(*pair)[:n_samples], spans) for pair in ((values, lags), (other, other_lags)))
    bound = {"rtol": 0, "atol": 1e-12 * N_SAMPLES}
    np.testing.assert_allclose(pairs(left, left, spans).reshape(x.shape[1], -1), x.T @ x, **bound)
    np.testing.assert_allclose(pairs(left, right, spans).reshape(x.shape[1], -1), x.T @ y, **bound)
    np.testing.assert_allclose(pairs(right, left, spans).reshape(y.shape[1], -1), y.T @ x, **bound)
    np.testing.assert_allclose(sums_over_time(left, spans).ravel(), x.sum(axis=0), **bound)
    eeg = masked(random.normal(size=(n_samples, 2)), spans)
    np.testing.assert_allclose(left.times(eeg).reshape(x.shape[1], -1), x.T @ eeg, **bound)
    np.testing.assert_allclose(right.times(eeg).reshape(y.shape[1], -1), y.T @ eeg, **bound)
    plain = windows_of(x, n_samples)
    np.testing.assert_allclose(pairs(plain, right, spans).reshape(x.shape[1], -1), x.T @ y, **bound)
