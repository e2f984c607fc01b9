"""What a TRF is fitted on: the reduced model's acoustic features, and IC or the true driver, per stimulus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from tasks.alignment import FrameSeries, hold, impulses, note_ic
from tasks.audio.recording import Recording
from tasks.contract import Artefact, TaskError
from tasks.eeg import masks
from tasks.eeg.feature_config import ReducedModel
from tasks.eeg.gaps import missing_samples
from tasks.eeg.masks import Spans
from tasks.ic import IcSeries, read_ic
from tasks.pitch import read_surprisal

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

REDUCED_FEATURES = {"acoustic_plus": ("spectrogram", "derivative", "onsets"), "envelope": ("envelope",)}

FLAT_SD = 1e-12
"""A standard deviation below this share of the largest value is rounding: the series is constant."""

LOST_MAX = 0.1
"""Share of a recording's frames that may lack IC: more are no gaps, but a solver that went wrong."""


class FitModel(ReducedModel):
    """The model of a `trf` cell: like those of a study's plan, and ``driver`` beside them.

    ``driver`` is what simulated listeners answer to, pitch surprisal at note onsets: how much it adds is the size of
    the planted effect, which IC can at best reach.
    """

    regressor: Literal["hold", "onset", "driver"]

    @property
    def source(self) -> str:
        """Role of the input that the regressor is read from."""
        return "pitch_surprisal" if self.regressor == "driver" else "surprisal"


@dataclass(frozen=True)
class Regressor:
    """IC of every stimulus on the EEG's time base.

    Attributes
    ----------
    values : mapping of recording to ndarray, shape (T,)
        Mean 0 and standard deviation 1 over all stimuli; 0 where IC has no value.
    present : mapping of recording to ndarray of bool, shape (T,)
        Where IC has a value: not in the first frame, nor in silence before and after, nor in gaps.
    missing : mapping of recording to Spans
        Gaps: samples whose IC should be there and isn't. Every row with a lagged copy of theirs is masked. Recordings
        without gaps aren't named.
    """

    values: Mapping[str, Floats]
    present: Mapping[str, Flags]
    missing: Mapping[str, Spans] = field(default_factory=dict)


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
    name: str = "IC",
    unit: str = "nats",
) -> Regressor:
    """IC as a regressor, or another series with one value per latent frame.

    ``hold``: each sample has the IC of its frame; standardised over all samples that have one, the others are 0.
    ``onset``: an impulse at each note onset. Its height is the z-score, over all notes, of the mean IC of the onset's
    frame and the next; a note without IC (in the first frame) counts as average. The impulses are then standardised
    like every other feature. A frame after the first without a value is a gap: with ``hold`` its samples are missing,
    with ``onset`` the onsets whose IC it would be part of.

    Parameters
    ----------
    series : mapping of recording to frame series
        IC of the stimuli.
    lengths : mapping of recording to int
        Samples of each stimulus at the EEG's rate; recordings that aren't in `series` are left out.
    notes : mapping of recording to notes (onset in s first), or None where they are unknown
    form : {"hold", "onset"}
    sample_rate_hz : int
    name, unit : str
        What messages call the series.

    Raises
    ------
    TaskError
        If IC is constant, be it in one piece, or notes are unknown where onsets are wanted.
    """
    known = [key for key in sorted(lengths) if key in series]
    if not known:
        raise TaskError(
            f"no stimulus has both acoustic features and {name}; surprisal must be computed for the stimuli"
        )
    if form == "hold":
        held = {key: hold(series[key], sample_rate_hz, lengths[key]) for key in known}
        present = {key: np.isfinite(values) for key, values in held.items()}
        scored = _z_scored(held, name, unit)
        _check_pieces({key: series[key].values for key in known}, name, unit)
        values = {key: np.nan_to_num(own, nan=0.0) for key, own in scored.items()}
        return Regressor(values, present, missing_samples(series, lengths, notes, form, sample_rate_hz))
    silent = [key for key in known if not notes.get(key)]
    if silent:
        raise TaskError(
            f"the onset regressor needs the notes of every stimulus, and those of {', '.join(silent[:3])} are unknown; "
            "use stimuli rendered from melodies, or regressor: hold"
        )
    heights = {key: note_ic(series[key], notes[key] or (), "onset_and_next") for key in known}
    scored = _z_scored(heights, name, unit)
    _check_pieces({key: series[key].values for key in known}, name, unit)
    regressor = _at_onsets(scored, lengths, notes, sample_rate_hz)
    missing = missing_samples(series, lengths, notes, form, sample_rate_hz)
    for key, spans in missing.items():
        regressor.present[key][masks.indices(spans)] = False
    return replace(regressor, missing=missing)


