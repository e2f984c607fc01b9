"""The best noise level, chosen on other pieces than those it is judged on, and one test of what it earns there.

For every piece the level is chosen by the mean over subjects and the other pieces; its score on that piece counts. The
fits are shared (a model that is tested on one piece was trained on the others), so the other pieces know something of
the piece that is left out, and the score is still too good by chance. Therefore the choice is repeated in every
sign-flip over subjects: the test is corrected for it, and the mean over flips says how much the choice alone earns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.cluster_bootstrap import bootstrap
from tasks.eeg.contrasts import Places
from tasks.eeg.maxima import exceedances, least_subjects, p_value, sign_flips, studentised
from tasks.eeg.table import Table

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def chosen(values: Floats, signs: Floats) -> tuple[Floats, Ints]:
    """Score and levels of the nested choice, for every flip of the subjects' signs.

    Parameters
    ----------
    values : ndarray, shape (S, pieces, levels)
        Excess delta_r; NaN where a subject lacks a piece.
    signs : ndarray, shape (flips, S)

    Returns
    -------
    scores : ndarray, shape (flips,)
        Mean over pieces of the mean over subjects at the piece's level.
    levels : ndarray of int, shape (flips, pieces)
        The level that is best over the other pieces; the first of equal ones.
    """
    there = np.isfinite(values[:, :, 0])
    n_subjects, n_pieces, n_levels = values.shape
    filled = np.where(there[:, :, None], values, 0.0).reshape(n_subjects, -1)
    means = (signs @ filled).reshape(len(signs), n_pieces, n_levels) / there.sum(axis=0)[None, :, None]
    others = (means.sum(axis=1, keepdims=True) - means) / (n_pieces - 1)
    levels = np.argmax(others, axis=2)
    scores = np.take_along_axis(means, levels[..., None], axis=2)[..., 0].mean(axis=1)
    return scores, levels


@dataclass(frozen=True)
class Scores:
    """What an arm's choice is made of: `values` (S, pieces, levels) as for `chosen`, the mean over its seeds."""

    arm: str
    n_seeds: int
    pieces: tuple[str, ...]
    levels: tuple[float, ...]
    values: Floats


def scores(table: Table, where: Places) -> list[Scores]:
    """Median over channels of the excess delta_r of every piece, for every arm with at least two levels in all seeds.

    A subject's null is known as a mean over its pieces, so all its pieces share the mean of that.
    """
    assert table.null is not None
    expected = table.null.mean(axis=1)
    pieces = tuple(sorted({piece for own in table.pieces.values() for piece in own}))
    found = []
    for arm, seeds in where.items():
        levels = tuple(sorted(set.intersection(*(set(at) for at in seeds.values()))))
        if len(levels) < 2 or len(pieces) < 2:
            continue
        values = np.full((len(table.subjects), len(pieces), len(levels)), np.nan)
        for subject, row in enumerate(table.fits):
            rows = [pieces.index(piece) for piece in row[0].pieces]
            for place, level in enumerate(levels):
                numbers = [at[level] for at in seeds.values()]
                over_seeds = np.mean([table.by_piece(subject, n) - expected[subject, n] for n in numbers], axis=0)
                values[subject, rows, place] = np.median(over_seeds, axis=1)
        found.append(Scores(arm, len(seeds), pieces, levels, values))
    return found


def judged(arms: Sequence[Scores], alpha: float) -> list[dict[str, Any]]:
    """The nested choice of every arm and its test over subjects, corrected over arms.

    Returns
    -------
    list of dict
        `wins` counts the pieces at which each level is chosen. `excess_delta_r` is the mean over subjects at the chosen
        levels, `ci` its 95 % interval (bootstrap over subjects, at these levels), `by_choice` the mean over flips: what
        choosing earns where there is nothing to find. `p` is None where there are too few subjects.
    """
    if not arms:
        return []
    signs = sign_flips(len(arms[0].values))
    results = [chosen(arm.values, signs) for arm in arms]
    p: list[float | None] = [None] * len(arms)
    if len(signs[0]) >= least_subjects(alpha):
        observed, flipped = studentised(
            np.array([found[0] for found, _ in results]), np.array([found[1:] for found, _ in results]).T
        )
        p = [float(value) for value in p_value(exceedances(observed, flipped), len(flipped))]
    return [_row(arm, *found, value) for arm, found, value in zip(arms, results, p, strict=True)]


def _row(arm: Scores, flips: Floats, levels: Ints, p: float | None) -> dict[str, Any]:
    own = np.nanmean(arm.values[:, np.arange(len(arm.pieces)), levels[0]], axis=1)
    estimate = bootstrap(own[None], range(len(own)))
    assert estimate is not None
    wins = Counter(arm.levels[place] for place in levels[0])
    return {
        "arm": arm.arm,
        "n_seeds": arm.n_seeds,
        "n_subjects": len(own),
        "n_pieces": len(arm.pieces),
        "wins": {repr(level): wins[level] for level in arm.levels},
        "chosen": {piece: arm.levels[place] for piece, place in zip(arm.pieces, levels[0], strict=True)},
        "excess_delta_r": float(flips[0]),
        "ci": None if estimate.low is None else [estimate.low, estimate.high],
        "by_choice": float(flips.mean()),
        "by_subject": [float(value) for value in own],
        "p": p,
    }
