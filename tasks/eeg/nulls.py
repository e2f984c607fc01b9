"""Null distributions beside the residual shift: which keep their level, and how their permutations are drawn.

`onset_values` asks whether it matters which note is surprising rather than when: the values trade places among a
piece's onsets. The popular ones break the collinearity of IC with acoustics or its autocorrelation: their p-values are
too small where IC follows acoustics (docs/results/calibration.md). They are there to be compared with,
and carry no claim.

Permutation k in a recording is drawn from (seed, null, k, recording): the same for all subjects, channels, variants and
noise levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tasks.alignment import impulses
from tasks.contract import TaskError
from tasks.eeg import masks
from tasks.eeg.residual import Counts
from tasks.seeds import numpy_stream

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

WORDS = {
    "residual_shift": "residual circular shifts",
    "onset_values": "shuffles of IC among note onsets, of what acoustics leave over of it",
    "circular_shift": "circular shifts of IC (not calibrated)",
    "across_pieces": "IC permuted across pieces (not calibrated)",
    "sample_shuffle": "shuffled samples of IC (not calibrated)",
    "phase_scramble": "IC with scrambled phases (not calibrated)",
}
"""What reports call a null."""

CALIBRATED = ("residual_shift", "onset_values")
"""Those whose false-positive rate is kept, and which may carry a claim."""

MIN_ONSETS = 10
"""Fewer onsets than this in a piece make too coarse a null distribution."""


def no_claim(null: str) -> str | None:
    """Why a null distribution carries no claim; None where it may carry one."""
    if null in CALIBRATED:
        return None
    return (
        f"permutations.null {null} is not calibrated (too many false positives where IC follows acoustics), so it is a "
        f"diagnostic and carries no claim; claims need {' or '.join(CALIBRATED)}"
    )


def onset_counts(notes: Sequence[Sequence[float]], sample_rate_hz: float, n_samples: int) -> Counts:
    """How many notes begin at each sample, shape (n_samples,): where `onset` IC has its impulses."""
    onsets = [note[0] for note in notes]
    return np.rint(impulses(onsets, np.ones(len(onsets)), sample_rate_hz, n_samples)).astype(np.int64)


def check_onsets(counts: Mapping[str, Counts]) -> None:
    """Refuse pieces with fewer than 10 onsets.

    Raises
    ------
    TaskError
        Naming the first such piece.
    """
    for key, own in counts.items():
        found = int((own > 0).sum())
        if found < MIN_ONSETS:
            raise TaskError(
                f"{key}: {found} note onsets, and permutations.null onset_values needs {MIN_ONSETS} in every piece; "
                "use longer pieces or permutations.null: residual_shift"
            )


def among_onsets(
    fit: Mapping[str, Floats],
    residual: Mapping[str, Floats],
    counts: Mapping[str, Counts],
    seed: int,
    numbers: Sequence[int],
) -> dict[str, Floats]:
    """IC whose residual values trade places among a piece's onsets; everything else stays where it is.

    Impulses stay at the onsets, and the part of their heights that the reduced model explains there stays with them:
    values that follow loudness go on following it (Freedman & Lane 1983, on permuting with nuisance variables). Where
    notes begin together their impulses add up: they trade places with those of as many notes only.

    Parameters
    ----------
    fit, residual : mapping of recording to ndarray, shape (T,)
        Of `tasks.eeg.residual.OnsetExplainer`.
    counts : mapping of recording to ndarray of int64, shape (T,)
        As from `onset_counts`.
    seed : int
    numbers : sequence of int
        The permutations k that are wanted.

    Returns
    -------
    dict of str to ndarray, shape (len(numbers), T)
    """
    versions = {}
    for key, own in counts.items():
        values = np.tile(fit[key] + residual[key], (len(numbers), 1))
        chords = [np.flatnonzero(own == count) for count in np.unique(own[own > 0])]
        for row, number in enumerate(numbers):
            random = numpy_stream(seed, "onset_values", number, key)
            for where in chords:
                values[row, where] = fit[key][where] + residual[key][random.permutation(where)]
        versions[key] = values
    return versions


def across_pieces(
    values: Mapping[str, Floats], present: Mapping[str, Flags], seed: int, numbers: Sequence[int]
) -> dict[str, Floats]:
    """Every recording with the IC of another (or, by chance, its own), cut or repeated to its length; 0 elsewhere.

    The order is drawn once for all recordings, from (seed, null, k). Parameters as of `sample_shuffle`.
    """
    keys = sorted(values)
    versions = {key: np.zeros((len(numbers), values[key].size)) for key in keys}
    for row, number in enumerate(numbers):
        order = numpy_stream(seed, "across_pieces", number).permutation(len(keys))
        for key, place in zip(keys, order, strict=True):
            other = keys[place]
            where = np.flatnonzero(present[key])
            versions[key][row, where] = np.resize(values[other][present[other]], where.size)
    return versions


def sample_shuffle(
    values: Mapping[str, Floats], present: Mapping[str, Flags], seed: int, numbers: Sequence[int]
) -> dict[str, Floats]:
    """The samples of each recording in random order: neither autocorrelation nor collinearity survives.

    Parameters
    ----------
    values : mapping of recording to ndarray, shape (T,)
        IC.
    present : mapping of recording to ndarray of bool, shape (T,)
        Where IC has a value; the permuted IC is 0 elsewhere.
    seed : int
    numbers : sequence of int
        The permutations k that are wanted.

    Returns
    -------
    dict of str to ndarray, shape (len(numbers), T)
    """
    return _each(values, present, seed, numbers, "sample_shuffle", lambda series, random: random.permutation(series))


def phase_scramble(
    values: Mapping[str, Floats], present: Mapping[str, Flags], seed: int, numbers: Sequence[int]
) -> dict[str, Floats]:
    """Each recording's spectrum of amplitudes with random phases: autocorrelation survives, collinearity doesn't.

    Mean and, of an even number of samples, the highest frequency stay as they are. Stretches between gaps in IC are
    scrambled one by one. Parameters as of `sample_shuffle`.
    """
    return _each(values, present, seed, numbers, "phase_scramble", _scrambled, by_stretch=True)


def _scrambled(series: Floats, random: np.random.Generator) -> Floats:
    spectrum = np.fft.rfft(series)
    free = slice(1, (series.size + 1) // 2)
    spectrum[free] *= np.exp(2j * np.pi * random.random(spectrum[free].size))
    return np.fft.irfft(spectrum, series.size)


def _each(
    values: Mapping[str, Floats],
    present: Mapping[str, Flags],
    seed: int,
    numbers: Sequence[int],
    null: str,
    change: Callable[[Floats, np.random.Generator], Floats],
    by_stretch: bool = False,
) -> dict[str, Floats]:
    """`change` applied to the samples of each recording that have IC, together or by stretches without a gap.

    Each permutation has a stream.
    """
    versions = {}
    for key, series in values.items():
        parts = [np.flatnonzero(present[key])]
        if by_stretch:
            parts = [np.arange(start, stop) for start, stop in masks.of_flags(present[key])]
        versions[key] = np.zeros((len(numbers), series.size))
        for row, number in enumerate(numbers):
            stream = numpy_stream(seed, null, number, key)
            for where in parts:
                versions[key][row, where] = change(series[where], stream)
    return versions
