"""What a recording of EEG is, wherever it comes from, before it is cleaned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tasks.eeg.source_config import SensorType

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sensors:
    """Channel names, their positions in metres (x right, y front, z up; None where unknown), and their type.

    Positions have shape (C, 3). Those of electrodes lie on a sphere of 95 mm, those of MEG are in head coordinates.
    """

    names: tuple[str, ...]
    positions: Floats | None
    kind: SensorType = "eeg"

    @property
    def for_splines(self) -> Sensors:
        """As bad channels may be interpolated from them: spherical splines are for potentials, so not MEG's."""
        return self if self.kind == "eeg" else replace(self, positions=None)


@dataclass(frozen=True)
class Trial:
    """One presentation of one recording.

    Attributes
    ----------
    name : str
        What the data call it, for messages.
    recording, repetition : str, int
        Which recording was heard, for the how-manieth time (from 0).
    data : ndarray, shape (C, samples)
        EEG in any unit.
    mastoids : ndarray of shape (2, samples), or None
        The mastoids' channels, if recorded.
    sample_rate_hz : float
        Samples per second of `data`.
    start_sample : int
        Index in `data` of the recording's first instant; what lies before is padding.
    duration_s : float
        How long the recording lasts.
    original_position : int or None
        The how-manieth presentation of its session this was (from 1), where the data say so.
    marked_bads : tuple of str
        Channels that the file itself calls bad.
    bad_spans : tuple of (from_s, to_s, description)
        Parts of the recording, in its own seconds, that the file's annotations call bad.
    eog : ndarray of shape (k, samples), or None
        Channels of eye movements, sample by sample beside `data`, if recorded.
    eog_names : tuple of str
        Their k names.
    """

    name: str
    recording: str
    repetition: int
    data: Floats
    mastoids: Floats | None
    sample_rate_hz: float
    start_sample: int
    duration_s: float
    original_position: int | None = None
    marked_bads: tuple[str, ...] = ()
    bad_spans: tuple[tuple[float, float, str], ...] = ()
    eog: Floats | None = None
    eog_names: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name of the cleaned trial in ``eeg.safetensors``."""
        return f"{self.recording}/{self.repetition}"


@dataclass(frozen=True)
class Skipped:
    """A part of the data that is left out, and why; `trial` is ``-`` where it is no trial, `piece` what it heard."""

    trial: str
    reason: str
    piece: str | None = None

    def __str__(self) -> str:
        heard = f" ({self.piece})" if self.piece else ""
        return self.reason if self.trial == "-" else f"trial {self.trial}{heard}: {self.reason}"


@dataclass(frozen=True)
class Subject:
    """One subject's usable trials, its channels, and what was left out.

    `other_channels` are the names of the channels that are no EEG, by their type.
    """

    trials: list[Trial]
    sensors: Sensors
    skipped: list[Skipped]
    other_channels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


CUT_MAX_S = 0.1
"""A recording and its EEG that differ by more than this at their end differ on purpose, or are refused."""


def cut(trial: Trial, sample_rate_hz: int) -> Skipped | None:
    """What is cut where a recording and its EEG end up to .1 s apart; None where that is less than a sample.

    Parameters
    ----------
    trial : Trial
    sample_rate_hz : int
        Of the cleaned EEG.
    """
    beyond_s = (trial.data.shape[1] - trial.start_sample) / trial.sample_rate_hz - trial.duration_s
    if not 1 <= abs(beyond_s) * sample_rate_hz <= CUT_MAX_S * sample_rate_hz:
        return None
    late, early = ("EEG", "recording") if beyond_s > 0 else ("recording", "EEG")
    reason = f"the {early} ends {abs(beyond_s):.3f} s before the {late}, whose end is left out"
    return Skipped(trial.name, reason, trial.recording)


def union_s(spans: tuple[tuple[float, float, str], ...]) -> float:
    """Seconds that lie in at least one of the spans (from_s, to_s, description)."""
    total_s, reached_s = 0.0, float("-inf")
    for from_s, to_s, _ in sorted(spans):
        total_s += max(0.0, to_s - max(from_s, reached_s))
        reached_s = max(reached_s, to_s)
    return total_s
