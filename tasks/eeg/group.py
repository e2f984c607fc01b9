"""Stage `group`: what may be said of a model over all subjects, noise levels and variants.

Two tests, and an effect is claimed where both agree. Over stimuli: the mean over subjects of delta_r against the same
mean of permutations that shift all subjects alike. Over subjects: sign-flips of the excess delta_r, each subject's
delta_r less the mean of its own null (delta_r is negative on average where IC adds nothing). Both are corrected by the
maximum over channels x noise levels x variants (Nichols & Holmes 2002, doi 10.1002/hbm.1058).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tasks.config import Config, Level
from tasks.contract import Artefact, Cell, Context, Result, TaskError
from tasks.eeg.config import ModelConfig
from tasks.eeg.evidence import Fit, read_described, read_fit, read_null
from tasks.eeg.maxima import LEAST_SUBJECTS, clopper_pearson, exceedances, p_value, sign_flip_p, studentised
from tasks.eeg.verdict import verdict

Floats = npt.NDArray[np.float64]


class SubjectEntry(Config):
    """Where a subject's fit, permutation blocks and EEG lie in the inputs."""

    subject: str
    trf: int
    permutations: tuple[int, ...] = ()
    eeg: int = 0


class ConditionEntry(Config):
    """One variant at one noise level."""

    variant: str
    noise_level: Level
    subjects: tuple[SubjectEntry, ...]


class MissingEntry(Config):
    """A subject that a stage before this one lost."""

    subject: str
    reason: str


class GroupConfig(Config):
    """The config of a `group` cell."""

    model: ModelConfig
    alpha: float = Field(gt=0, lt=1)
    conditions: tuple[ConditionEntry, ...] = Field(min_length=1)
    missing: tuple[MissingEntry, ...] = ()


@dataclass(frozen=True)
class Table:
    """Complete subjects' results: `gain` (S, conditions, C), `null` (S, B, conditions, C) or None where untested."""

    subjects: tuple[str, ...]
    missing: tuple[dict[str, str], ...]
    channels: tuple[str, ...]
    fits: tuple[tuple[Fit, ...], ...]
    gain: Floats
    null: Floats | None


def _complete(config: GroupConfig) -> tuple[list[str], list[dict[str, str]]]:
    """Subjects that have all conditions and all permutations, and the others with their reasons."""
    blocks = max(len(entry.permutations) for condition in config.conditions for entry in condition.subjects)
    missing = {entry.subject: entry.reason for entry in config.missing}
    names = sorted({entry.subject for condition in config.conditions for entry in condition.subjects})
    for name in names:
        for condition in config.conditions:
            where = f"{condition.variant} at noise level {condition.noise_level:g}"
            own = [entry for entry in condition.subjects if entry.subject == name]
            if not own:
                missing.setdefault(name, f"no TRF for {where}")
            elif len(own[0].permutations) < blocks:
                missing.setdefault(name, f"{len(own[0].permutations)} of {blocks} blocks of permutations for {where}")
    complete = [name for name in names if name not in missing]
    return complete, [{"subject": name, "reason": missing[name]} for name in sorted(missing)]


