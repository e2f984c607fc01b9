"""The external channels of a CND file: which of them are the mastoids, and which follow the eyes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.eeg.matlab import cells_of
from tasks.eeg.trials import Floats

NO_MASTOIDS = ("eog", "ecg", "ekg", "emg", "gsr", "eda", "resp", "puls", "plet", "temp", "trig", "stim", "audio")
"""Words in names and descriptions of channels that are something else than a reference."""


@dataclass(frozen=True)
class ExternalGroup:
    """One entry of ``eeg.extChan``: what it is described as, its channels' names, its data by trial.

    Channels without names are called by their numbers.
    """

    description: str
    names: tuple[str, ...]
    trials: tuple[Any, ...]

    def says(self, word: str, channel: int) -> bool:
        """Whether the channel's name, or the description of all of them, has `word` in it (in lower case)."""
        return word in self.names[channel].lower() or word in self.description.lower()


def external_groups(eeg: Mapping[str, Any], labels_of: Any) -> list[ExternalGroup]:
    """The groups of external channels that hold data.

    Parameters
    ----------
    eeg : mapping
        The struct of a subject.
    labels_of : callable
        Gives the entries of a group's ``chanlocs``.
    """
    listed = eeg.get("extChan")
    groups = [listed] if isinstance(listed, Mapping) else cells_of([] if listed is None else listed)
    found = []
    for place, group in enumerate(groups):
        trials = cells_of(group.get("data", [])) if isinstance(group, Mapping) else []
        widths = [min(np.atleast_2d(trial).shape) for trial in trials if np.ndim(trial) in (1, 2) and np.size(trial)]
        if not widths:
            continue
        description = group.get("description")
        kind = description if isinstance(description, str) and description else f"external {place + 1}"
        labels = [str(entry.get("labels")) for entry in labels_of(group) if entry.get("labels")]
        names = labels if len(labels) == widths[0] else [f"{k + 1}" for k in range(widths[0])]
        found.append(ExternalGroup(kind, tuple(names), tuple(trials)))
    return found


def mastoid_channels(groups: Sequence[ExternalGroup]) -> tuple[ExternalGroup, list[int]] | None:
    """The group and the two channels of it that are the mastoids.

    They are those of a group that is described so, or those that are named so; where there are none, the first two of
    the first group, what is called by something else (eyes, heart, muscles ...) left aside.
    """
    by_group = [(group, list(range(len(group.names)))) for group in groups if "mast" in group.description.lower()]
    by_name = [(group, [k for k, name in enumerate(group.names) if _is_mastoid(name)]) for group in groups]
    first = [(group, [k for k in range(len(group.names)) if not _is_other(group, k)]) for group in groups]
    within = [(group, [k for k in channels if _is_mastoid(group.names[k])] or channels) for group, channels in by_group]
    found = [(group, channels[:2]) for group, channels in (*within, *by_name, *first) if channels]
    return found[0] if found else None


def _is_other(group: ExternalGroup, channel: int) -> bool:
    return any(group.says(word, channel) for word in NO_MASTOIDS)


def _is_mastoid(name: str) -> bool:
    return "mast" in name.lower() or name.lower() in ("m1", "m2")


def eye_channels(groups: Sequence[ExternalGroup]) -> list[tuple[ExternalGroup, int]]:
    """The channels whose name says EOG, and all of a group whose description does and says nothing of mastoids."""
    found = []
    for group in groups:
        all_of_it = "eog" in group.description.lower() and "mast" not in group.description.lower()
        found += [(group, k) for k, name in enumerate(group.names) if all_of_it or "eog" in name.lower()]
    return found


def eye_names(groups: Sequence[ExternalGroup]) -> tuple[str, ...]:
    """Names of `eye_channels`: a channel that has only a number is called after its group."""
    listed = eye_channels(groups)
    return tuple(
        name if not (name := group.names[k]).isdigit() else f"{group.description} {name}" for group, k in listed
    )


def rows_of(group: ExternalGroup, trial: int, channels: Sequence[int], n_samples: int) -> Floats | None:
    """Channels of one trial (from 0), shape (len(channels), n_samples); None where they don't go with its EEG."""
    try:
        matrix = np.atleast_2d(np.asarray(group.trials[trial], dtype=np.float64))
    except (TypeError, ValueError, IndexError):
        return None
    if matrix.ndim != 2 or n_samples not in matrix.shape:
        return None
    matrix = matrix if matrix.shape[1] == n_samples else matrix.T
    if max(channels, default=0) >= len(matrix):
        return None
    return np.ascontiguousarray(matrix[list(channels)])
