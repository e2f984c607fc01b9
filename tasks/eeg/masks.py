"""Which samples count: bad segments of the EEG and gaps of IC, as half-open ranges of samples.

A masked sample is a row that is left out of every sum. Lags are taken before: a row that is kept sees the features
before it whether or not their own rows are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

Spans = tuple[tuple[int, int], ...]
"""Ranges (first, last + 1) of samples, rising and apart from each other."""

ROUNDING = 1e-6
"""A time so few samples from a sample is that sample's."""


def merged(spans: Iterable[Sequence[int]], n_samples: int) -> Spans:
    """Ranges in any order as `Spans` of a series of `n_samples`; those that meet or overlap become one."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted((max(0, int(start)), min(n_samples, int(stop))) for start, stop in spans):
        if start >= stop:
            continue
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return tuple(found)


def of_seconds(spans_s: Iterable[tuple[float, float]], sample_rate_hz: float, n_samples: int) -> Spans:
    """Samples that parts (from_s, to_s) of a recording reach into; sample k lasts from ``k / rate`` to the next."""
    rate = sample_rate_hz
    return merged(
        ((math.floor(from_s * rate + ROUNDING), math.ceil(to_s * rate - ROUNDING)) for from_s, to_s in spans_s),
        n_samples,
    )


def of_flags(flags: Flags) -> Spans:
    """The stretches in which `flags` (T,) hold."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def touched(spans: Spans, lags: Ints, n_samples: int) -> Spans:
    """Rows of a lagged design, of `n_samples`, with a lagged copy of a sample in `spans`."""
    return merged(((start + int(lags[0]), stop + int(lags[-1])) for start, stop in spans), n_samples)


def indices(spans: Spans) -> Ints:
    """Every sample of `spans`, rising."""
    return np.concatenate([np.empty(0, dtype=np.int64), *(np.arange(start, stop) for start, stop in spans)])


def count(spans: Spans) -> int:
    """How many samples `spans` hold."""
    return sum(stop - start for start, stop in spans)


def silenced(values: Floats, spans: Spans) -> Floats:
    """A copy of `values` (T, ...) that is 0 in `spans`; where there are none, `values` itself."""
    if not spans:
        return values
    result = values.copy()
    for start, stop in spans:
        result[start:stop] = 0.0
    return result


def kept(values: Floats, spans: Spans) -> Floats:
    """`values` (T, ...) without the samples in `spans`; where there are none, `values` itself."""
    return np.delete(values, indices(spans), axis=0) if spans else values
