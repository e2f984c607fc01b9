"""The noise ceiling: what r a perfect model could reach, known from pieces that a subject heard more than once.

What repetitions of a piece share is all that a model of the stimulus can predict. With rho the reliability of one
presentation (the mean covariance between repetitions over their mean variance), a model that predicts the shared part
without error correlates with single presentations by sqrt(rho), and with the mean of n of them by the square root of
n rho / (1 + (n - 1) rho), which is Spearman's and Brown's formula (Schoppe et al. 2016, doi 10.3389/fncom.2016.00010,
equation of CC_max; Sahani & Linden 2003 for the power that repetitions share). The r of this study's models is that of
all repetitions of a piece laid one after the other: its ceiling is the one of single presentations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from tasks.cluster_bootstrap import bootstrap
from tasks.contract import Artefact
from tasks.eeg.evidence import read_described

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """One subject's: `rho` (C,) of one presentation by channel, over the pieces heard `n_repetitions` times or more.

    `rho` isn't biased, so it may fall below 0 where nothing is shared. `n_repetitions` is the most that a piece has.
    """

    channels: tuple[str, ...]
    rho: Floats
    n_pieces: int
    n_repetitions: int


def shared_and_total(repetitions: Sequence[Floats], used: npt.NDArray[np.bool_] | None = None) -> tuple[Floats, Floats]:
    """Power that the repetitions of a piece share, and the power of one of them.

    Parameters
    ----------
    repetitions : sequence of ndarray, shape (T, C)
        At least two; the shortest sets how many samples count.
    used : ndarray of bool, shape (T,), or None
        The samples that count (None: all). A sample that isn't finite somewhere never does.

    Returns
    -------
    tuple of ndarray, shape (C,) each
        The mean covariance over pairs of repetitions, (var(sum) - sum(var)) / (n (n - 1)), and the mean variance.
    """
    length = min(len(values) for values in repetitions)
    stack = np.stack([np.asarray(values[:length], dtype=np.float64) for values in repetitions])
    good = np.isfinite(stack).all(axis=(0, 2))
    stack = stack[:, good if used is None else good & used[:length]]
    if stack.shape[1] < 2:
        return np.zeros(stack.shape[2]), np.zeros(stack.shape[2])
    n = len(stack)
    variances, of_sum = stack.var(axis=1), stack.sum(axis=0).var(axis=0)
    return (of_sum - variances.sum(axis=0)) / (n * (n - 1)), variances.mean(axis=0)


def spearman_brown(rho: Floats, n: int | npt.NDArray[np.int64]) -> Floats:
    """Reliability of the mean of `n` presentations, from that of one; nothing shared (rho <= 0) stays 0."""
    known: Floats = np.clip(rho, 0.0, 1.0)
    return np.asarray(n * known / (1 + (n - 1) * known), dtype=np.float64)


def _used(trials: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.bool_]:
    """Samples that are masked in no repetition, as the models mask them."""
    used = np.ones(min(int(trial["n_samples"]) for trial in trials), dtype=bool)
    for trial in trials:
        for first, stop in trial.get("masks", ()):
            used[first:stop] = False
    return used


@dataclass(frozen=True)
class Presentations:
    """One subject's EEG: `data` (T, C) of the repetitions of each piece, and which samples of it count (T,)."""

    channels: tuple[str, ...]
    data: Mapping[str, Sequence[Floats]]
    used: Mapping[str, npt.NDArray[np.bool_]]


def read_presentations(eeg: Artefact) -> Presentations | None:
    """A subject's trials by piece; None where the artefact describes none."""
    described = read_described(eeg)
    heard: dict[str, list[Mapping[str, Any]]] = {}
    for trial in described.get("trials", ()):
        heard.setdefault(str(trial["recording"]), []).append(trial)
    if not heard:
        return None
    arrays = load(eeg.read_bytes("eeg.safetensors"))
    data = {piece: [arrays[trial["key"]] for trial in trials] for piece, trials in heard.items()}
    return Presentations(tuple(described["channels"]), data, {piece: _used(own) for piece, own in heard.items()})


def reliability(own: Presentations) -> Reliability | None:
    """A subject's reliability, pooled over its repeated pieces by their lengths; None where no piece is repeated."""
    repeated = {piece: repetitions for piece, repetitions in own.data.items() if len(repetitions) > 1}
    if not repeated:
        return None
    shared, total = np.zeros(len(own.channels)), np.zeros(len(own.channels))
    for piece, repetitions in repeated.items():
        parts, count = shared_and_total(repetitions, own.used[piece]), own.used[piece].sum()
        shared, total = shared + count * parts[0], total + count * parts[1]
    rho = np.where(total > 0, shared / np.where(total > 0, total, 1.0), 0.0)
    return Reliability(own.channels, rho, len(repeated), max(map(len, repeated.values())))