def read_table(config: GroupConfig, trf: Sequence[Artefact], permutations: Sequence[Artefact]) -> Table:
    """Results of the subjects that are complete over all conditions, on the channels that all of them have.

    Raises
    ------
    TaskError
        If no subject is complete, no channel common, or a tested model has no permutations.
    """
    if not any(condition.subjects for condition in config.conditions):
        raise TaskError("no subject has a TRF of this model: see the failures of the stages eeg and trf")
    complete, missing = _complete(config)
    if not complete:
        reasons = "; ".join(f"{entry['subject']}: {entry['reason']}" for entry in missing[:5])
        raise TaskError(f"no subject is complete over all conditions ({reasons}); repeat what failed before")
    entries = [[{e.subject: e for e in c.subjects}[name] for c in config.conditions] for name in complete]
    fits = tuple(tuple(read_fit(trf[entry.trf]) for entry in row) for row in entries)
    channels = [name for name in fits[0][0].channels if all(name in fit.channels for row in fits for fit in row)]
    if not channels:
        raise TaskError("the subjects have no channel in common; their EEG must name electrodes alike")
    picks = [[[fit.channels.index(name) for name in channels] for fit in row] for row in fits]
    gain = np.array(
        [[fit.gain[pick] for fit, pick in zip(*pair, strict=True)] for pair in zip(fits, picks, strict=True)]
    )
    null = None
    if config.model.tested:
        if not entries[0][0].permutations:
            raise TaskError("the model is to be tested and has no permutations")
        null = np.array([
            np.stack([
                read_null([permutations[index] for index in entry.permutations])[:, pick]
                for entry, pick in zip(*pair, strict=True)
            ], axis=1)
            for pair in zip(entries, picks, strict=True)
        ])  # fmt: skip
    return Table(tuple(complete), tuple(missing), tuple(channels), fits, gain, null)


def _mean_se(values: Floats) -> tuple[float, float | None]:
    """Mean over subjects and its standard error (None for one subject)."""
    spread = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else None
    return float(values.mean()), spread


def _described(table: Table, condition: int) -> dict[str, Any]:
    """What needs no test."""
    gain = table.gain[:, condition]
    bars = np.median(gain, axis=1)
    mean, se = _mean_se(bars)
    fits = [row[condition] for row in table.fits]
    return {
        "delta_r_mean": mean,
        "delta_r_se": se,
        "delta_r_max_mean": float(gain.max(axis=1).mean()),
        "r_reduced_mean": float(np.mean([fit.r_reduced.mean() for fit in fits])),
        "r_full_mean": float(np.mean([fit.r_full.mean() for fit in fits])),
        "by_subject": {name: float(bar) for name, bar in zip(table.subjects, bars, strict=True)},
        "by_channel": gain.mean(axis=0).tolist(),
    }


@dataclass(frozen=True)
class Tests:
    """Corrected results: `excess` (S, conditions, C), `exceeding` and `p_subject` (conditions, C)."""

    excess: Floats
    exceeding: npt.NDArray[np.int64]
    n_permutations: int
    p_subject: Floats | None


def run_tests(gain: Floats, null: Floats) -> Tests:
    """Both tests, per condition and channel, corrected over all of them.

    Parameters
    ----------
    gain : ndarray, shape (S, conditions, C)
    null : ndarray, shape (S, B, conditions, C)
        Permutation k has the same shifts in all subjects, conditions and channels.
    """
    excess = gain - null.mean(axis=1)
    observed, permuted = studentised(gain.mean(axis=0), null.mean(axis=0))
    p_subject = None
    if len(gain) >= LEAST_SUBJECTS:
        p_subject = sign_flip_p(excess.reshape(len(gain), -1)).reshape(gain.shape[1:])
    return Tests(excess, exceedances(observed, permuted), null.shape[1], p_subject)


def _tested(tests: Tests, condition: int, channels: Sequence[str], alpha: float) -> dict[str, Any]:
    """The tests of one condition. Its p is that of its best channel; channels count only where it is claimed."""
    excess, exceeding = tests.excess[:, condition], tests.exceeding[condition]
    fewest = int(exceeding.min())
    p_stimulus = float(p_value(fewest, tests.n_permutations))
    p_subject = None if tests.p_subject is None else float(tests.p_subject[condition].min())
    claimed = p_subject is not None and max(p_stimulus, p_subject) <= alpha
    by_channel = p_value(exceeding, tests.n_permutations)
    mean, se = _mean_se(np.median(excess, axis=1))
    return {
        "excess_delta_r_mean": mean,
        "excess_delta_r_se": se,
        "excess_by_channel": excess.mean(axis=0).tolist(),
        "p_stimulus": p_stimulus,
        "p_stimulus_ci": list(clopper_pearson(fewest, tests.n_permutations)),
        "p_subject": p_subject,
        "p": None if p_subject is None else max(p_stimulus, p_subject),
        "claimed": claimed,
        "p_by_channel": by_channel.tolist(),
        "significant_channels": [n for n, p in zip(channels, by_channel, strict=True) if claimed and p <= alpha],
    }


