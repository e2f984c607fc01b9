"""Two groups of subjects compared: does IC add more in one of them?

Two tests, and a difference is claimed where both agree on a channel. Over subjects: the difference of the groups' mean
excess delta_r against the same difference with subjects' labels exchanged, which is exact where the groups have one
distribution under the null hypothesis (Nichols & Holmes 2002, doi 10.1002/hbm.1058). Over stimuli: the difference of
the groups' mean delta_r against that of permutations that shift all subjects alike; what a group's members share on
these stimuli, and IC doesn't explain, is no difference in tracking. Both are two-sided, and corrected by the maximum
over channels x noise levels x variants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.eeg.maxima import exceedances, max_t_p, p_value, studentised
from tasks.eeg.participants import NotCompared, two_values
from tasks.eeg.table import ConditionEntry
from tasks.seeds import numpy_stream

Floats = npt.NDArray[np.float64]

FEWEST_PER_GROUP = 5
"""With fewer in a group its spread can't be told, and exchanged labels test spread as much as means."""

MOST_RELABELINGS = 10_000
"""Where there are more ways to exchange labels, as many are drawn."""

N_DRAWS = 10_000


@dataclass(frozen=True)
class Groups:
    """Two groups: their names, and the places of their members among the subjects; subjects without a value."""

    names: tuple[str, str]
    members: tuple[tuple[int, ...], tuple[int, ...]]
    without: tuple[str, ...]

    @property
    def places(self) -> list[int]:
        """Both groups' members, those of the first group first."""
        return [*self.members[0], *self.members[1]]


def groups(column: str, values: Mapping[str, str], subjects: Sequence[str], alpha: float) -> Groups:
    """Who is compared with whom.

    Parameters
    ----------
    column : str
        What the values are called.
    values : mapping of subject to value
    subjects : sequence of str
        The subjects that are complete.
    alpha : float
        The level to be reached.

    Raises
    ------
    NotCompared
        If there are not two values, too few subjects have one of them, or no p-value could reach alpha.
    """
    names = two_values(column, values)
    first, second = (
        tuple(place for place, subject in enumerate(subjects) if values.get(subject) == name) for name in names
    )
    n = len(first), len(second)
    if min(n) < FEWEST_PER_GROUP:
        counted = f"{n[0]} complete subject(s) with {column} {names[0]} and {n[1]} with {names[1]}"
        raise NotCompared(
            f"{counted}: at least {FEWEST_PER_GROUP} of each are needed, as with fewer a difference in spread passes "
            "for one in means; add subjects"
        )
    least = (2 if n[0] == n[1] else 1) / comb(sum(n), n[0])
    if least > alpha:
        raise NotCompared(
            f"{n[0]} and {n[1]} subjects: no exchange of labels reaches p = {alpha:g} (the least is {least:.2g}); "
            "add subjects"
        )
    return Groups(names, (first, second), tuple(name for name in subjects if name not in values))


def relabelings(n_first: int, n_second: int) -> Floats:
    """Weights of subjects whose sum is the first group's mean less the second's; the true labels first.

    Returns
    -------
    ndarray, shape (R, n_first + n_second)
        All ways to choose the first group where there are at most 10 000, else the true one and 10 000 drawn ones.
    """
    total = n_first + n_second
    if comb(total, n_first) <= MOST_RELABELINGS:
        chosen = np.array(list(combinations(range(total), n_first)))
    else:
        order = numpy_stream("group", "relabelings", n_first, n_second).random((MOST_RELABELINGS, total))
        chosen = np.concatenate([np.arange(n_first)[None], np.argsort(order, axis=1)[:, :n_first]])
    weights = np.full((len(chosen), total), -1.0 / n_second)
    np.put_along_axis(weights, chosen, 1.0 / n_first, axis=1)
    return weights


