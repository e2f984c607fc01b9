"""What the group's tests are made of: the results of every subject in every condition, on common channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tasks.config import Config, Level
from tasks.contract import Artefact, TaskError
from tasks.eeg.config import ModelConfig
from tasks.eeg.evidence import Fit, read_fit, read_null

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


class ArmEntry(Config):
    """Which arm a variant belongs to: variants of one arm differ in their seed alone."""

    variant: str
    arm: str
    seed: int


class Participants(Config):
    """The column of the table of participants by which subjects are compared, and the values that it gives them."""

    column: str
    values: dict[str, str]


class GroupConfig(Config):
    """The config of a `group` cell. A variant that `arms` doesn't name is an arm of its own."""

    model: ModelConfig
    alpha: float = Field(gt=0, lt=1)
    conditions: tuple[ConditionEntry, ...] = Field(min_length=1)
    missing: tuple[MissingEntry, ...] = ()
    arms: tuple[ArmEntry, ...] = ()
    participants: Participants | None = Field(None, json_schema_extra={"neutral": None})


@dataclass(frozen=True)
class Table:
    """Complete subjects' results: `gain` (S, conditions, C), `null` (S, B, conditions, C) or None where untested."""

    subjects: tuple[str, ...]
    missing: tuple[dict[str, str], ...]
    channels: tuple[str, ...]
    fits: tuple[tuple[Fit, ...], ...]
    gain: Floats
    null: Floats | None

    @property
    def channels_missing(self) -> list[dict[str, Any]]:
        """Channels that a subject lacks and another has: they are in no test. One entry each, with who lacks it."""
        own = {
            name: [channel for channel in row[0].channels if all(channel in fit.channels for fit in row)]
            for name, row in zip(self.subjects, self.fits, strict=True)
        }
        everywhere = dict.fromkeys(channel for row in self.fits for fit in row for channel in fit.channels)
        lacking = {channel: [name for name in own if channel not in own[name]] for channel in everywhere}
        return [{"channel": channel, "subjects": names} for channel, names in lacking.items() if names]

    @property
    def pieces(self) -> dict[str, list[str]]:
        """Pieces of every subject, the same in all its conditions."""
        return {name: list(row[0].pieces) for name, row in zip(self.subjects, self.fits, strict=True)}

    @property
    def pieces_missing(self) -> list[dict[str, str]]:
        """Pieces that a subject lacks and another has, one entry each."""
        everywhere = sorted({piece for pieces in self.pieces.values() for piece in pieces})
        return [
            {"subject": name, "piece": piece}
            for name, pieces in self.pieces.items()
            for piece in everywhere
            if piece not in pieces
        ]

    def by_piece(self, subject: int, condition: int) -> Floats:
        """delta_r of every piece, shape (pieces, C), in the order of the subject's pieces in its first condition."""
        fit, first = self.fits[subject][condition], self.fits[subject][0]
        rows = [fit.pieces.index(piece) for piece in first.pieces]
        columns = [fit.channels.index(channel) for channel in self.channels]
        gain: Floats = (fit.r_full - fit.r_reduced)[np.ix_(rows, columns)]
        return gain

    def excess_by_piece(self) -> Floats:
        """Excess delta_r of every piece: the mean over the subjects that have it.

        A subject's null is known as a mean over its pieces, so all its pieces share the mean of that.

        Returns
        -------
        ndarray, shape (pieces, conditions, C)
            Pieces in the order of their names.
        """
        assert self.null is not None
        names = sorted({piece for own in self.pieces.values() for piece in own})
        total, count = np.zeros((len(names), *self.gain.shape[1:])), np.zeros(len(names))
        expected = self.null.mean(axis=1)
        for subject, own in enumerate(self.pieces.values()):
            rows = [names.index(piece) for piece in own]
            count[rows] += 1
            for condition in range(self.gain.shape[1]):
                total[rows, condition] += self.by_piece(subject, condition) - expected[subject, condition]
        return np.asarray(total / count[:, None, None])