def driver_regressor(
    bits: Mapping[str, Floats],
    lengths: Mapping[str, int],
    notes: Mapping[str, Sequence[Sequence[float]] | None],
    sample_rate_hz: int,
) -> Regressor:
    """Pitch surprisal as a regressor, in the form that ``onset`` gives to IC.

    Parameters
    ----------
    bits : mapping of recording to ndarray, one value per note
    lengths, notes, sample_rate_hz
        As in `ic_regressor`.

    Raises
    ------
    TaskError
        If no stimulus has pitch surprisal, it is constant, or a stimulus has another number of notes.
    """
    known = [key for key in sorted(lengths) if key in bits]
    if not known:
        raise TaskError("no stimulus has both acoustic features and pitch surprisal: the notes of all are unknown")
    for key in known:
        n_notes = len(notes.get(key) or ())
        if n_notes != len(bits[key]):
            raise TaskError(
                f"{key}: pitch surprisal of {len(bits[key])} notes, and the stimulus has {n_notes}; "
                "the stage pitch_surprisal must be repeated for these stimuli"
            )
    return _at_onsets(
        _z_scored({key: bits[key] for key in known}, "pitch surprisal", "bits"), lengths, notes, sample_rate_hz
    )


def _at_onsets(
    heights: Mapping[str, Floats],
    lengths: Mapping[str, int],
    notes: Mapping[str, Sequence[Sequence[float]] | None],
    sample_rate_hz: int,
) -> Regressor:
    """Impulses of z-scored heights, NaN as average, standardised like every other feature."""
    pulses = {}
    for key, z in heights.items():
        onsets = [note[0] for note in notes[key] or ()]
        pulses[key] = impulses(onsets, np.nan_to_num(z, nan=0.0), sample_rate_hz, lengths[key])[:, None]
    values = {key: column[:, 0] for key, column in standardised(pulses).items()}
    return Regressor(values, {key: np.ones(lengths[key], dtype=bool) for key in heights})


def _z_scored(series: Mapping[str, Floats], name: str = "IC", unit: str = "nats") -> dict[str, Floats]:
    """Less the mean, over the standard deviation, of all finite values together; NaN stay NaN."""
    together = np.concatenate(list(series.values()))
    finite = together[np.isfinite(together)]
    if finite.size == 0:
        raise TaskError(
            f"{name} has no value at any sample of the stimuli; the stage that computes it must be repeated"
        )
    scale = finite.std()
    if scale <= FLAT_SD * np.abs(finite).max():
        raise TaskError(
            f"{name} is constant ({finite[0]:.6g} {unit} at every sample of the stimuli), so nothing can follow it"
            + ("; the flow or this noise level is degenerate" if unit == "nats" else "")
        )
    return {key: (values - finite.mean()) / scale for key, values in series.items()}


def _check_pieces(series: Mapping[str, Floats], name: str, unit: str) -> None:
    """Refuse a series that is constant in a piece: shifts of it would change nothing there.

    Raises
    ------
    TaskError
        Naming the pieces, and the value in the first of them.
    """
    still = {}
    for key, values in series.items():
        finite = values[np.isfinite(values)]
        if finite.size > 1 and finite.std() <= FLAT_SD * np.abs(finite).max():
            still[key] = finite
    if still:
        first, values = next(iter(still.items()))
        rest = f" and {len(still) - 3} more" if len(still) > 3 else ""
        raise TaskError(
            f"{name} is constant in {', '.join(list(still)[:3])}{rest} ({values[0]:.6g} {unit} in each of the "
            f"{values.size} frames of {first}), so nothing can follow it there; leave out these stimuli"
            + (", or this noise level" if unit == "nats" else "")
        )


def whole_ic(surprisal: Artefact) -> dict[str, IcSeries]:
    """IC by recording, NaN in the first frame and in those where it isn't finite: they are gaps.

    Raises
    ------
    TaskError
        If more than a tenth of a recording's frames after the first aren't finite.
    """
    level = json.loads(surprisal.read_bytes("ic.json"))["noise_level"]
    found = {}
    for key, series in read_ic(surprisal).items():
        lost = 1 + np.flatnonzero(~np.isfinite(series.values[1:]))
        if lost.size > LOST_MAX * len(series.values):
            raise TaskError(
                f"{key}: IC at noise level {level:g} isn't finite in {lost.size} of {len(series.values)} frames (the "
                f"first at {series.start_s[lost[0]]:.2f} s); allowed is a share of {LOST_MAX:g}. The flow or its "
                "solver diverged there: leave the noise level or the recording out"
            )
        values = series.values.copy()
        values[:1] = np.nan
        values[lost] = np.nan
        found[key] = replace(series, values=values)
    return found


def read_regressor(
    source: Artefact, known: Mapping[str, Recording], lengths: Mapping[str, int], model: FitModel, rate: int
) -> Regressor:
    """The regressor that `model` wants: IC of one noise level, or pitch surprisal.

    Parameters
    ----------
    source : Artefact
        Of the stage `surprisal` or, for ``driver``, `pitch_surprisal`.
    known : mapping of recording to Recording
    lengths : mapping of recording to int
        Samples at the EEG's rate.
    model : FitModel
    rate : int
        Samples per second of the EEG.
    """
    notes = {key: recording.notes for key, recording in known.items()}
    if model.regressor == "driver":
        return driver_regressor(read_surprisal(source), lengths, notes, rate)
    return ic_regressor(whole_ic(source), lengths, notes, model.regressor, rate)
