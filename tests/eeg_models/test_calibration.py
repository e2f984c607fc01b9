"""False positives of both group tests: the residual shift keeps its level, and fails where it is known to.

In null data EEG follows acoustics and noise, IC follows acoustics and chance. The reduced model holds the acoustics in
the two cases that must keep their level, and something short of them in the two that must not: those are the suite's
own controls, without which a test that never rejects would pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

from tasks.eeg import group
from tasks.eeg.folds import make_folds, prepare
from tasks.eeg.lags import lag_samples, lagged
from tasks.eeg.nested import full_scores, reduced_scores
from tasks.eeg.permutation import Explainer, Split, shifted
from tasks.eeg.regressors import Regressor, standardised
from tasks.eeg.sufficient import Layout, Part, reduced_sums, regressor_sums, response_sums
from tasks.seeds import numpy_stream

Array = np.ndarray[Any, Any]
RATE, N_SAMPLES, N_SUBJECTS, N_CHANNELS, N_PERMUTATIONS = 16, 320, 6, 2, 39
N_DATA_SETS, N_CONTROLS = 240, 40
PIECES = ("a", "b", "c", "d")
LAMBDAS = (1e-2, 1e-1)
LAGS = lag_samples(0.0, 0.25, RATE)


@dataclass(frozen=True)
class Sound:
    """Columns of one piece: linear envelope, the same compressed, its rise, note onsets, and loudness at onsets."""

    envelope: Array
    compressed: Array
    onsets: Array
    accents: Array

    @property
    def flux(self) -> Array:
        """Rises of the logarithm of the envelope: what an audio model's surprisal may follow without any listener."""
        return np.maximum(np.diff(np.log(self.envelope + 0.01), prepend=0.0), 0.0)


def sound(random: np.random.Generator) -> Sound:
    onsets = (random.random(N_SAMPLES) < 0.15).astype(float)
    accents = onsets * np.exp(random.normal(size=N_SAMPLES))
    envelope = lfilter([1.0], [1.0, -0.7], accents) + 0.02
    return Sound(envelope, envelope**0.3, onsets, accents)


def rise(values: Array) -> Array:
    return np.maximum(np.diff(values, prepend=values[:1]), 0.0)


@dataclass(frozen=True)
class DataSet:
    """Reduced features, IC, and EEG [subject][piece]."""

    reduced: dict[str, Array]
    regressor: Regressor
    eeg: list[list[Array]]


def data_set(case: str, number: int) -> DataSet:
    random = numpy_stream("calibration", case, number)
    sounds = {piece: sound(random) for piece in PIECES}
    reduced, ic, heard = {}, {}, {}
    for piece, own in sounds.items():
        chance = random.normal(size=N_SAMPLES)
        acoustic_plus = [own.compressed, rise(own.compressed), own.onsets]
        if case == "continuous":
            reduced[piece], heard[piece] = acoustic_plus, [own.compressed, own.onsets]
            ic[piece] = own.compressed / own.compressed.std() + lfilter([1.0, 1.0, 1.0], [1.0], chance)
        elif case == "onset-locked":
            reduced[piece], heard[piece] = acoustic_plus, [own.compressed, own.onsets]
            ic[piece] = own.onsets * (chance + np.log(np.where(own.accents > 0, own.accents, 1.0)))
        elif case == "unmodelled onsets":
            reduced[piece], heard[piece] = [own.compressed], [own.compressed, own.onsets]
            ic[piece] = own.onsets * (chance + 1.0)
        else:
            linear = [own.envelope, rise(own.envelope), own.onsets]
            reduced[piece], heard[piece], ic[piece] = linear, [own.compressed], own.flux + 0.2 * chance
    values = {piece: own[:, 0] for piece, own in standardised({p: own[:, None] for p, own in ic.items()}).items()}
    driving = standardised({piece: np.column_stack(columns) for piece, columns in heard.items()})
    eeg = [respond(random, driving) for _ in range(N_SUBJECTS)]
    features = standardised({piece: np.column_stack(columns) for piece, columns in reduced.items()})
    return DataSet(features, Regressor(values, dict.fromkeys(PIECES, np.ones(N_SAMPLES, dtype=bool))), eeg)


