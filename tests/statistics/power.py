"""How often a true effect is claimed: simulated listeners to IC at the onsets of ten melodies, at three effects."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from comparisons import ALPHA
from fits import Setting, fit
from null_data import DataSet, rise

from tasks.alignment import impulses
from tasks.audio.config import RenderConfig, SourceFile
from tasks.audio.melodies import read_midi
from tasks.audio.render import render
from tasks.contract import Context
from tasks.eeg import group
from tasks.eeg.features import envelope
from tasks.eeg.lags import lag_samples, lagged
from tasks.eeg.nulls import onset_counts
from tasks.eeg.regressors import Regressor, standardised
from tasks.eeg.simulation import pink_noise
from tasks.seeds import numpy_stream

Array = np.ndarray[Any, Any]
BACH = Path(__file__).parents[2] / "../shared/data/bach_melodies"
"""The melodies of Di Liberto et al. 2020 (eLife 51784), where they are there."""

RATE, N_SUBJECTS, N_MELODIES, MELODY_S = 32, 20, 10, 150.0
EFFECTS = (0.0005, 0.001, 0.002)
"""What r of a listener's EEG would gain from a perfectly known response to IC."""

R_ACOUSTIC = 0.06
"""Correlation of EEG with the response to acoustics, about that of real listeners to these melodies."""

LAGS = lag_samples(0.0, 0.35, RATE)


@dataclass(frozen=True)
class Melody:
    """Reduced features (T, 3) and notes that begin at each sample (T,)."""

    features: Array
    counts: Array


def notes(folder: Path = BACH) -> tuple[str, list[Sequence[Any]]]:
    """What the melodies are, and their notes as (onset in s, duration in s, pitch, ...)."""
    files = sorted(folder.glob("*.mid"))
    if files:
        sources = [SourceFile(path=str(path), size=path.stat().st_size, version="") for path in files]
        context = Context(open_file=lambda path: io.BytesIO(Path(path).read_bytes()))
        return "the ten Bach melodies", [tune.notes for tune in read_midi(sources, context)[0]]
    return "ten random melodies", [walk(number, MELODY_S) for number in range(N_MELODIES)]


def walk(number: int, seconds: float) -> list[tuple[float, float, int, int]]:
    """Quavers and crotchets on a random walk within two octaves."""
    random = numpy_stream("power", "melody", number)
    durations = random.choice([0.25, 0.5], size=round(seconds * 4))
    onsets = np.cumsum(durations) - durations
    pitches = 60 + np.abs(np.cumsum(random.integers(-4, 5, size=onsets.size)) % 48 - 24)
    kept = zip(onsets, durations, pitches, random.integers(50, 110, size=onsets.size), strict=True)
    return [(float(a), float(b), int(c), int(d)) for a, b, c, d in kept if a + b < seconds]


def melodies(tunes: Sequence[Sequence[Any]]) -> list[Melody]:
    """Each tune rendered, its compressed envelope with its rises, and its onsets."""
    heard = {}
    for number, tune in enumerate(tunes):
        random = numpy_stream("power", "render", number)
        audio, played = render(tune, RenderConfig(vary_tempo=False), random, "second")
        loud = envelope(audio, RATE) ** 0.3
        counts = onset_counts(played, RATE, loud.size)
        heard[str(number)] = np.column_stack([loud, rise(loud), counts]), counts
    features = standardised({key: own for key, (own, _) in heard.items()})
    return [Melody(features[key], counts) for key, (_, counts) in heard.items()]


def planted(material: Sequence[Melody], effect: float, number: int, n_channels: int) -> DataSet:
    """Listeners to acoustics and to IC, which is drawn anew in each data set and the same for all its listeners."""
    random = numpy_stream("power", number)
    ic = {}
    for place, own in enumerate(material):
        where = np.repeat(np.arange(own.counts.size), own.counts)
        ic[str(place)] = impulses(where / RATE, random.normal(size=where.size), RATE, own.counts.size)[:, None]
    ic = standardised(ic)
    strengths = R_ACOUSTIC, float(np.sqrt((R_ACOUSTIC + effect) ** 2 - R_ACOUSTIC**2))
    eeg = [_listener(random, material, ic, strengths, n_channels) for _ in range(N_SUBJECTS)]
    reduced = {str(place): own.features for place, own in enumerate(material)}
    counts = {str(place): own.counts for place, own in enumerate(material)}
    values = {key: own[:, 0] for key, own in ic.items()}
    return DataSet(
        reduced, counts, (Regressor(values, {key: np.ones(own.size, bool) for key, own in values.items()}),), eeg
    )


def _listener(
    random: np.random.Generator,
    material: Sequence[Melody],
    ic: dict[str, Array],
    strengths: tuple[float, float],
    n_channels: int,
) -> list[list[Array]]:
    """One listener's EEG: responses of the given standard deviations at every channel, in noise of 1."""
    shape = np.hanning(LAGS.size + 2)[1:-1, None]
    noises = [pink_noise(random, n_channels, own.counts.size, RATE) for own in material]
    mixed = np.eye(n_channels) + random.normal(size=(n_channels, n_channels)) / np.sqrt(n_channels)
    eeg = [noise.T @ mixed for noise in noises]
    scale = np.concatenate(eeg).std(axis=0)
    eeg = [noise / scale for noise in eeg]
    drivers = [own.features for own in material], list(ic.values())
    for driver, strength in zip(drivers, strengths, strict=True):
        kernel = (shape * (1 + 0.3 * random.normal(size=(LAGS.size, driver[0].shape[1])))).ravel()
        courses = [lagged(columns, LAGS) @ kernel for columns in driver]
        spread = np.concatenate(courses).std()
        for place, course in enumerate(courses):
            eeg[place] += strength * (course / spread)[:, None]
    return [[trial] for trial in eeg]


@dataclass(frozen=True)
class Trial:
    """One data set at one effect size: excess delta_r, median over channels, and what was significant anywhere.

    `hits` are those of the claim, of the test over stimuli and of the test over subjects.
    """

    effect: float
    number: int
    excess: float
    hits: tuple[bool, bool, bool]


def trial(material: Sequence[Melody], effect: float, number: int, n_channels: int, n_permutations: int) -> Trial:
    """Data set `number` at an effect, under the residual shift; noise and IC are the same at all effects."""
    fitted = fit(
        planted(material, effect, number, n_channels), ("residual_shift",), number, Setting(LAGS, RATE, n_permutations)
    )
    tests = group.run_tests(fitted.gain, fitted.null["residual_shift"], ALPHA)
    assert tests.p is not None
    assert tests.p_subject is not None
    excess = float(np.median(tests.excess, axis=-1).mean())
    claim, stimuli, subjects = (bool((p <= ALPHA).any()) for p in (tests.p, tests.p_stimulus, tests.p_subject))
    return Trial(effect, number, excess, (claim, stimuli, subjects))
