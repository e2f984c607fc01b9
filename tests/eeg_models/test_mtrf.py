"""The same r as mTRFpy under its conventions: pooled over one lambda, and with the residual of IC shifted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from mtrf.model import TRF

from tasks.contract import Context
from tasks.eeg.conventions import mtrf_lags, mtrf_penalty
from tasks.eeg.folds import make_folds, prepare
from tasks.eeg.lags import Lagged
from tasks.eeg.regressors import Regressor
from tasks.eeg.residual import Explainer, moved
from tasks.eeg.shift_sums import shift_sums
from tasks.eeg.sufficient import Layout, Part, reduced_sums, response_sums
from tasks.eeg.tiles import TILE, permuted_r

Array = np.ndarray[Any, Any]
RATE, WINDOW_S, LENGTHS = 32, (-0.05, 0.35), (300, 340, 283, 320)
NAMES = tuple(str(i) for i in range(len(LENGTHS)))
LAGS = mtrf_lags(*WINDOW_S, RATE)


def peer(stimuli: list[Array], eeg: list[Array], lambdas: Sequence[float]) -> Array:
    """r (pieces, channels), each piece held out, lambda chosen among several within the others."""
    rows = []
    for outer in range(len(eeg)):
        rest = [i for i in range(len(eeg)) if i != outer]
        trf = TRF()
        penalty = lambdas[0] if len(lambdas) == 1 else list(lambdas)
        trf.train([stimuli[i].copy() for i in rest], [eeg[i] for i in rest], RATE, *WINDOW_S, penalty, verbose=False)
        rows.append(np.ravel(trf.predict([stimuli[outer].copy()], [eeg[outer]], average=False)[1]))
    return np.array(rows)


@pytest.mark.parametrize("lambdas", [(1.0,), (1e-2, 1.0, 100.0)], ids=["pooled", "nested"])
def test_permutations_equal_mtrfpys_refits(lambdas: tuple[float, ...]) -> None:
    random = np.random.default_rng(8)
    sound = {name: random.normal(size=(n, 2)) + 0.3 for name, n in zip(NAMES, LENGTHS, strict=True)}
    ic = {name: random.normal(size=n) + sound[name][:, 0] for name, n in zip(NAMES, LENGTHS, strict=True)}
    eeg = [np.roll(sound[n][:, :1], 3, axis=0) + random.normal(size=(len(ic[n]), 3)) + 1.0 for n in NAMES]
    layout = Layout(NAMES, tuple((Part(name, n, 1),) for name, n in zip(NAMES, LENGTHS, strict=True)))
    design = {name: Lagged(values, LAGS) for name, values in sound.items()}
    present = {name: np.ones(n, dtype=bool) for name, n in zip(NAMES, LENGTHS, strict=True)}
    versions = moved(Explainer(sound, LAGS.size).split(Regressor(ic, present)), 3, range(TILE), LAGS.size, 2.0, RATE)
    response = response_sums(layout, design, [[[part]] for part in eeg])
    folds = make_folds(reduced_sums(layout, design), lambdas, mtrf_penalty(layout, RATE))
    sums, crosses = shift_sums(layout, design, versions, LAGS, [response])
    [r] = permuted_r(folds, sums, crosses, [prepare(folds, response)], Context())
    series = {name: own.series() for name, own in versions.items()}
    for number in (0, TILE - 1):
        stimuli = [np.column_stack([sound[name], series[name][number]]) for name in NAMES]
        np.testing.assert_allclose(r[number], peer(stimuli, eeg, lambdas), atol=1e-10)