class Across:
    """What subjects share, gathered one subject at a time: no repetitions are needed.

    The mean covariance between two subjects, over the mean variance of single presentations, is what a model of the
    response that all listeners have in common can predict of any one of them. Each has a response of its own besides,
    so its own ceiling is higher.

    Parameters
    ----------
    channels : sequence of str
        Channels that all subjects have.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        self.n_subjects = 0
        self._sums: dict[str, tuple[Floats, Floats, npt.NDArray[np.int64]]] = {}
        self._power: list[Floats] = []

    def add(self, own: Presentations) -> None:
        """Count a subject in; one that lacks a channel is left out."""
        if not all(channel in own.channels for channel in self.channels):
            return
        pick, power = [own.channels.index(channel) for channel in self.channels], []
        for piece, repetitions in own.data.items():
            length = min(map(len, repetitions))
            stack = np.stack([np.asarray(part[:length][:, pick], dtype=np.float64) for part in repetitions])
            good = np.isfinite(stack).all(axis=(0, 2)) & own.used[piece][:length]
            if good.sum() < 2:
                continue
            power.append(stack[:, good].var(axis=1).mean(axis=0))
            mean = stack.mean(axis=0)
            mean = np.where(good[:, None], mean - mean[good].mean(axis=0), 0.0)
            parts = (mean, mean**2, good.astype(np.int64))
            before = self._sums.get(piece)
            n = length if before is None else min(length, len(before[0]))
            kept = parts if before is None else tuple(a[:n] + b[:n] for a, b in zip(before, parts, strict=True))
            self._sums[piece] = (kept[0][:n], kept[1][:n], kept[2][:n])
        if power:
            self._power.append(np.mean(power, axis=0))
            self.n_subjects += 1

    @property
    def rho(self) -> Floats | None:
        """Reliability of one presentation to one subject as a sample of what all share, (C,); None for one subject."""
        shared, pairs = np.zeros(len(self.channels)), 0
        for total, squares, counts in self._sums.values():
            pairs += int((counts * (counts - 1)).sum())
            shared += (total**2 - squares).sum(axis=0)
        if not pairs:
            return None
        power = np.mean(self._power, axis=0)
        return np.where(power > 0, shared / pairs / np.where(power > 0, power, 1.0), 0.0)


def across_subjects(found: Across) -> dict[str, Any] | None:
    """The r of a perfect model of what all subjects share: median over channels of the reliability, its square root."""
    rho = found.rho
    return None if rho is None else {"mean": float(_ceiling(np.median(rho))), "n_subjects": found.n_subjects}


def _ceiling(rho: npt.ArrayLike) -> Floats:
    return np.asarray(np.sqrt(np.clip(rho, 0.0, 1.0)), dtype=np.float64)


def judged(
    found: Mapping[str, Reliability | None], channels: Sequence[str], r_full: Mapping[str, float]
) -> dict[str, Any]:
    """The ceiling over subjects, and how much of it the best condition's full model reaches.

    Parameters
    ----------
    found : mapping of subject to Reliability or None
    channels : sequence of str
        The channels of the group's tests.
    r_full : mapping of subject to float
        Median over channels of the mean over pieces of the full model's r.

    Returns
    -------
    dict
        `why` there is none, or None. `mean` and `ci` (95 %, bootstrap over subjects) of the subjects' ceilings
        `by_subject`: of single presentations, from the median reliability over channels. `of_mean`: the same for the
        mean over `n_repetitions`. `by_channel` (of `channels`) is the mean over subjects. `r_full` and `share`
        (r_full / mean) are over the same subjects. `subjects_without`: those who heard no piece twice.
    """
    known = {name: own for name, own in found.items() if own is not None}
    without = [name for name in found if name not in known]
    if not known:
        return {"why": "no subject heard a piece more than once (no repetitions: not known)", "mean": None}
    common = [channel for channel in channels if all(channel in own.channels for own in known.values())]
    if not common:
        return {"why": "not known, as the channels of the tests are not those of the EEG", "mean": None}
    picked = {name: own.rho[[own.channels.index(channel) for channel in common]] for name, own in known.items()}
    middle = np.array([np.median(rho) for rho in picked.values()])
    counts = [own.n_repetitions for own in known.values()]
    bars = _ceiling(middle)
    estimate = bootstrap(bars[None], range(bars.size))
    assert estimate is not None
    reached = float(np.mean([r_full[name] for name in known]))
    of_means = _ceiling(spearman_brown(middle, np.array(counts)))
    return {
        "why": None,
        "mean": float(bars.mean()),
        "ci": None if estimate.low is None else [estimate.low, estimate.high],
        "of_mean": float(of_means.mean()),
        "by_subject": dict(zip(known, bars.tolist(), strict=True)),
        "channels": common,
        "by_channel": np.mean([_ceiling(rho) for rho in picked.values()], axis=0).tolist(),
        "r_full": reached,
        "share": reached / float(bars.mean()) if bars.mean() > 0 else None,
        "n_subjects": len(known),
        "n_pieces": [min(own.n_pieces for own in known.values()), max(own.n_pieces for own in known.values())],
        "n_repetitions": [min(counts), max(counts)],
        "subjects_without": without,
    }
