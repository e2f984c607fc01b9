"""What the group says beyond single conditions: contrasts, choice of a level, groups of subjects, clusters, finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.eeg import between, choice, contrasts, fdr
from tasks.eeg.clusters import NoNeighbours, clusters, neighbours
from tasks.eeg.lacking import listed
from tasks.eeg.maxima import FEWEST_SUBJECTS, least_subjects
from tasks.eeg.participants import NotCompared
from tasks.eeg.table import GroupConfig, Table

Floats = npt.NDArray[np.float64]


def compare(config: GroupConfig, table: Table, excess: Floats, result: dict[str, Any]) -> None:
    """Add the contrasts, whether intermediate levels are best, and the nested choice of a level."""
    assert table.null is not None
    where = contrasts.places(config.conditions, config.arms)
    asked = contrasts.asked(where, len(config.conditions))
    by_piece = table.excess_by_piece()
    rows = contrasts.judged(asked, excess, by_piece, table.null, table.channels, config.alpha)
    numbers = {
        arm: [at[level] for at in seeds.values() for level in contrasts.INTERMEDIATE if level in at]
        for arm, seeds in where.items()
    }
    significant = [condition["significant_channels"] for condition in result["conditions"]]
    contrasts.only_where_ic_adds(rows, asked, significant)
    claimed = {arm: {name for number in own for name in significant[number]} for arm, own in numbers.items()}
    result["intermediate"] = contrasts.intermediate(rows, table.channels, claimed)
    result["contrasts"] = rows
    result["chosen_level"] = choice.judged(choice.scores(table, where), config.alpha)
    if rows:
        result["notes"] += _too_few(config.alpha, len(table.subjects), len(by_piece))
    if not result["intermediate"]:
        levels = ", ".join(f"{level:g}" for level in sorted((*contrasts.INTERMEDIATE, *contrasts.ENDS)))
        result["notes"].append(f'"intermediate is best" is not asked: no arm has all of the noise levels {levels}')
    if result["chosen_level"]:
        result["notes"].append(
            "the choice of a level is tested over subjects alone, and carries no claim: permutations are kept as means "
            "over pieces, so it can't be repeated in them"
        )


def _too_few(alpha: float, n_subjects: int, n_pieces: int) -> list[str]:
    """Why contrasts are not tested over subjects or over pieces."""
    two_sided, one_sided = least_subjects(alpha, two_sided=True), least_subjects(alpha)
    return [
        f"nothing is claimed of contrasts: {n} {what if n == 1 else f'{what}s'}, and a two-sided test over {what}s "
        f"needs {two_sided} (a one-sided one, of intermediate levels: {one_sided})"
        for n, what in ((n_subjects, "subject"), (n_pieces, "piece"))
        if n < two_sided
    ]


def extend(config: GroupConfig, excess: Floats, result: dict[str, Any]) -> None:
    """Add the clusters whose mass reaches alpha, or why there are none."""
    result["clusters"] = []
    try:
        if len(excess) < FEWEST_SUBJECTS:
            raise NoNeighbours(f"{len(excess)} subject(s), and at least {FEWEST_SUBJECTS} are needed")
        found = clusters(excess, neighbours(result["channels"], result["positions"]))
    except NoNeighbours as error:
        result["notes"].append(f"no clusters were looked for: {error}")
        return
    for row in found:
        condition = config.conditions[row.pop("condition")]
        names = [result["channels"][channel] for channel in row["channels"]]
        if row["p"] <= config.alpha:
            place = {"variant": condition.variant, "noise_level": condition.noise_level}
            result["clusters"].append({**row, **place, "channels": names})


def between_groups(config: GroupConfig, table: Table, result: dict[str, Any]) -> None:
    """Add the comparison of two groups of subjects where one is asked for, or why there is none."""
    asked = config.participants
    if asked is None or table.null is None:
        return
    result["between"] = {"column": asked.column, "refused": None, "conditions": []}
    without = [name for name in table.subjects if name not in asked.values]
    if without:
        result["notes"].append(f"no value of {asked.column} for {listed(without)}: in neither group that is compared")
    try:
        found = between.groups(asked.column, asked.values, table.subjects, config.alpha)
    except NotCompared as error:
        result["between"]["refused"] = str(error)
        result["notes"].append(f"groups are not compared: {error}")
        return
    result["between"] |= between.judged(found, table.gain, table.null, config.conditions, table.channels, config.alpha)


def explore(config: GroupConfig, table: Table, result: dict[str, Any]) -> None:
    """Add the grid of all conditions and channels under a false discovery rate, which claims nothing."""
    assert table.null is not None
    found: Mapping[str, Any] = fdr.explored(table.gain, table.null, config.alpha)
    for name in ("p", "q"):
        for condition, row in zip(result["conditions"], found[name], strict=True):
            condition[f"{name}_exploratory_by_channel"] = row
    result["exploratory"] = {key: value for key, value in found.items() if key not in ("p", "q")}
