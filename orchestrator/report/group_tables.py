"""Two groups of subjects, the noise ceiling, exploratory finds and kernels, as sentences and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.report.eeg_results import Between, Ceiling
from orchestrator.report.eeg_tables import Table, bounds
from orchestrator.report.results import Group, Results
from tasks.eeg.lacking import listed

EXPLORATORY = "exploratory, no claim"


def _between(results: Results) -> Between | None:
    found = results.tested.between if results.tested else None
    return found if found is not None and found.conditions else None


def between_title(results: Results) -> str:
    """Who is compared with whom; empty where nobody is."""
    found = _between(results)
    if found is None:
        return ""
    first, second = (f"{group.value} (n = {group.n})" for group in found.groups)
    return f"{found.column}: {first} minus {second}"


def between_header(results: Results) -> tuple[str, ...]:
    """The table's columns, two of which are called as the groups are."""
    found = _between(results)
    names = ("", "") if found is None else tuple(group.value for group in found.groups)
    return ("variant", "s", *names, "difference", "p stimulus", "p subject", "higher in", "claimed")


def between_rows(results: Results) -> list[tuple[str, ...]]:
    """One row per variant and noise level: both groups' mean excess delta r, their difference, and where it is."""
    found = _between(results)
    rows: list[tuple[str, ...]] = []
    for row in found.conditions if found else ():
        ends = "" if row.ci is None else f" [{row.ci[0]:+.4f}, {row.ci[1]:+.4f}]"
        higher = "; ".join(f"{name}: {listed(channels)}" for name, channels in row.higher_in.items() if channels)
        mark = "*" if results.degenerate(row.variant, row.noise_level) else ""
        claimed = "no" if not row.claimed else "no (canaries)" if results.red else "yes"
        means = (f"{mean:+.4f}" for mean in row.means)
        tests = (f"{row.p_stimulus:.4f}", f"{row.p_subject:.4f}")
        where = (row.variant, f"{row.noise_level:g}{mark}")
        rows.append((*where, *means, f"{row.difference:+.4f}{ends}", *tests, higher or "–", claimed))
    return rows


def between_sentence(results: Results) -> str:
    """What is found of two groups of subjects, in one sentence; empty where none were compared."""
    found = _between(results)
    if found is None:
        return ""
    n = sum(row.claimed for row in found.conditions)
    least = min(row.p for row in found.conditions)
    start = "RED: the canaries failed, so this is not claimed. " if results.red and n else ""
    return (
        f"{start}{between_title(results)}: excess Δr differs in {n} of {len(found.conditions)} conditions (smallest "
        f"p = {least:.3g}, over stimuli and over exchanges of labels, corrected over conditions and channels)."
    )


def _range(ends: tuple[int, int]) -> str:
    return "-".join(dict.fromkeys(map(str, ends)))


def ceiling_sentence(results: Results) -> str:
    """The noise ceiling of the tested model's listeners, or that it isn't known; empty for results without either."""
    found = results.tested.ceiling if results.tested else None
    return "" if found is None else _ceiling(found, results)


def _ceiling(found: Ceiling, results: Results) -> str:
    who = "listeners" if results.simulated else "subjects"
    shared = ""
    if found.across is not None:
        shared = f" A perfect model of what {found.across.n_subjects} {who} share would reach {found.across.mean:.3f}."
    if found.mean is None:
        return f"Noise ceiling: {found.why}.{shared}"
    ends = "" if found.ci is None else f" [{found.ci[0]:.3f}, {found.ci[1]:.3f}]"
    text = f"Noise ceiling: a perfect model would reach r = {found.mean:.3f}{ends} with single presentations"
    if found.of_mean is not None:
        text += f", {found.of_mean:.3f} with their mean"
    text += f" ({found.n_subjects} {who}, {_range(found.n_pieces)} pieces heard {_range(found.n_repetitions)} times)"
    if found.r_full is not None:
        share = "" if found.share is None else f", {100 * found.share:.0f} % of it"
        text += f". The full model reaches {found.r_full:.3f}{share} (s = {found.noise_level:g} of {found.variant})"
    if found.subjects_without:
        text += f". Not known for {listed(found.subjects_without)}, who heard no piece twice"
    return f"{text}.{shared}"


