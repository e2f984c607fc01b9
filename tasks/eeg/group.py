"""Stage `group`: what may be said of a model over all subjects, noise levels and variants.

Two tests, and an effect is claimed where both agree on a channel. Over stimuli: the mean over subjects of delta_r
against the same mean of permutations that shift all subjects alike. Over subjects: sign-flips of the excess delta_r,
each subject's delta_r less the mean of its own null (delta_r is negative on average where IC adds nothing). Both are
corrected by the maximum over channels x noise levels x variants (Nichols & Holmes 2002, doi 10.1002/hbm.1058).

What goes beyond single conditions is in `comparisons`: contrasts over subjects and pieces (`contrasts`), the choice
of a level and clusters, which are about subjects alone (`choice`, `clusters`), groups of subjects (`between`), finds
that claim nothing (`fdr`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.cluster_bootstrap import bootstrap
from tasks.contract import Artefact, Cell, Context, Result, TaskError
from tasks.eeg import ceiling, comparisons, kernels, lacking
from tasks.eeg.evidence import null_of, read_described
from tasks.eeg.long_table import long_csv
from tasks.eeg.maxima import clopper_pearson, exceedances, least_subjects, p_value, sign_flip_p, studentised
from tasks.eeg.nulls import no_claim
from tasks.eeg.table import GroupConfig, Table, read_table
from tasks.eeg.verdict import verdict

Floats = npt.NDArray[np.float64]


def _mean_se(values: Floats) -> tuple[float, float | None]:
    """Mean over subjects and its standard error (None for one subject)."""
    spread = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else None
    return float(values.mean()), spread


def _interval(values: Floats) -> list[float] | None:
    """95 % interval of the mean over subjects, by a bootstrap over them (None for one subject)."""
    estimate = bootstrap(values[None], range(values.size))
    return None if estimate is None or estimate.low is None or estimate.high is None else [estimate.low, estimate.high]


def _described(table: Table, condition: int) -> dict[str, Any]:
    """What needs no test."""
    gain = table.gain[:, condition]
    bars = np.median(gain, axis=1)
    mean, se = _mean_se(bars)
    fits = [row[condition] for row in table.fits]
    return {
        "delta_r_mean": mean,
        "delta_r_se": se,
        "delta_r_ci": _interval(bars),
        "delta_r_max_mean": float(gain.max(axis=1).mean()),
        "r_reduced_mean": float(np.mean([fit.r_reduced.mean() for fit in fits])),
        "r_full_mean": float(np.mean([fit.r_full.mean() for fit in fits])),
        "by_subject": {name: float(bar) for name, bar in zip(table.subjects, bars, strict=True)},
        "by_channel": gain.mean(axis=0).tolist(),
    }


@dataclass(frozen=True)
class Tests:
    """Corrected results: `excess` (S, conditions, C); `exceeding`, `p_stimulus` and `p_subject` (conditions, C)."""

    excess: Floats
    exceeding: npt.NDArray[np.int64]
    n_permutations: int
    p_stimulus: Floats
    p_subject: Floats | None

    @property
    def p(self) -> Floats | None:
        """The larger of both tests' p at each channel, shape (conditions, C): both must find the same channel."""
        return None if self.p_subject is None else np.maximum(self.p_stimulus, self.p_subject)


def run_tests(gain: Floats, null: Floats, alpha: float) -> Tests:
    """Both tests, per condition and channel, corrected over all of them.

    Over subjects, excess delta_r counts in units of the permutations' standard deviation, pooled over subjects.

    Parameters
    ----------
    gain : ndarray, shape (S, conditions, C)
    null : ndarray, shape (S, B, conditions, C)
        Permutation k has the same shifts in all subjects, conditions and channels.
    alpha : float
        The level to be reached; with fewer subjects than can reach it there is no test over subjects.
    """
    excess = gain - null.mean(axis=1)
    observed, permuted = studentised(gain.mean(axis=0), null.mean(axis=0))
    exceeding = exceedances(observed, permuted)
    p_subject = None
    if len(gain) >= least_subjects(alpha):
        spread = np.sqrt(null.var(axis=1).mean(axis=0))
        p_subject = sign_flip_p(excess.reshape(len(gain), -1), spread.ravel()).reshape(spread.shape)
    return Tests(excess, exceeding, null.shape[1], p_value(exceeding, null.shape[1]), p_subject)


