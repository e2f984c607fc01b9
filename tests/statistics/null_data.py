"""Data in which IC tells listeners nothing: sounds, IC and EEG, small enough for hundreds of data sets.

Every data set derives from ("calibration", generator, number): the same on any machine and in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.signal import lfilter

from tasks.eeg import masks
from tasks.eeg.masks import Spans
from tasks.eeg.regressors import Regressor, standardised
from tasks.seeds import numpy_stream

Array = np.ndarray[Any, Any]
RATE, N_SAMPLES, N_SUBJECTS, N_CHANNELS = 16, 320, 6, 2
N_LAGS = 4
"""Samples over which EEG responds."""

PIECES = ("a", "b", "c", "d")
GAPPED_SAMPLES = 400
"""Of a piece with a gap in its middle: both sides have their 100 shifts of two seconds."""


@dataclass(frozen=True)
class Sound:
    """One piece: linear envelope, note onsets, and loudness at onsets; columns of shape (T,)."""

    envelope: Array
    onsets: Array
    accents: Array

    @property
    def compressed(self) -> Array:
        """The envelope by a power law, as hearing has it."""
        return np.asarray(self.envelope**0.3)

    @property
    def flux(self) -> Array:
        """Rises of the logarithm of the envelope: what an audio model's surprisal may follow without any listener."""
        return rise(np.log(self.envelope + 0.01))

    @property
    def loudness(self) -> Array:
        """Logarithm of the accents at onsets, 0 elsewhere."""
        return np.log(np.where(self.accents > 0, self.accents, 1.0))


def sound(random: np.random.Generator, n_samples: int) -> Sound:
    onsets = (random.random(n_samples) < 0.15).astype(float)
    accents = onsets * np.exp(random.normal(size=n_samples))
    return Sound(lfilter([1.0], [1.0, -0.7], accents) + 0.02, onsets, accents)


def rise(values: Array) -> Array:
    return np.maximum(np.diff(values, prepend=values[:1]), 0.0)


def smooth(chance: Array) -> Array:
    return np.asarray(lfilter([1.0, 1.0, 1.0], [1.0], chance))


@dataclass(frozen=True)
class Generator:
    """A way in which the null hypothesis is true.

    Attributes
    ----------
    words : str
        What is true, for tables.
    ic : callable
        IC of a sound and of chance, white noise of shape (T,).
    heard : callable
        Columns that EEG responds to.
    reduced : callable
        Columns of the reduced model.
    lengths : tuple of int
        Samples of each piece.
    n_subjects, n_trials : int
        Listeners, and how often each hears a piece.
    shared : float
        Standard deviation of activity that a piece evokes in all listeners alike, unrelated to sound and IC.
    on_notes : bool
        IC has impulses at note onsets alone.
    gaps : bool
        IC lacks some seconds in the middle of a piece, and EEG has a bad segment somewhere in each.
    step : bool
        A series that the reduced model has beside acoustics, as the step of the latents, drives IC and EEG alike.
    """

    words: str
    ic: Callable[[Sound, Array], Array]
    heard: Callable[[Sound], list[Array]]
    reduced: Callable[[Sound], list[Array]]
    lengths: tuple[int, ...] = (N_SAMPLES,) * len(PIECES)
    n_subjects: int = N_SUBJECTS
    n_trials: int = 1
    shared: float = 0.0
    on_notes: bool = False
    gaps: bool = False
    step: bool = False


def acoustic_plus(own: Sound) -> list[Array]:
    return [own.compressed, rise(own.compressed), own.onsets]


def acoustics(own: Sound) -> list[Array]:
    return [own.compressed, own.onsets]


def follows_flux(own: Sound, chance: Array) -> Array:
    return own.flux / own.flux.std() + smooth(chance)


def flux_at_onsets(own: Sound, chance: Array) -> Array:
    return own.onsets * (own.flux / own.flux.std() + chance)


def follows_loudness(own: Sound, chance: Array) -> Array:
    return own.onsets * (chance + own.loudness)