def summary(config: GroupConfig, table: Table, eeg: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of ``group.json``."""
    conditions: list[dict[str, Any]] = [
        {"variant": entry.variant, "noise_level": entry.noise_level, **_described(table, index)}
        for index, entry in enumerate(config.conditions)
    ]
    tests = None if table.null is None else run_tests(table.gain, table.null)
    refused = None
    if tests is not None:
        for index, condition in enumerate(conditions):
            condition.update(_tested(tests, index, table.channels, config.alpha))
        if tests.p_subject is None:
            refused = (
                f"{len(table.subjects)} complete subject(s): a sign-flip test of fewer than {LEAST_SUBJECTS} can't "
                "reach p = .05, so nothing is claimed; add subjects"
            )
    first = eeg.get(table.subjects[0], {})
    spots = first.get("positions")
    named = list(first.get("channels", table.channels))
    result: dict[str, Any] = {
        "model": config.model.model_dump(mode="json"),
        "tested": tests is not None,
        "alpha": config.alpha,
        "n_subjects": len(table.subjects),
        "subjects": list(table.subjects),
        "missing": list(table.missing),
        "n_permutations": 0 if tests is None else tests.n_permutations,
        "simulated": any(bool(eeg.get(name, {}).get("simulated")) for name in table.subjects),
        "channels": list(table.channels),
        "positions": None if spots is None else [spots[named.index(name)] for name in table.channels],
        "refused": refused,
        "conditions": conditions,
    }
    result["verdict"] = verdict(result)
    return result


def _metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    """Columns for tables: the best condition is that of the largest (excess) delta_r."""
    conditions = result["conditions"]
    measure = "excess_delta_r_mean" if result["tested"] else "delta_r_mean"
    best = max(conditions, key=lambda condition: condition[measure])
    known = [condition["p"] for condition in conditions if condition.get("p") is not None]
    return {
        "n_claimed": sum(bool(condition.get("claimed")) for condition in conditions),
        "p_min": min(known) if known else None,
        "delta_r_best": best["delta_r_mean"],
        "best_variant": best["variant"],
        "best_noise_level": best["noise_level"],
        "n_subjects": result["n_subjects"],
    }


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage `group`: one model over all subjects and conditions per cell.

    Writes ``group.json``. Only subjects that are complete over all conditions count; the others are named in
    ``missing``. `p_by_channel` is the stimulus-level test's, corrected over channels x conditions; a channel is listed
    as significant where it reaches alpha in a condition that both tests claim.

    Parameters
    ----------
    cells : sequence of Cell
        Config as `GroupConfig`; inputs ``trf``, ``permutations`` (none for untested models), ``eeg`` (one per subject).
    context : Context
        Hears about progress.

    Yields
    ------
    Result
        Metrics n_claimed, p_min (of the larger of both tests' p), delta_r_best, best_variant, best_noise_level,
        n_subjects; or why the cell can't be computed.
    """
    for done, cell in enumerate(cells):
        config = GroupConfig.model_validate(cell.config)
        try:
            permutations = cell.collection("permutations") if "permutations" in cell.inputs else ()
            table = read_table(config, cell.collection("trf"), permutations)
            described = [read_described(eeg) for eeg in cell.collection("eeg")]
            result = summary(config, table, {entry["subject"]: entry for entry in described})
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        (cell.out_dir / "group.json").write_text(json.dumps(result, sort_keys=True), encoding="utf-8")
        context.progress(done + 1, len(cells), {})
        yield Result(cell.signature, _metrics(result))