def _tested(tests: Tests, condition: int, table: Table, alpha: float) -> dict[str, Any]:
    """The tests of one condition. Its p is that of the channel on which both tests agree best."""
    excess, channels = tests.excess[:, condition], table.channels
    bars = np.median(excess, axis=1)
    fewest = int(tests.exceeding[condition].min())
    both = None if tests.p is None else tests.p[condition]
    by_subject = None if tests.p_subject is None else tests.p_subject[condition]
    significant = [] if both is None else [name for name, p in zip(channels, both, strict=True) if p <= alpha]
    mean, se = _mean_se(bars)
    return {
        "excess_delta_r_mean": mean,
        "excess_delta_r_se": se,
        "excess_delta_r_ci": _interval(bars),
        "excess_by_subject": {name: float(bar) for name, bar in zip(table.subjects, bars, strict=True)},
        "excess_by_channel": excess.mean(axis=0).tolist(),
        "p_stimulus": float(tests.p_stimulus[condition].min()),
        "p_stimulus_ci": list(clopper_pearson(fewest, tests.n_permutations)),
        "p_stimulus_by_channel": tests.p_stimulus[condition].tolist(),
        "p_subject": None if by_subject is None else float(by_subject.min()),
        "p_subject_by_channel": None if by_subject is None else by_subject.tolist(),
        "p": None if both is None else float(both.min()),
        "p_by_channel": None if both is None else both.tolist(),
        "claimed": bool(significant),
        "significant_channels": significant,
    }


def summary(
    config: GroupConfig, table: Table, eeg: Mapping[str, Mapping[str, Any]], null: str = "residual_shift"
) -> dict[str, Any]:
    """The content of ``group.json``; with a `null` that isn't calibrated nothing is claimed."""
    conditions: list[dict[str, Any]] = [
        {"variant": entry.variant, "noise_level": entry.noise_level, **_described(table, index)}
        for index, entry in enumerate(config.conditions)
    ]
    tests = None if table.null is None else run_tests(table.gain, table.null, config.alpha)
    refused = None
    if tests is not None:
        for index, condition in enumerate(conditions):
            condition.update(_tested(tests, index, table, config.alpha))
        if tests.p_subject is None:
            refused = (
                f"{len(table.subjects)} complete subject(s): a sign-flip test of fewer than "
                f"{least_subjects(config.alpha)} can't reach p = {config.alpha:g}, so nothing is claimed; add subjects"
            )
        if no_claim(null) is not None:
            refused = no_claim(null)
            for condition in conditions:
                condition.update(claimed=False, significant_channels=[])
    result: dict[str, Any] = {
        "model": config.model.model_dump(mode="json"),
        "tested": tests is not None,
        "alpha": config.alpha,
        "n_subjects": len(table.subjects),
        "subjects": list(table.subjects),
        "missing": list(table.missing),
        "pieces": table.pieces,
        "pieces_missing": table.pieces_missing,
        "null": null,
        "calibrated": no_claim(null) is None,
        "n_permutations": 0 if tests is None else tests.n_permutations,
        "simulated": any(bool(eeg.get(name, {}).get("simulated")) for name in table.subjects),
        "channels": list(table.channels),
        "channels_missing": table.channels_missing,
        "positions": _positions(table, eeg),
        "refused": refused,
        "conditions": conditions,
    }
    result["n"] = lacking.n_of(result)
    result["notes"] = lacking.sentences(result, {name: eeg[name].get("removed", ()) for name in eeg})
    result["kernels"] = kernels.shown(table, config.conditions, table.gain if tests is None else tests.excess)
    if tests is not None and result["calibrated"]:
        comparisons.compare(config, table, tests.excess, result)
        comparisons.extend(config, tests.excess, result)
        comparisons.between_groups(config, table, result)
        comparisons.explore(config, table, result)
    elif tests is not None:
        result["notes"].append(
            f"no contrasts, choice of a level, groups of subjects or clusters: the null {null} is not calibrated"
        )
    result["verdict"] = verdict(result)
    return result


def _positions(table: Table, eeg: Mapping[str, Mapping[str, Any]]) -> list[list[float]] | None:
    """Positions of the common channels, from the first subject that has positions."""
    found = next((eeg[name] for name in table.subjects if eeg.get(name, {}).get("positions") is not None), None)
    if found is None:
        return None
    spots = dict(zip(found["channels"], found["positions"], strict=True))
    return [spots[name] for name in table.channels]


