"""How the EEG answers to IC in time: kernels of the full model, mean over subjects, at the channels where IC adds most.

Channels are chosen once for all conditions, so that conditions can be looked at side by side. They are chosen by what
the figure is of, so a kernel there is a picture and no test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.eeg.table import ConditionEntry, Table
from tasks.seeds import numpy_stream

Floats = npt.NDArray[np.float64]

MOST_CHANNELS = 3
N_DRAWS = 4000


def band(curves: Floats, n_draws: int = N_DRAWS) -> tuple[Floats, Floats] | None:
    """95 % interval of the mean over subjects at each lag by itself, by a bootstrap over subjects.

    Parameters
    ----------
    curves : ndarray, shape (S, L)
    n_draws : int

    Returns
    -------
    tuple of ndarray, shape (L,) each, or None
        None for one subject.
    """
    n = len(curves)
    if n < 2:
        return None
    counts = numpy_stream("group", "kernel bootstrap", n).multinomial(n, np.full(n, 1 / n), n_draws)
    low, high = np.quantile(counts @ curves / n, (0.025, 0.975), axis=0)
    return low, high


def shown(table: Table, conditions: Sequence[ConditionEntry], scores: Floats) -> dict[str, Any]:
    """Kernels of IC, in EEG units (the subject's standard deviation) per standard deviation of the regressor.

    Parameters
    ----------
    table : Table
    conditions : sequence of ConditionEntry
    scores : ndarray, shape (S, conditions, C)
        What channels are chosen by: their mean over subjects and conditions.

    Returns
    -------
    dict
        `channels`, the best first, `lags_s`, and `conditions`: per condition ``curves``, a list over the channels of
        `mean`, `low` and `high` by lag (the last two None for one subject).
    """
    order = np.argsort(-scores.mean(axis=(0, 1)), kind="stable")[:MOST_CHANNELS]
    names = [table.channels[place] for place in order]
    rows = []
    for number, condition in enumerate(conditions):
        curves = []
        for name in names:
            own = np.array([row[number].kernel[:, row[number].channels.index(name)] for row in table.fits])
            ends = band(own)
            low, high = (None, None) if ends is None else (ends[0].tolist(), ends[1].tolist())
            curves.append({"mean": own.mean(axis=0).tolist(), "low": low, "high": high})
        rows.append({"variant": condition.variant, "noise_level": condition.noise_level, "curves": curves})
    return {"channels": names, "lags_s": table.fits[0][0].lags_s.tolist(), "conditions": rows}
