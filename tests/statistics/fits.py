"""The engine on a data set: delta_r of every condition, and its permutations under each null distribution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from null_data import RATE, DataSet

from tasks.eeg import masks
from tasks.eeg.config import Null
from tasks.eeg.draws import Source
from tasks.eeg.folds import make_folds, prepare
from tasks.eeg.lags import lag_samples, lagged
from tasks.eeg.nested import full_scores, reduced_scores
from tasks.eeg.residual import Explainer, OnsetExplainer
from tasks.eeg.sufficient import Layout, Part, reduced_sums, regressor_sums, response_sums

Array = np.ndarray[Any, Any]
LAMBDAS = (1e-2, 1e-1)
LAGS = lag_samples(0.0, 0.25, RATE)
N_PERMUTATIONS = 39
"""p can be .05 exactly: with another number the test's own level would be below it."""

SHIFT_MIN_S = 2.0
BATCH = 100
"""Permutations are drawn this many at a time, and fitted together with others up to `MOST_SUMS`."""

MOST_SUMS = 4000
"""Versions of IC times lags times channels that are fitted at once: few large calls are faster than many small ones."""


@dataclass(frozen=True)
class Setting:
    """How data are fitted and permuted."""

    lags: Array
    rate: int
    n_permutations: int


SMALL = Setting(LAGS, RATE, N_PERMUTATIONS)


@dataclass(frozen=True)
class Fitted:
    """Held-out r of S subjects, K conditions, N pieces and C channels.

    Attributes
    ----------
    r_reduced : ndarray, shape (S, N, C)
    r_full : ndarray, shape (S, K, N, C)
    null : mapping of null distribution to ndarray, shape (S, B, K, C)
        delta_r of the permutations, mean over pieces.
    """

    r_reduced: Array
    r_full: Array
    null: Mapping[str, Array]

    @property
    def gain(self) -> Array:
        """delta_r, shape (S, K, C)."""
        return np.asarray(self.r_full.mean(axis=2) - self.r_reduced.mean(axis=1)[:, None])


def fit(data: DataSet, nulls: Sequence[Null], seed: int, setting: Setting = SMALL) -> Fitted:
    """All conditions of a data set under each null distribution."""
    lags = setting.lags
    design = {piece: lagged(values, lags) for piece, values in data.reduced.items()}
    names, n_trials = tuple(data.reduced), len(data.eeg[0][0])
    layout = Layout(names, tuple((_part(data, name, n_trials, setting),) for name in names))
    folds = make_folds(reduced_sums(layout, design), LAMBDAS)
    heard = [prepare(folds, response_sums(layout, design, [[trials] for trials in own])) for own in data.eeg]
    r_reduced = np.array([reduced_scores(folds, own).r[0] for own in heard])
    found: dict[str, Array] = {}
    r_full = np.empty((len(heard), len(data.regressors), *r_reduced.shape[1:]))
    shape = len(heard), setting.n_permutations, len(data.regressors), r_reduced.shape[2]
    most = max(1, MOST_SUMS // (lags.size * r_reduced.shape[2]))
    for places, versions in _together(_versions(data, nulls, seed, setting), most):
        sums, crosses = regressor_sums(layout, design, versions, lags, [own.sums for own in heard])
        r = np.array([scores.r for scores in full_scores(folds, sums, heard, crosses)])
        start = 0
        for null, condition, numbers in places:
            own, start = r[:, start : start + len(numbers)], start + len(numbers)
            if null is None:
                r_full[:, condition] = own[:, 0]
            else:
                gain = own.mean(axis=2) - r_reduced.mean(axis=1)[:, None]
                found.setdefault(null, np.empty(shape))[:, numbers, condition] = gain
    return Fitted(r_reduced, r_full, found)


def _part(data: DataSet, name: str, n_trials: int, setting: Setting) -> Part:
    """A piece without its bad segments and what the gaps of any condition reach: all are over the same samples."""
    length = len(data.reduced[name])
    gaps = [span for own in data.regressors for span in own.missing.get(name, ())]
    masked = masks.merged((*data.bad.get(name, ()), *masks.touched(tuple(gaps), setting.lags, length)), length)
    return Part(name, length, n_trials, masked)


Place = tuple[Null | None, int, range]
"""Null distribution (None: IC itself), number of the condition, and numbers of the permutations."""


def _versions(
    data: DataSet, nulls: Sequence[Null], seed: int, setting: Setting
) -> Iterator[tuple[Place, dict[str, Array]]]:
    """IC of every condition, then its permutations in batches, shape (numbers, T) for each piece."""
    n_lags = setting.lags.size
    explainers = {
        "residual_shift": Explainer(data.reduced, n_lags) if "residual_shift" in nulls else None,
        "onset_values": OnsetExplainer(data.reduced, data.counts, n_lags, data.n_beside)
        if "onset_values" in nulls
        else None,
    }
    for condition, regressor in enumerate(data.regressors):
        yield (None, condition, range(1)), {name: values[None] for name, values in regressor.values.items()}
        for null in nulls:
            explainer = explainers.get(null)
            split = None if explainer is None else explainer.split(regressor)
            draw = Source(null, regressor, split, data.counts, seed, SHIFT_MIN_S, n_lags, setting.rate)
            for start in range(0, setting.n_permutations, BATCH):
                numbers = range(start, min(start + BATCH, setting.n_permutations))
                yield (null, condition, numbers), draw(numbers)


def _together(
    versions: Iterator[tuple[Place, dict[str, Array]]], most: int
) -> Iterator[tuple[list[Place], dict[str, Array]]]:
    """Batches joined until there are `most` versions or more."""
    places: list[Place] = []
    parts: list[dict[str, Array]] = []
    for place, own in versions:
        places.append(place)
        parts.append(own)
        if sum(len(numbers) for _, _, numbers in places) >= most:
            yield places, _joined(parts)
            places, parts = [], []
    if places:
        yield places, _joined(parts)


def _joined(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