def at_onsets(own: Sound, chance: Array) -> Array:
    return own.onsets * (chance + 1.0)


GENERATORS = {
    "independent": Generator(
        "IC is independent of sound and EEG", lambda own, chance: smooth(chance), acoustics, acoustic_plus
    ),
    "flux": Generator("IC follows the envelope's flux", follows_flux, acoustics, acoustic_plus),
    "onset values": Generator(
        "IC at onsets follows their loudness", follows_loudness, acoustics, acoustic_plus, on_notes=True
    ),
    "onsets modelled": Generator(
        "EEG responds to onsets, which the reduced model has", at_onsets, acoustics, acoustic_plus, on_notes=True
    ),
    "onsets unmodelled": Generator(
        "EEG responds to onsets, which the reduced model lacks",
        at_onsets,
        acoustics,
        lambda own: [own.compressed],
        on_notes=True,
    ),
    "compressive, modelled": Generator(
        "EEG follows a compressed envelope, which the reduced model has",
        lambda own, chance: own.flux + 0.2 * chance,
        lambda own: [own.compressed],
        acoustic_plus,
    ),
    "compressive, linear model": Generator(
        "EEG follows a compressed envelope, the reduced model has a linear one",
        lambda own, chance: own.flux + 0.2 * chance,
        lambda own: [own.compressed],
        lambda own: [own.envelope, rise(own.envelope), own.onsets],
    ),
    "shared activity": Generator(
        "pieces evoke activity in all listeners that nothing explains",
        follows_flux,
        acoustics,
        acoustic_plus,
        shared=1.0,
    ),
    "repeated pieces": Generator("each piece is heard twice", follows_flux, acoustics, acoustic_plus, n_trials=2),
    "unequal lengths": Generator(
        "pieces of 15 to 28 s", follows_flux, acoustics, acoustic_plus, lengths=(240, 280, 360, 448)
    ),
    "five subjects": Generator(
        "as few subjects as can be tested", follows_flux, acoustics, acoustic_plus, n_subjects=5
    ),
    "flux at onsets": Generator(
        "IC at onsets follows the envelope's flux there", flux_at_onsets, acoustics, acoustic_plus, on_notes=True
    ),
    "shared activity, onsets": Generator(
        "IC at onsets follows flux, and listeners share activity that nothing explains",
        flux_at_onsets,
        acoustics,
        acoustic_plus,
        shared=1.0,
        on_notes=True,
    ),
    "repeated pieces, onsets": Generator(
        "IC at onsets follows flux, each piece is heard twice",
        flux_at_onsets,
        acoustics,
        acoustic_plus,
        n_trials=2,
        on_notes=True,
    ),
    "unequal lengths, onsets": Generator(
        "IC at onsets follows flux, pieces of 15 to 28 s",
        flux_at_onsets,
        acoustics,
        acoustic_plus,
        lengths=(240, 280, 360, 448),
        on_notes=True,
    ),
    "five subjects, onsets": Generator(
        "IC at onsets follows flux, as few subjects as can be tested",
        flux_at_onsets,
        acoustics,
        acoustic_plus,
        n_subjects=5,
        on_notes=True,
    ),
    "gaps": Generator(
        "IC has gaps, EEG has bad segments, pieces of 25 s",
        follows_flux,
        acoustics,
        acoustic_plus,
        lengths=(GAPPED_SAMPLES,) * len(PIECES),
        gaps=True,
    ),
    "step modelled": Generator(
        "IC at onsets and EEG follow the step of the latents, which the reduced model has",
        at_onsets,
        acoustics,
        acoustic_plus,
        on_notes=True,
        step=True,
    ),
}


@dataclass(frozen=True)
class DataSet:
    """Reduced features and notes per piece, IC of each condition, and EEG [subject][piece][trial] of shape (T, C).

    `bad` are the segments of each piece that no fit may look at; `n_beside` of the last features stand in for IC.
    """

    reduced: dict[str, Array]
    counts: dict[str, Array]
    regressors: tuple[Regressor, ...]
    eeg: list[list[list[Array]]]
    bad: dict[str, Spans] = field(default_factory=dict)
    n_beside: int = 0