def _by_subject(described: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What is said of each subject's EEG; where it is there in several bands, all channels removed in any of them."""
    found: dict[str, Mapping[str, Any]] = {}
    for one in described:
        before = found.get(one["subject"], {}).get("removed", ())
        found[one["subject"]] = {**one, "removed": [*dict.fromkeys((*before, *one.get("removed", ())))]}
    return found


def _ceiling(config: GroupConfig, table: Table, result: Mapping[str, Any], eeg: Sequence[Artefact]) -> dict[str, Any]:
    """The noise ceiling, and what the full model of the condition with the largest excess reaches of it.

    It is that of the condition's own EEG: in other bands subjects have another.
    """
    excess = [condition["excess_delta_r_mean"] for condition in result["conditions"]]
    best = int(np.argmax(excess))
    reached = {}
    for name, row in zip(table.subjects, table.fits, strict=True):
        pick = [row[best].channels.index(channel) for channel in table.channels]
        reached[name] = float(np.median(row[best].r_full.mean(axis=0)[pick]))
    found: dict[str, ceiling.Reliability | None] = {}
    across = ceiling.Across(table.channels)
    sources = {entry.subject: eeg[entry.eeg] for entry in config.conditions[best].subjects}
    for name in table.subjects:
        own = ceiling.read_presentations(sources[name])
        found[name] = None if own is None else ceiling.reliability(own)
        if own is not None:
            across.add(own)
    condition = result["conditions"][best]
    of = {"variant": condition["variant"], "noise_level": condition["noise_level"]}
    judged = ceiling.judged(found, table.channels, reached)
    return {**judged, **of, "across": ceiling.across_subjects(across)}


def _metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    """Columns for tables: the best condition is that of the largest (excess) delta_r."""
    conditions = result["conditions"]
    measure = "excess_delta_r_mean" if result["tested"] else "delta_r_mean"
    best = max(conditions, key=lambda condition: condition[measure])
    known = [condition["p"] for condition in conditions if condition.get("p") is not None]
    return {
        "n_claimed": sum(bool(condition.get("claimed")) for condition in conditions),
        "p_min": min(known) if known and result["calibrated"] else None,
        "delta_r_best": best["delta_r_mean"],
        "best_variant": best["variant"],
        "best_noise_level": best["noise_level"],
        "n_subjects": result["n_subjects"],
        "n_channels": len(result["channels"]),
    }


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage `group`: one model over all subjects and conditions per cell.

    Writes ``group.json``, and ``long.csv`` (see `long_csv`). Only subjects that are complete over all conditions count,
    over the same pieces in each; the others are named in ``missing``. Pieces and channels that a subject lacks and
    another has are listed in ``pieces_missing`` and ``channels_missing``; tests are over the common channels, and ``n``
    says how many subjects, channels and pieces they are over. Per condition ``p_stimulus_by_channel`` and
    ``p_subject_by_channel`` are both tests, each corrected over channels x conditions, and ``p_by_channel`` is the
    larger of the two. A channel is significant where that reaches alpha; a condition with such a channel is claimed,
    and its ``p`` is that of its best channel. ``contrasts``, ``intermediate`` and ``chosen_level`` compare conditions,
    ``clusters`` describe where on the scalp, ``between`` compares two groups of subjects where the config asks for it,
    ``exploratory`` (and ``q_exploratory_by_channel`` of each condition) are finds that claim nothing. ``kernels`` are
    IC's at the best channels, ``ceiling`` is the r that a perfect model could reach. ``notes`` say what is lacking.
    ``null`` names the null distribution, and with one that isn't ``calibrated`` nothing is claimed or compared.

    Parameters
    ----------
    cells : sequence of Cell
        Config as `GroupConfig`; inputs ``trf``, ``permutations`` (none for untested models), ``eeg`` (one per subject).
    context : Context
        Hears about progress.

    Yields
    ------
    Result
        Metrics n_claimed, p_min (smallest p of a condition), delta_r_best, best_variant, best_noise_level,
        n_subjects, n_channels; or why the cell can't be computed.
    """
    for done, cell in enumerate(cells):
        config = GroupConfig.of_signed(cell.config)
        try:
            permutations = cell.collection("permutations") if "permutations" in cell.inputs else ()
            table = read_table(config, cell.collection("trf"), permutations)
            described = _by_subject([read_described(eeg) for eeg in cell.collection("eeg")])
            null = null_of(permutations) if config.model.tested else "residual_shift"
            result = summary(config, table, described, null)
            if result["tested"]:
                result["ceiling"] = _ceiling(config, table, result, cell.collection("eeg"))
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        (cell.out_dir / "group.json").write_text(json.dumps(result, sort_keys=True), encoding="utf-8")
        (cell.out_dir / "long.csv").write_text(long_csv(config, table), encoding="utf-8", newline="\n")
        context.progress(done + 1, len(cells), {})
        yield Result(cell.signature, _metrics(result))
