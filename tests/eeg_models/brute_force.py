"""The slow way: whole design matrices, one fit per fold, real predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def correlation(predicted: Array, heard: Array) -> Array:
    predicted, heard = predicted - predicted.mean(axis=0), heard - heard.mean(axis=0)
    return (predicted * heard).sum(axis=0) / np.sqrt((predicted**2).sum(axis=0) * (heard**2).sum(axis=0))


def weights(designs: Sequence[Array], eeg: Sequence[Array], penalty: float) -> tuple[Array, Array]:
    """Ridge with an unpenalised column of ones, lambda relative to the number of samples."""
    x = np.concatenate(designs)
    x = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    ridge = penalty * len(x) * np.eye(x.shape[1])
    ridge[0, 0] = 0
    found = np.linalg.solve(x.T @ x + ridge, x.T @ np.concatenate(eeg))
    return found[0], found[1:]


def score(designs: Sequence[Array], eeg: Sequence[Array], test: int, rest: Sequence[int], penalty: float) -> Array:
    bias, found = weights([designs[i] for i in rest], [eeg[i] for i in rest], penalty)
    return correlation(designs[test] @ found + bias, eeg[test])


def nested(designs: Sequence[Array], eeg: Sequence[Array], lambdas: Sequence[float]) -> tuple[Array, list[float]]:
    """r (pieces, channels) and the chosen lambdas; designs and eeg have one entry per piece."""
    everything = range(len(designs))
    r, chosen = [], []
    for outer in everything:
        rest = [i for i in everything if i != outer]
        means = [
            np.mean([score(designs, eeg, i, [j for j in rest if j != i], penalty).mean() for i in rest])
            for penalty in lambdas
        ]
        chosen.append(lambdas[int(np.argmax(means))])
        r.append(score(designs, eeg, outer, rest, chosen[-1]))
    return np.array(r), chosen
