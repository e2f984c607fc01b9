"""What a recording of EEG is, wherever it comes from, before it is cleaned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sensors:
    """Channel names, and their positions in metres (x right, y front, z up; None where unknown), shape (C, 3)."""

    names: tuple[str, ...]
    positions: Floats | None


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
    """

    name: str
    recording: str
    repetition: int
    data: Floats
    mastoids: Floats | None
    sample_rate_hz: float
    start_sample: int
    duration_s: float

    @property
    def key(self) -> str:
        """Name of the cleaned trial in ``eeg.safetensors``."""
        return f"{self.recording}/{self.repetition}"


@dataclass(frozen=True)
class Skipped:
    """A part of the data that is left out, and why; `trial` is ``-`` where it is no trial."""

    trial: str
    reason: str

    def __str__(self) -> str:
        return self.reason if self.trial == "-" else f"trial {self.trial}: {self.reason}"
