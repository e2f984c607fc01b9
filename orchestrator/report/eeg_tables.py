"""What the group stage says beyond single conditions, as sentences and rows: contrasts, chosen levels, clusters, N."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.report import quality
from orchestrator.report.eeg_results import Chosen, Cluster, Contrast, Intermediate, Interval, Setting
from orchestrator.report.pitch_arms import arms
from orchestrator.report.results import Group, Results
from tasks.eeg.contrasts import LEAST_SEEDS
from tasks.eeg.lacking import listed, of_known
from tasks.eeg.maxima import least_subjects

MOST_CLUSTERS = 6
Table = tuple[tuple[str, ...], Sequence[Mapping[str, Any]]]


def people(results: Results, group: Group) -> str:
    """Over how many subjects (of how many), and over how many channels and pieces where some are missing."""
    who = "listeners" if results.simulated else "subjects"
    if group.n is None:
        return f"{group.n_subjects} {who}"
    n = group.n
    text = f"{of_known(n.subjects, n.subjects_known)} {who}"
    if n.channels < n.channels_known:
        text += f", {of_known(n.channels, n.channels_known)} channels"
    if n.pieces[0] < n.pieces_known:
        text += f", {'-'.join(dict.fromkeys(map(str, n.pieces)))} of {n.pieces_known} pieces each"
    return text


def numbers(group: Group) -> dict[str, Any]:
    """The same as columns."""
    if group.n is None:
        return {}
    return {
        "n_subjects_known": group.n.subjects_known,
        "n_channels": group.n.channels,
        "n_channels_known": group.n.channels_known,
        "n_pieces_least": group.n.pieces[0],
        "n_pieces_most": group.n.pieces[1],
    }


def bounds(name: str, interval: Interval) -> dict[str, float | None]:
    """An interval as two columns."""
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _levels(levels: tuple[float, ...]) -> str:
    return f"{levels[0]:g}" if len(levels) == 1 else f"mean of {', '.join(f'{level:g}' for level in levels)}"


def _named(setting: Setting) -> str:
    return f"{setting.arm}, s = {_levels(setting.levels)}"


def _p(value: float | None) -> str:
    return "not tested" if value is None else f"p = {value:.3g}"


def _mean(mean: float, interval: Interval) -> str:
    return f"{mean:+.4f}" + ("" if interval is None else f" [{interval[0]:+.4f}, {interval[1]:+.4f}]")


def _models(n_seeds: int) -> str:
    return "one model" if n_seeds == 1 else f"{n_seeds} seeds"


def intermediate_sentences(results: Results, group: Group) -> list[str]:
    """One sentence per arm in which intermediate levels were compared with both ends."""
    return [_intermediate(results, row) for row in group.intermediate]


def _intermediate(results: Results, row: Intermediate) -> str:
    low, high = min(row.levels), max(row.levels)
    does, not_shown = "are best", "are not shown to be best"
    if results.simulated:
        does, not_shown = "best recover the planted response", "are not shown to recover the planted response best"
    variants = arms(results, results.variants).get(row.arm, [])
    mark = " (degenerate)" if any(results.degenerate(variant, 0.0) for variant in variants) else ""
    found = (
        f"Intermediate noise levels ({low:g} to {high:g}) of {row.arm} ({_models(row.n_seeds)}) "
        f"{does if row.best else not_shown}: excess Δr {row.above_clean:+.4f} against s = 0{mark} and "
        f"{row.above_noisy:+.4f} against s = 0.9, {_p(row.p)} over subjects and over pieces"
    )
    if row.best:
        return f"{found}, at {listed(row.channels)}."
    return found + ("." if row.claimed_there else "; nothing is claimed at these levels.")


def sentences(results: Results) -> list[str]:
    """What comparisons say, in the order of their weight; nothing where nothing was compared."""
    group = results.tested
    if group is None:
        return []
    found = intermediate_sentences(results, group)
    for family, what in (("levels", "pairs of noise levels"), ("arms", "pairs of arms at one noise level")):
        members = [contrast for contrast in group.contrasts if contrast.family == family]
        if members:
            found.append(_counted(members, what, group.alpha))
    found += [*map(_chosen, group.chosen_level), *map(_cluster, group.clusters[:MOST_CLUSTERS])]
    if len(group.clusters) > MOST_CLUSTERS:
        found.append(f"{len(group.clusters) - MOST_CLUSTERS} more clusters are in clusters.csv.")
    return ["RED: the canaries failed, so none of this is claimed.", *found] if results.red and found else found


def _cluster(row: Cluster) -> str:
    return (
        f"At s = {row.noise_level:g} of {row.variant} the cluster extends over {listed(row.channels)} "
        f"({len(row.channels)} channels, p = {row.p:.3g} over subjects, corrected over all conditions)."
    )


def _least(p: Sequence[float | None]) -> str:
    known = [value for value in p if value is not None]
    return _p(min(known) if known else None)


def _counted(members: list[Contrast], what: str, alpha: float) -> str:
    n, one = sum(contrast.claimed for contrast in members), members[0]
    if all(contrast.p is None for contrast in members):
        short = [
            f"{size} {whose}"
            for size, whose in ((one.n_subjects, "subjects"), (one.n_pieces, "pieces"))
            if size < least_subjects(alpha, two_sided=True)
        ]
        why = (
            f": {listed(short)}, and a two-sided test needs {least_subjects(alpha, two_sided=True)} of each"
            if short
            else ""
        )
        return f"{len(members)} {what} are described, and nothing is claimed of them{why}."
    over = ", ".join(
        f"{_least(p)} over {whose}"
        for p, whose in (
            ([contrast.p_subject for contrast in members], "subjects"),
            ([contrast.p_piece for contrast in members], "pieces"),
        )
    )
    text = f"{n} of {len(members)} {what} differ significantly over subjects and pieces (smallest {over})"
    few = members[0].family == "arms" and any(contrast.n_seeds < LEAST_SEEDS for contrast in members)
    return text + (f"; arms with fewer than {LEAST_SEEDS} seeds are one model each and claim nothing." if few else ".")


def _chosen(row: Chosen) -> str:
    wins = sorted(((n, level) for level, n in row.wins.items() if n), key=lambda item: (-item[0], float(item[1])))
    where = ", ".join(f"s = {float(level):g} at {n}" for n, level in wins)
    return (
        f"Noise level of {row.arm}, chosen for each of {row.n_pieces} pieces on the others: {where}. Excess Δr there "
        f"is {_mean(row.excess_delta_r, row.ci)} (by choosing alone: {row.by_choice:+.4f}), {_p(row.p)} over subjects."
    )


HEADER = ("first", "second", "difference", "seeds", "p subject", "p piece", "higher at", "lower at", "claimed")


def rows(results: Results) -> list[tuple[str, ...]]:
    """Contrasts of arms and of intermediate levels, and those of levels that differ."""
    group = results.tested
    contrasts = () if group is None else group.contrasts
    return [
        (
            _named(contrast.first),
            _named(contrast.second),
            _mean(contrast.mean, contrast.ci),
            str(contrast.n_seeds) + ("" if contrast.seed_sd is None else f" (SD {contrast.seed_sd:.4f})"),
            *("–" if p is None else f"{p:.4f}" for p in (contrast.p_subject, contrast.p_piece)),
            listed(contrast.higher),
            listed(contrast.lower),
            "no" if not contrast.claimed else "no (canaries)" if results.red else "yes",
        )
        for contrast in contrasts
        if contrast.family != "levels" or contrast.claimed
    ]


def csvs(results: Results) -> dict[str, Table]:
    """Columns and rows of the tables for programs, by file name."""
    return {
        "contrasts.csv": _contrast_table(results),
        "chosen_level.csv": _chosen_table(results),
        "clusters.csv": _cluster_table(results),
        "quality.csv": quality.table(results),
    }


def _contrast_table(results: Results) -> Table:
    columns = (
        "model", "family", "first_arm", "first_levels", "second_arm", "second_levels", "mean", "mean_low", "mean_high",
        "n_seeds", "seed_sd", "by_seed", "n_subjects", "n_pieces", "n_contrasts", "p_subject", "p_piece", "p", "higher",
        "lower", "claimed",
    )  # fmt: skip
    table = [
        {**contrast.model_dump(), "model": group.model, **bounds("mean", contrast.ci)}
        | {"first_arm": contrast.first.arm, "second_arm": contrast.second.arm}
        | {"first_levels": ";".join(f"{level!r}" for level in contrast.first.levels)}
        | {"second_levels": ";".join(f"{level!r}" for level in contrast.second.levels)}
        | {"higher": ";".join(contrast.higher), "lower": ";".join(contrast.lower)}
        | {"by_seed": ";".join(f"{seed}:{mean!r}" for seed, mean in contrast.by_seed.items())}
        for group in results.groups
        for contrast in group.contrasts
    ]
    return columns, table


def _chosen_table(results: Results) -> Table:
    columns = (
        "model", "arm", "noise_level", "n_pieces_won", "n_pieces", "excess_delta_r", "excess_delta_r_low",
        "excess_delta_r_high", "by_choice", "p", "n_subjects", "n_seeds",
    )  # fmt: skip
    table = [
        {**row.model_dump(), "model": group.model, "noise_level": level, "n_pieces_won": n}
        | bounds("excess_delta_r", row.ci)
        for group in results.groups
        for row in group.chosen_level
        for level, n in row.wins.items()
    ]
    return columns, table


def _cluster_table(results: Results) -> Table:
    table = [
        {**cluster.model_dump(), "model": group.model, "channels": ";".join(cluster.channels)}
        | {"n_channels": len(cluster.channels)}
        for group in results.groups
        for cluster in group.clusters
    ]
    return ("model", "variant", "noise_level", "p", "mass", "n_channels", "channels"), table