def ceiling_short(group: Group | None) -> str:
    """The same for a figure's note."""
    found = group.ceiling if group else None
    if found is None:
        return ""
    if found.mean is None:
        return "Noise ceiling of r: not known (no repetitions). "
    text = f"Noise ceiling of r {found.mean:.3f}"
    if found.ci is not None:
        text += f" [{found.ci[0]:.3f}, {found.ci[1]:.3f}]"
    return text + (f"; full model {found.r_full:.3f}. " if found.r_full is not None else ". ")


def exploratory_sentence(results: Results) -> str:
    """How many electrodes, levels and variants are finds under a false discovery rate; no claim in any case."""
    group = results.tested
    if group is None or group.exploratory is None:
        return ""
    found = group.exploratory
    text = (
        f"Exploratory, no claim: {found.n_found} of {found.n_tests} channels × levels × variants have a false "
        f"discovery rate q ≤ {group.alpha:g} ({found.procedure}, each tested over stimuli by itself)"
    )
    if not found.n_found and found.needed > 1:
        text += (
            f"; with {group.n_permutations} permutations at least {found.needed} of them must reach the least possible "
            "p before any is found"
        )
    return text + "."


def sentences(results: Results) -> list[str]:
    """All of it, in the order of its weight."""
    every = (between_sentence(results), ceiling_sentence(results), exploratory_sentence(results))
    return [sentence for sentence in every if sentence]


def csvs(results: Results) -> dict[str, Table]:
    """Columns and rows of the tables for programs, by file name."""
    return {
        "between.csv": _between_table(results),
        "noise_ceiling.csv": _ceiling_table(results),
        "exploratory.csv": _exploratory_table(results),
        "kernels.csv": _kernel_table(results),
    }


def _between_table(results: Results) -> Table:
    columns = (
        "model", "column", "first", "n_first", "second", "n_second", "variant", "noise_level", "mean_first",
        "mean_second", "difference", "difference_low", "difference_high", "p_stimulus", "p_subject", "p",
        "n_relabelings", "higher_in_first", "higher_in_second", "claimed",
    )  # fmt: skip
    table: list[Mapping[str, Any]] = []
    for group in results.groups:
        found = group.between
        if found is None or len(found.groups) != 2:
            continue
        first, second = found.groups
        head = {"model": group.model, "column": found.column, "n_relabelings": found.n_relabelings}
        head |= {"first": first.value, "n_first": first.n, "second": second.value, "n_second": second.n}
        table += [
            {**row.model_dump(), **head, **bounds("difference", row.ci)}
            | {"mean_first": row.means[0], "mean_second": row.means[1]}
            | {"higher_in_first": ";".join(row.higher_in.get(first.value, ()))}
            | {"higher_in_second": ";".join(row.higher_in.get(second.value, ()))}
            for row in found.conditions
        ]
    return columns, table


def _ceiling_table(results: Results) -> Table:
    table = [
        {"model": group.model, "subject": subject, "noise_ceiling_r": value}
        for group in results.groups
        if group.ceiling is not None
        for subject, value in group.ceiling.by_subject.items()
    ]
    return ("model", "subject", "noise_ceiling_r"), table


def _exploratory_table(results: Results) -> Table:
    columns = ("model", "variant", "noise_level", "channel", "p_uncorrected", "q", "label")
    table = [
        {"model": group.model, "variant": condition.variant, "noise_level": condition.noise_level}
        | {"channel": channel, "p_uncorrected": p, "q": q, "label": EXPLORATORY}
        for group in results.groups
        for condition in group.conditions
        for channel, p, q in zip(
            group.channels, condition.p_exploratory_by_channel, condition.q_exploratory_by_channel, strict=False
        )
    ]
    return columns, table


def _kernel_table(results: Results) -> Table:
    table: list[Mapping[str, Any]] = []
    for group in results.groups:
        found = group.kernels
        for row in found.conditions if found else ():
            head = {"model": group.model, "variant": row.variant, "noise_level": row.noise_level}
            for channel, curve in zip(found.channels if found else (), row.curves, strict=True):
                n = len(curve.mean)
                ends = zip(curve.low or (None,) * n, curve.high or (None,) * n, strict=True)
                table += [
                    {**head, "channel": channel, "lag_s": lag, "mean": mean, "mean_low": low, "mean_high": high}
                    for lag, mean, (low, high) in zip(found.lags_s if found else (), curve.mean, ends, strict=True)
                ]
    return ("model", "variant", "noise_level", "channel", "lag_s", "mean", "mean_low", "mean_high"), table
