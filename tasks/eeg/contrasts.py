"""Contrasts of noise levels and of arms: which are asked, and what paired sign-flips over subjects and pieces say.

An arm is a recipe, and its variants are its seeds: a contrast is the mean over seeds of weighted sums of conditions.
Three families, each corrected by the maximum over its contrasts x channels: noise levels within an arm (two-sided),
arms at one noise level (two-sided), and "intermediate is best" (one-sided): the mean of the levels .3, .4, .5 and .6
above s = 0 and above s = .9, levels that were declared beforehand.

Two tests, and a difference is claimed where both agree on a channel. Over subjects: would other people show it? Over
pieces: would other stimuli? Where IC of two levels follows one signal that listeners follow, each with its own errors,
the errors of one go with the signal by chance, on these stimuli and for all listeners: sign-flips over subjects alone
called that a difference in a quarter of data sets (docs/results/calibration.md). Permutations of IC can't tell, as they
take away what both levels know of listeners too. A sign-flip of a piece exchanges the two sides in it.

The test over pieces has its limits. It takes a contrast to be symmetric about 0 over pieces under the null hypothesis,
and pieces to be independent; but models tested on two pieces share most of their training data, and all pieces of a
subject share the mean of its null. The calibration measures what that costs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.cluster_bootstrap import bootstrap
from tasks.eeg.maxima import least_subjects, sign_flip_p
from tasks.eeg.table import ArmEntry, ConditionEntry

Floats = npt.NDArray[np.float64]
Family = Literal["levels", "arms", "intermediate"]
FAMILIES: tuple[Family, ...] = ("levels", "arms", "intermediate")
INTERMEDIATE = (0.3, 0.4, 0.5, 0.6)
ENDS = (0.0, 0.9)
"""Clean, and nearly all noise: what intermediate levels are compared with."""

LEAST_SEEDS = 3
"""With fewer models of each arm a contrast is one of models, not of arms."""


@dataclass(frozen=True)
class Setting:
    """An arm at a noise level, or at the mean of several."""

    arm: str
    levels: tuple[float, ...]


@dataclass(frozen=True)
class Contrast:
    """First setting minus second: `weights` of the conditions by seed, shape (conditions,) each."""

    family: Family
    first: Setting
    second: Setting
    weights: Mapping[int, Floats]


Places = dict[str, dict[int, dict[float, int]]]
"""Number of a condition by arm, seed and noise level."""


def places(conditions: Sequence[ConditionEntry], arms: Sequence[ArmEntry]) -> Places:
    """Where each condition stands; a variant that no entry names is an arm of its own with seed 0."""
    known = {entry.variant: entry for entry in arms}
    found: Places = {}
    for number, condition in enumerate(conditions):
        entry = known.get(condition.variant) or ArmEntry(variant=condition.variant, arm=condition.variant, seed=0)
        found.setdefault(entry.arm, {}).setdefault(entry.seed, {})[condition.noise_level] = number
    return found


def asked(where: Places, n_conditions: int) -> list[Contrast]:
    """All contrasts that the conditions allow: the higher level minus the lower, the later arm minus the earlier."""
    found = []
    for arm, seeds in where.items():
        levels = sorted({level for at in seeds.values() for level in at})
        for low, high in combinations(levels, 2):
            found.append(("levels", Setting(arm, (high,)), Setting(arm, (low,))))
        if all(level in levels for level in (*INTERMEDIATE, *ENDS)):
            found += [("intermediate", Setting(arm, INTERMEDIATE), Setting(arm, (end,))) for end in ENDS]
    for before, after in combinations(where, 2):
        levels = sorted({level for arm in (before, after) for at in where[arm].values() for level in at})
        found += [("arms", Setting(after, (level,)), Setting(before, (level,))) for level in levels]
    contrasts = [_weighted(where, n_conditions, *what) for what in found]  # type: ignore[arg-type]
    return [contrast for contrast in contrasts if contrast.weights]


def _weighted(where: Places, n_conditions: int, family: Family, first: Setting, second: Setting) -> Contrast:
    """The contrast in every seed that has all its conditions."""
    weights: dict[int, Floats] = {}
    for seed in sorted(where[first.arm].keys() & where[second.arm].keys()):
        row = np.zeros(n_conditions)
        if all(level in where[side.arm][seed] for side in (first, second) for level in side.levels):
            for side, sign in ((first, 1.0), (second, -1.0)):
                for level in side.levels:
                    row[where[side.arm][seed][level]] += sign / len(side.levels)
            weights[seed] = row
    return Contrast(family, first, second, weights)


def null_spread(null: Floats, weights: Floats) -> Floats:
    """Standard deviation of weighted sums of conditions over permutations, pooled over subjects.

    Parameters
    ----------
    null : ndarray, shape (S, B, conditions, C)
    weights : ndarray, shape (K, conditions)

    Returns
    -------
    ndarray, shape (K, C)
    """
    n_subjects, count, n_conditions, n_channels = null.shape
    spread = np.empty((len(weights), n_channels))
    for channel in range(n_channels):
        values = null[..., channel] - null[..., channel].mean(axis=1, keepdims=True)
        flat = values.reshape(-1, n_conditions)
        covariance = flat.T @ flat / (n_subjects * count)
        spread[:, channel] = np.sqrt(np.maximum(((weights @ covariance) * weights).sum(axis=1), 0.0))
    return spread


def judged(
    contrasts: Sequence[Contrast],
    excess: Floats,
    by_piece: Floats,
    null: Floats,
    channels: Sequence[str],
    alpha: float,
) -> list[dict[str, Any]]:
    """What is found of each contrast, in the order given.

    Parameters
    ----------
    contrasts : sequence of Contrast
    excess : ndarray, shape (S, conditions, C)
        delta_r of each subject less the mean of its own null.
    by_piece : ndarray, shape (pieces, conditions, C)
        The same of each piece, mean over subjects (`Table.excess_by_piece`).
    null : ndarray, shape (S, B, conditions, C)
        Both tests count in units of its deviation, which no flip changes.
    channels : sequence of str, length C
    alpha : float

    Returns
    -------
    list of dict
        `mean`, `ci` (95 %, bootstrap over subjects) and `by_seed` are of the plotted measure, the median over channels
        of the excess. `p_subject` and `p_piece` are the smallest p over channels of each test, corrected over the
        family; `p_by_channel` is the larger of both tests' p, and `p` the smallest of that. They are None where there
        are too few subjects or pieces. `higher` and `lower` are the channels where `p_by_channel` reaches alpha and
        every seed has the mean's sign, over subjects as over pieces. `claimed` needs one of them, and in the family
        ``arms`` at least 3 seeds.
    """
    rows: dict[int, dict[str, Any]] = {}
    for family in FAMILIES:
        own = [number for number, contrast in enumerate(contrasts) if contrast.family == family]
        if not own:
            continue
        members, two_sided = [contrasts[number] for number in own], family != "intermediate"
        weights = np.array([np.mean(list(contrast.weights.values()), axis=0) for contrast in members])
        spread = null_spread(null, weights)
        p_subject, p_piece = (_flipped(weights, values, spread, alpha, two_sided) for values in (excess, by_piece))
        for place, (number, contrast) in enumerate(zip(own, members, strict=True)):
            p = tuple(None if found is None else found[place] for found in (p_subject, p_piece))
            rows[number] = _row(contrast, excess, by_piece, p, channels, alpha)
            rows[number]["n_contrasts"] = len(own)
    return [rows[number] for number in range(len(contrasts))]


def _flipped(weights: Floats, values: Floats, spread: Floats, alpha: float, two_sided: bool) -> Floats | None:
    """p (contrasts, C) of sign-flips over the first axis of values (subjects or pieces, conditions, C).

    None where there are too few.
    """
    if len(values) < least_subjects(alpha, two_sided):
        return None
    contrasted = np.einsum("kn,snc->skc", weights, values).reshape(len(values), -1)
    return sign_flip_p(contrasted, spread.ravel(), two_sided).reshape(spread.shape)


def _row(
    contrast: Contrast,
    excess: Floats,
    by_piece: Floats,
    tested: tuple[Floats | None, ...],
    channels: Sequence[str],
    alpha: float,
) -> dict[str, Any]:
    """A contrast's row; `tested` is p (C) over subjects and over pieces."""
    bars = np.median(excess, axis=2)
    by_seed = {str(seed): float((bars @ row).mean()) for seed, row in contrast.weights.items()}
    subjects = bars @ np.mean(list(contrast.weights.values()), axis=0)
    estimate = bootstrap(subjects[None], range(len(subjects)))
    assert estimate is not None
    means = [values.mean(axis=0) for values in (excess, by_piece)]
    signs = np.sign([np.tensordot(row, mean, axes=1) for row in contrast.weights.values() for mean in means])
    agree = np.abs(signs.sum(axis=0)) == len(signs)
    known = [values for values in tested if values is not None]
    p = np.max(known, axis=0) if len(known) == len(tested) else None
    found = np.zeros(len(channels), dtype=bool) if p is None else (p <= alpha) & agree
    higher = [name for name, here, sign in zip(channels, found, signs[0], strict=True) if here and sign > 0]
    lower = [name for name, here, sign in zip(channels, found, signs[0], strict=True) if here and sign < 0]
    n_seeds = len(contrast.weights)
    p_subject, p_piece = (None if values is None else float(values.min()) for values in tested)
    return {
        "family": contrast.family,
        "first": {"arm": contrast.first.arm, "levels": list(contrast.first.levels)},
        "second": {"arm": contrast.second.arm, "levels": list(contrast.second.levels)},
        "mean": float(subjects.mean()),
        "ci": None if estimate.low is None else [estimate.low, estimate.high],
        "by_seed": by_seed,
        "seed_sd": float(np.std(list(by_seed.values()), ddof=1)) if n_seeds > 1 else None,
        "n_seeds": n_seeds,
        "n_subjects": len(subjects),
        "n_pieces": len(by_piece),
        "p_subject": p_subject,
        "p_piece": p_piece,
        "p": None if p is None else float(p.min()),
        "p_by_channel": None if p is None else p.tolist(),
        "higher": higher,
        "lower": lower,
        "claimed": bool(higher or lower) and (contrast.family != "arms" or n_seeds >= LEAST_SEEDS),
    }