def data_set(name: str, number: int) -> DataSet:
    """Data set `number` of a generator."""
    made, random = GENERATORS[name], numpy_stream("calibration", name, number)
    sounds = {piece: sound(random, length) for piece, length in zip(PIECES, made.lengths, strict=True)}
    ic = {piece: made.ic(own, random.normal(size=own.onsets.size)) for piece, own in sounds.items()}
    heard, known = ({piece: made_of(own) for piece, own in sounds.items()} for made_of in (made.heard, made.reduced))
    if made.step:
        for piece, own in sounds.items():
            step = own.onsets * random.normal(size=own.onsets.size)
            ic[piece] = ic[piece] + step
            heard[piece], known[piece] = [*heard[piece], step], [*known[piece], step]
    driving, reduced = (
        standardised({piece: np.column_stack(columns) for piece, columns in own.items()}) for own in (heard, known)
    )
    common = {piece: made.shared * noise(random, own.size) for piece, own in ic.items()}
    eeg = [respond(random, driving, common, made.n_trials) for _ in range(made.n_subjects)]
    missing, bad = dict[str, Spans](), dict[str, Spans]()
    if made.gaps:
        missing = {piece: _span(random, 185, 8, 30) for piece in PIECES[::2]}
        bad = {piece: _span(random, 0, GAPPED_SAMPLES - 30, 30) for piece in PIECES}
        for piece, ((start, stop),) in bad.items():
            for (trial,) in (own[PIECES.index(piece)] for own in eeg):
                trial[start:stop] *= 20.0
    return DataSet(reduced, onset_counts(sounds), (regressor(ic, missing),), eeg, bad, int(made.step))


def _span(random: np.random.Generator, first: int, n_starts: int, most: int) -> Spans:
    """One stretch of 8 to `most` samples that begins at one of `n_starts` samples from `first` on."""
    start = first + int(random.integers(n_starts))
    return ((start, start + int(random.integers(8, most + 1))),)


def regressor(ic: dict[str, Array], missing: dict[str, Spans] | None = None) -> Regressor:
    """Standardised IC of a condition, present everywhere but where it is missing."""
    present = {piece: np.ones(own.size, dtype=bool) for piece, own in ic.items()}
    for piece, spans in (missing or {}).items():
        present[piece][masks.indices(spans)] = False
    there = standardised({piece: own[present[piece], None] for piece, own in ic.items()})
    values = {piece: np.zeros(own.size) for piece, own in ic.items()}
    for piece, own in there.items():
        values[piece][present[piece]] = own[:, 0]
    return Regressor(values, present, missing or {})


def onset_counts(sounds: dict[str, Sound]) -> dict[str, Array]:
    return {piece: own.onsets.astype(np.int64) for piece, own in sounds.items()}


def noise(random: np.random.Generator, n_samples: int, n_channels: int = N_CHANNELS) -> Array:
    return np.asarray(lfilter(np.hanning(5)[1:-1], [1.0], random.normal(size=(n_samples, n_channels)), axis=0))


def respond(
    random: np.random.Generator,
    driving: dict[str, Array],
    common: dict[str, Array],
    n_trials: int = 1,
    n_channels: int = N_CHANNELS,
) -> list[list[Array]]:
    """One listener's EEG: random kernels with a positive mean, what all listeners share, and noise of its own."""
    kernels = 0.3 * (random.normal(size=(N_LAGS, driving["a"].shape[1], n_channels)) + 1.0)
    eeg = []
    for piece, columns in driving.items():
        response = common[piece].copy()
        add_response(response, columns, kernels)
        eeg.append([response + noise(random, len(response), n_channels) for _ in range(n_trials)])
    return eeg


def add_response(response: Array, columns: Array, kernels: Array) -> None:
    """Add what columns (T, F) evoke by kernels (lags, F, C) to a response (T, C)."""
    for lag, kernel in enumerate(kernels):
        response[lag:] += columns[: len(columns) - lag] @ kernel