Row = dict[int, SubjectEntry]
"""A subject's entries by the number of their condition."""


def _named(condition: ConditionEntry) -> str:
    return f"{condition.variant} at noise level {condition.noise_level:g}"


def _absent(config: GroupConfig, row: Row, blocks: int) -> str | None:
    """Why a subject lacks a condition or permutations; None where it lacks nothing."""
    for number, condition in enumerate(config.conditions):
        if number not in row:
            return f"no TRF for {_named(condition)}"
        if len(row[number].permutations) < blocks:
            return f"{len(row[number].permutations)} of {blocks} blocks of permutations for {_named(condition)}"
    return None


def _unequal(config: GroupConfig, fits: Sequence[Fit]) -> str | None:
    """Why a subject's conditions can't be compared; None where all of them are over the same pieces and samples."""
    for condition, fit in zip(config.conditions, fits, strict=True):
        odd = sorted(set(fit.pieces) ^ set(fits[0].pieces))
        if odd:
            return (
                f"only one of {_named(config.conditions[0])} and {_named(condition)} has {', '.join(odd[:3])}; "
                "conditions are compared over the same pieces"
            )
        if fit.masked != fits[0].masked:
            return (
                f"gaps in IC leave out other samples with {_named(config.conditions[0])} than with "
                f"{_named(condition)}; conditions are compared over the same samples, leave one of them out"
            )
    return None


def _complete(
    config: GroupConfig, trf: Sequence[Artefact]
) -> tuple[dict[str, Row], dict[str, tuple[Fit, ...]], list[dict[str, str]]]:
    """Entries and fits of the subjects that have everything, and the other subjects with their reasons."""
    rows: dict[str, Row] = {}
    for number, condition in enumerate(config.conditions):
        for entry in condition.subjects:
            rows.setdefault(entry.subject, {}).setdefault(number, entry)
    blocks = max(len(entry.permutations) for row in rows.values() for entry in row.values())
    missing = {entry.subject: entry.reason for entry in config.missing}
    fits: dict[str, tuple[Fit, ...]] = {}
    for name in sorted(rows.keys() - missing.keys()):
        reason = _absent(config, rows[name], blocks)
        if reason is None:
            read = tuple(read_fit(trf[rows[name][number].trf]) for number in range(len(config.conditions)))
            reason = _unequal(config, read)
            fits[name] = read
        if reason is not None:
            missing[name] = reason
    complete = {name: rows[name] for name in fits if name not in missing}
    return complete, fits, [{"subject": name, "reason": missing[name]} for name in sorted(missing)]


def read_table(config: GroupConfig, trf: Sequence[Artefact], permutations: Sequence[Artefact]) -> Table:
    """Results of the subjects that are complete over all conditions, on the channels that all of them have.

    A subject is complete when every condition has its fit and all its permutations, over the same pieces.

    Raises
    ------
    TaskError
        If no subject is complete, no channel common, or a tested model has no permutations.
    """
    if not any(condition.subjects for condition in config.conditions):
        raise TaskError("no subject has a TRF of this model: see the failures of the stages eeg and trf")
    complete, by_subject, missing = _complete(config, trf)
    if not complete:
        reasons = "; ".join(f"{entry['subject']}: {entry['reason']}" for entry in missing[:5])
        raise TaskError(f"no subject is complete over all conditions ({reasons}); repeat what failed before")
    fits = tuple(by_subject[name] for name in complete)
    channels = [name for name in fits[0][0].channels if all(name in fit.channels for row in fits for fit in row)]
    if not channels:
        raise TaskError("the subjects have no channel in common; their EEG must name electrodes alike")
    picks = [[[fit.channels.index(name) for name in channels] for fit in row] for row in fits]
    gain = np.array(
        [[fit.gain[pick] for fit, pick in zip(*pair, strict=True)] for pair in zip(fits, picks, strict=True)]
    )
    null = None
    if config.model.tested:
        entries = [[row[number] for number in range(len(config.conditions))] for row in complete.values()]
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