def only_where_ic_adds(
    rows: Sequence[dict[str, Any]], contrasts: Sequence[Contrast], significant: Sequence[Collection[str]]
) -> None:
    """Take back what is claimed of contrasts at channels where IC isn't claimed to add anything on their upper side.

    Which of two levels is more is no finding where neither is anything; what all listeners share on these stimuli, and
    nothing explains, makes such differences too. A condition is claimed against permutations of its own IC.

    Parameters
    ----------
    rows : sequence of dict
        As `judged` gives them; `claimed` is changed.
    contrasts : sequence of Contrast
        The same, in the same order.
    significant : sequence of collection of str
        By condition, the channels at which it is claimed.
    """
    for row, contrast in zip(rows, contrasts, strict=True):
        signs = np.sign(np.mean(list(contrast.weights.values()), axis=0))
        above, below = (
            {name for number in np.flatnonzero(signs == sign).tolist() for name in significant[number]}
            for sign in (1, -1)
        )
        row["claimed"] = row["claimed"] and bool(above & set(row["higher"]) or below & set(row["lower"]))


def intermediate(
    rows: Sequence[Mapping[str, Any]], channels: Sequence[str], claimed: Mapping[str, Collection[str]]
) -> list[dict[str, Any]]:
    """Per arm, whether intermediate levels are best: above both ends at one and the same channel.

    Parameters
    ----------
    rows : sequence of mapping
        As `judged` gives them.
    channels : sequence of str
    claimed : mapping of str to collection of str
        By arm, the channels at which IC is claimed to add anything at an intermediate level; it is best at no other.
    """
    found: dict[str, dict[float, Mapping[str, Any]]] = {}
    for row in rows:
        if row["family"] == "intermediate":
            found.setdefault(row["first"]["arm"], {})[row["second"]["levels"][0]] = row
    judgements = []
    for arm, ends in found.items():
        if len(ends) < len(ENDS):
            continue
        both = [ends[end] for end in ENDS]
        p = None if any(row["p"] is None for row in both) else np.max([row["p_by_channel"] for row in both], axis=0)
        there = claimed.get(arm, ())
        best = [name for name in channels if name in there and all(name in row["higher"] for row in both)]
        judgements.append(
            {
                "arm": arm,
                "levels": list(INTERMEDIATE),
                "above_clean": both[0]["mean"],
                "above_noisy": both[1]["mean"],
                "p": None if p is None else float(p.min()),
                "n_seeds": min(row["n_seeds"] for row in both),
                "channels": best,
                "claimed_there": bool(claimed.get(arm)),
                "best": bool(best),
            }
        )
    return judgements
