"""Onsets of the stimuli as a CND data set ships them, for recordings whose audio is aligned with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tasks.alignment import impulses
from tasks.audio.recording import Recording, recordings
from tasks.contract import Artefact, OpenFile, TaskError
from tasks.eeg.features import envelope, n_eeg_samples
from tasks.eeg.pairing import pair_trials, read_trial_table
from tasks.eeg.shipped import Shipped, compared, read_shipped
from tasks.eeg.source_config import ShippedFiles
from tasks.eeg.sources import need_all_stimuli
from tasks.eeg.trials import Floats

TOLERANCE_SAMPLES = 1
"""By how many of its own samples the shipped envelope may be away from ours (method.md 18.8)."""


class ShippedOnsets:
    """The onsets of every recording of a corpus, from the stimulus file of a CND data set.

    Parameters
    ----------
    corpus : Artefact
        The stimuli, paired with the trials as the EEG is.
    files : ShippedFiles
        The stimulus file, and the table of trials if there is one.
    open_file : callable
        Opens a path or URL.

    Raises
    ------
    TaskError
        If the file has no onsets, or which trial heard which recording is unknown.
    """

    def __init__(self, corpus: Artefact, files: ShippedFiles, open_file: OpenFile) -> None:
        self._path = files.stimulus_file
        self._shipped = read_shipped(files.stimulus_file, open_file)
        table = None if files.trials_file is None else read_trial_table(files.trials_file, open_file)
        if table is None:
            need_all_stimuli(corpus)
        pairs, _ = pair_trials(self._shipped.n_trials, recordings(corpus), table)
        self._feature = onset_feature(self._path, self._shipped)
        self._trials: dict[str, list[int]] = {}
        for number, stimulus in sorted(pairs.items()):
            self._trials.setdefault(stimulus.id, []).append(number)

    def of(self, recording: Recording, audio: npt.NDArray[np.floating], rate: int) -> Floats:
        """Impulses of height 1 at a recording's onsets.

        Parameters
        ----------
        recording : Recording
            One of the corpus.
        audio : ndarray, shape (n,)
            Its sound, mono at 44.1 kHz: its envelope is compared with the shipped one.
        rate : int
            Samples per second of the result.

        Returns
        -------
        ndarray of float64, shape (n * rate // 44100,)

        Raises
        ------
        TaskError
            If no trial heard it, trials that did have other onsets each, or our audio is not aligned with theirs.
        """
        trials = self._trials.get(recording.id)
        if not trials:
            raise TaskError(f"{self._path}: no trial heard {recording.id}, so its onsets are not known from there")
        series = [self._shipped.data[self._feature][number - 1] for number in trials]
        if any(not np.array_equal(series[0], other) for other in series[1:]):
            numbers = ", ".join(str(number) for number in trials)
            raise TaskError(f"{self._path}: trials {numbers} heard {recording.id}, but their onsets are not the same")
        begin_s = recording.start_sample / recording.sample_rate_hz
        self._check_aligned(recording, trials[0], audio, begin_s)
        times_s = np.flatnonzero(series[0]) / self._shipped.rate_hz - begin_s
        return impulses(times_s, np.ones(times_s.size), rate, n_eeg_samples(audio.size, rate))

    def _check_aligned(
        self, recording: Recording, number: int, audio: npt.NDArray[np.floating], begin_s: float
    ) -> None:
        rate = round(self._shipped.rate_hz)
        if rate != self._shipped.rate_hz:
            raise TaskError(f"{self._path}: stim.fs is {self._shipped.rate_hz:g} Hz: it must be a whole number")
        shipped = self._shipped.data[self._shipped.envelope][number - 1]
        if shipped.ndim != 1 or not np.isfinite(shipped).all():
            name = self._shipped.names[self._shipped.envelope]
            raise TaskError(
                f"{self._path}: its {name} is no series of numbers: nothing shows that onsets fit our audio"
            )
        heard = shipped[round(begin_s * rate) :]
        if wrong := compared(number, recording.id, envelope(audio, rate), heard, rate).misaligned(TOLERANCE_SAMPLES):
            raise TaskError(
                f"{recording.id}: onsets of {self._path} don't fit its audio: {wrong}; see orchestrator data check, or "
                "choose cnd.onsets: own"
            )


def onset_feature(path: str, shipped: Shipped) -> int:
    """Which feature holds onsets: the first whose name says so; without names the second, as the Bach set has it.

    Raises
    ------
    TaskError
        If there is none, or it isn't 0 nearly everywhere.
    """
    unnamed = all(name == f"feature {k + 1}" for k, name in enumerate(shipped.names))
    places = [k for k, name in enumerate(shipped.names) if "onset" in name.lower()]
    place = places[0] if places else 1 if unnamed and len(shipped.names) > 1 else None
    if place is None:
        raise TaskError(
            f"{path}: no feature is called onsets (it has: {', '.join(shipped.names)}); choose cnd.onsets: own"
        )
    for number, series in enumerate(shipped.data[place], 1):
        sparse = series.ndim == 1 and bool(np.isfinite(series).all()) and 0 < np.count_nonzero(series) < series.size / 2
        if not sparse:
            raise TaskError(
                f"{path}: {shipped.names[place]} of trial {number} is no series of onsets: mostly 0, some not"
            )
    return place
