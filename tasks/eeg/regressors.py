"""What a TRF is fitted on: the reduced model's acoustic features, and IC as a regressor, per stimulus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from tasks.alignment import FrameSeries, hold, impulses, note_ic
from tasks.audio.recording import Recording
from tasks.contract import Artefact, TaskError
from tasks.eeg.config import ModelConfig
from tasks.ic import read_ic

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

REDUCED_FEATURES = {"acoustic_plus": ("spectrogram", "derivative", "onsets"), "envelope": ("envelope",)}

FLAT_SD = 1e-12
"""A standard deviation below this share of the largest value is rounding: the series is constant."""


@dataclass(frozen=True)
class Regressor:
    """IC of every stimulus on the EEG's time base.

    Attributes
    ----------
    values : mapping of recording to ndarray, shape (T,)
        Mean 0 and standard deviation 1 over all stimuli; 0 where IC has no value.
    present : mapping of recording to ndarray of bool, shape (T,)
        Where IC has a value: not in the first frame, nor in silence before and after. The same for every noise level.
    """

    values: Mapping[str, Floats]
    present: Mapping[str, Flags]


def read_reduced(features: Artefact, reduced: str, sample_rate_hz: int) -> dict[str, Floats]:
    """Features of the reduced model, per recording.

    Each feature loses one mean and is divided by one standard deviation, both taken over all stimuli (impulses too), so
    that zero padding at a piece's edges means "average" and one lambda treats all features alike. A feature that is
    constant everywhere becomes 0.

    Parameters
    ----------
    features : Artefact
        Of the stage `features`.
    reduced : {"acoustic_plus", "envelope"}
    sample_rate_hz : int
        Rate of the EEG.

    Returns
    -------
    dict of str to ndarray, shape (T, F)
        F is 17 (eight bands, their rises, onsets) or 1.

    Raises
    ------
    TaskError
        If the features have another sample rate.
    """
    described = json.loads(features.read_bytes("features.json"))
    if described["sample_rate_hz"] != sample_rate_hz:
        raise TaskError(
            f"features: sampled at {described['sample_rate_hz']} Hz, the TRF wants {sample_rate_hz} Hz; "
            "both must follow eeg.preprocessing.sample_rate_hz"
        )
    arrays = load(features.read_bytes("features.safetensors"))
    names = REDUCED_FEATURES[reduced]
    raw = {
        recording: np.concatenate([arrays[f"{recording}/{name}"].astype(np.float64) for name in names], axis=1)
        for recording in sorted(described["recordings"])
    }
    return standardised(raw)


def standardised(series: Mapping[str, Floats]) -> dict[str, Floats]:
    """Columns with mean 0 and standard deviation 1 over all recordings together; constant columns become 0."""
    together = np.concatenate(list(series.values()))
    mean, scale = together.mean(axis=0), together.std(axis=0)
    flat = scale <= FLAT_SD * np.abs(together).max(axis=0, initial=0.0)
    return {key: np.where(flat, 0.0, (values - mean) / np.where(flat, 1.0, scale)) for key, values in series.items()}


def ic_regressor(
    series: Mapping[str, FrameSeries],
    lengths: Mapping[str, int],
    notes: Mapping[str, Sequence[Sequence[float]] | None],
    form: str,
    sample_rate_hz: int,
) -> Regressor:
    """IC as a regressor.

    ``hold``: each sample has the IC of its frame; standardised over all samples that have one, the others are 0.
    ``onset``: an impulse at each note onset. Its height is the z-score, over all notes, of the mean IC of the onset's
    frame and the next; a note without IC (in the first frame) counts as average. The impulses are then standardised
    like every other feature.

    Parameters
    ----------
    series : mapping of recording to frame series
        IC of the stimuli.
    lengths : mapping of recording to int
        Samples of each stimulus at the EEG's rate; recordings that aren't in `series` are left out.
    notes : mapping of recording to notes (onset in s first), or None where they are unknown
    form : {"hold", "onset"}
    sample_rate_hz : int

    Raises
    ------
    TaskError
        If IC is constant, or notes are unknown where onsets are wanted.
    """
    known = [key for key in sorted(lengths) if key in series]
    if not known:
        raise TaskError("no stimulus has both acoustic features and IC; surprisal must be computed for the stimuli")
    if form == "hold":
        held = {key: hold(series[key], sample_rate_hz, lengths[key]) for key in known}
        present = {key: np.isfinite(values) for key, values in held.items()}
        return Regressor({key: np.nan_to_num(values, nan=0.0) for key, values in _z_scored(held).items()}, present)
    silent = [key for key in known if not notes.get(key)]
    if silent:
        raise TaskError(
            f"the onset regressor needs the notes of every stimulus, and those of {', '.join(silent[:3])} are unknown; "
            "use stimuli rendered from melodies, or regressor: hold"
        )
    heights = _z_scored({key: note_ic(series[key], notes[key] or (), "onset_and_next") for key in known})
    pulses = {}
    for key in known:
        onsets = [note[0] for note in notes[key] or ()]
        pulses[key] = impulses(onsets, np.nan_to_num(heights[key], nan=0.0), sample_rate_hz, lengths[key])[:, None]
    values = {key: column[:, 0] for key, column in standardised(pulses).items()}
    return Regressor(values, {key: np.ones(lengths[key], dtype=bool) for key in known})


def _z_scored(series: Mapping[str, Floats]) -> dict[str, Floats]:
    """Less the mean, over the standard deviation, of all finite values together; NaN stay NaN."""
    together = np.concatenate(list(series.values()))
    finite = together[np.isfinite(together)]
    if finite.size == 0:
        raise TaskError("IC has no value at any sample of the stimuli; the stage surprisal must be repeated")
    scale = finite.std()
    if scale <= FLAT_SD * np.abs(finite).max():
        raise TaskError(
            f"IC is constant ({finite[0]:.6g} nats at every sample of the stimuli), so nothing can follow it; "
            "the flow or this noise level is degenerate"
        )
    return {key: (values - finite.mean()) / scale for key, values in series.items()}


def read_regressor(
    surprisal: Artefact, known: Mapping[str, Recording], lengths: Mapping[str, int], model: ModelConfig, rate: int
) -> Regressor:
    """IC of one noise level, in the form that `model` wants; see `ic_regressor`."""

    notes = {key: recording.notes for key, recording in known.items()}
    return ic_regressor(read_ic(surprisal), lengths, notes, model.regressor, rate)