@dataclass(frozen=True)
class Tests:
    """Corrected p of the difference, each of shape (conditions, C)."""

    p_stimulus: Floats
    p_subject: Floats
    n_relabelings: int

    @property
    def p(self) -> Floats:
        """The larger of both tests' p at each channel: both must find the same one."""
        return np.maximum(self.p_stimulus, self.p_subject)


def run_tests(found: Groups, gain: Floats, null: Floats) -> Tests:
    """Both tests of the first group's mean less the second's.

    Over subjects, excess delta_r counts in units of the permutations' standard deviation, pooled over all subjects:
    no exchange of labels changes it.

    Parameters
    ----------
    found : Groups
    gain : ndarray, shape (S, conditions, C)
    null : ndarray, shape (S, B, conditions, C)
        Permutation k has the same shifts in all subjects, conditions and channels.
    """
    own, own_null = gain[found.places], null[found.places]
    weights = relabelings(*map(len, found.members))
    observed, permuted = studentised(np.tensordot(weights[0], own, axes=1), np.tensordot(weights[0], own_null, axes=1))
    p_stimulus = p_value(exceedances(np.abs(observed), np.abs(permuted)), null.shape[1])
    spread = np.sqrt(own_null.var(axis=1).mean(axis=0))
    excess = (own - own_null.mean(axis=1)).reshape(len(own), -1)
    p_subject = max_t_p(weights, excess, spread.ravel(), two_sided=True).reshape(spread.shape)
    return Tests(p_stimulus, p_subject, len(weights))


def _interval(first: Floats, second: Floats) -> list[float]:
    """95 % interval of the difference of two means, by a bootstrap within each group."""
    random = numpy_stream("group", "between bootstrap", first.size, second.size)
    means = [
        random.multinomial(values.size, np.full(values.size, 1 / values.size), N_DRAWS) @ values / values.size
        for values in (first, second)
    ]
    return [float(bound) for bound in np.quantile(means[0] - means[1], (0.025, 0.975))]


def judged(
    found: Groups,
    gain: Floats,
    null: Floats,
    conditions: Sequence[ConditionEntry],
    channels: Sequence[str],
    alpha: float,
) -> dict[str, Any]:
    """What is found of the two groups, per condition.

    Returns
    -------
    dict
        `groups` (value, n), `without_value` (subjects in neither), `n_relabelings`, `conditions`. Of each condition
        `means` and their `difference` (first less second, with its 95 % interval `ci`) are of the plotted measure, the
        median over channels of the excess; `higher_in` lists, by group, the channels where both tests' p reaches alpha
        and that group's own excess is above 0. `claimed` where there is one.
    """
    tests = run_tests(found, gain, null)
    excess = gain - null.mean(axis=1)
    bars = np.median(excess, axis=2)
    rows = []
    for number, condition in enumerate(conditions):
        first, second = (bars[list(members), number] for members in found.members)
        p = tests.p[number]
        means = [excess[list(members), number].mean(axis=0) for members in found.members]
        higher = {
            name: [
                channel
                for place, channel in enumerate(channels)
                if p[place] <= alpha and own[place] > max(other[place], 0.0)
            ]
            for name, own, other in zip(found.names, means, means[::-1], strict=True)
        }
        rows.append(
            {
                "variant": condition.variant,
                "noise_level": condition.noise_level,
                "means": [float(first.mean()), float(second.mean())],
                "difference": float(first.mean() - second.mean()),
                "ci": _interval(first, second),
                "p_stimulus": float(tests.p_stimulus[number].min()),
                "p_subject": float(tests.p_subject[number].min()),
                "p": float(p.min()),
                "p_by_channel": p.tolist(),
                "higher_in": higher,
                "claimed": any(higher.values()),
            }
        )
    return {
        "groups": [
            {"value": name, "n": len(members)} for name, members in zip(found.names, found.members, strict=True)
        ],
        "without_value": list(found.without),
        "n_relabelings": tests.n_relabelings,
        "conditions": rows,
    }