def respond(random: np.random.Generator, driving: dict[str, Array]) -> list[Array]:
    kernels = random.normal(size=(4, driving["a"].shape[1], N_CHANNELS)) + 1.0
    eeg = []
    for piece in PIECES:
        noise = lfilter(np.hanning(5)[1:-1], [1.0], random.normal(size=(N_SAMPLES, N_CHANNELS)), axis=0)
        lags = lagged(driving[piece], np.arange(4))
        eeg.append(0.3 * lags @ kernels.reshape(-1, N_CHANNELS) + noise)
    return eeg


def both_tests(data: DataSet, number: int, plain: bool) -> group.Tests:
    """Both tests of one data set, from the residual shift or a plain one."""
    design = {piece: lagged(values, LAGS) for piece, values in data.reduced.items()}
    layout = Layout(PIECES, tuple((Part(piece, N_SAMPLES, 1),) for piece in PIECES))
    folds = make_folds(reduced_sums(layout, design), LAMBDAS)
    heard = [prepare(folds, response_sums(layout, design, [[[part]] for part in subject])) for subject in data.eeg]
    if plain:
        nothing = dict.fromkeys(PIECES, np.zeros(N_SAMPLES))
        split = Split(nothing, data.regressor.values, data.regressor.present)
    else:
        split = Explainer(data.reduced, LAGS.size).split(data.regressor)
    permuted = shifted(split, number, range(N_PERMUTATIONS), LAGS.size, 2.0, RATE)
    versions = {piece: np.concatenate([data.regressor.values[piece][None], permuted[piece]]) for piece in PIECES}
    sums, crosses = regressor_sums(layout, design, versions, LAGS, [one.sums for one in heard])
    r = np.array([scores.r.mean(axis=1) for scores in full_scores(folds, sums, heard, crosses)])
    gains = r - np.array([reduced_scores(folds, one).r.mean(axis=1) for one in heard])
    return group.run_tests(gains[:, 0, None], gains[:, 1:, None], 0.05)


def p_values(case: str, count: int, plain: bool = False) -> Array:
    """Smallest p over channels: of the test over stimuli, of that over subjects, and of both; shape (3, count)."""
    found = []
    for number in range(count):
        tests = both_tests(data_set(case, number), number, plain)
        assert tests.p is not None
        assert tests.p_subject is not None
        found.append([tests.p_stimulus.min(), tests.p_subject.min(), tests.p.min()])
    return np.array(found).T


@pytest.mark.parametrize("case", ["continuous", "onset-locked"])
def test_both_tests_keep_their_level(case: str) -> None:
    stimulus, subject, both = p_values(case, N_DATA_SETS)
    assert 0.01 <= (stimulus <= 0.05).mean() <= 0.09
    assert 0.01 <= (subject <= 0.05).mean() <= 0.09
    assert (both <= 0.05).mean() <= 0.05
    assert 0.4 <= (stimulus <= 0.5).mean() <= 0.6
    assert 0.4 <= (subject <= 0.5).mean() <= 0.6


def test_a_plain_shift_rejects_when_onsets_are_not_modelled() -> None:
    stimulus, subject, _ = p_values("unmodelled onsets", N_CONTROLS, plain=True)
    assert (stimulus <= 0.05).mean() > 0.5
    assert (subject <= 0.05).mean() > 0.5


def test_a_linear_envelope_rejects_when_eeg_follows_a_compressed_one() -> None:
    stimulus, subject, _ = p_values("linear envelope", N_CONTROLS)
    assert (stimulus <= 0.05).mean() > 0.5
    assert (subject <= 0.05).mean() > 0.5
