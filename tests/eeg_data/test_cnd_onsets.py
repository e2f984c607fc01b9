"""Onsets that a CND data set ships: taken where our audio is aligned with theirs, by those who answer to them too."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from eeg_material import DURATIONS_S, MakeCell, notes_of, sound_of
from safetensors.numpy import load_file
from test_eeg_cnd import ORDER, cells, open_file

from tasks.audio.recording import recordings
from tasks.contract import Artefact, Context, TaskError
from tasks.eeg.features import envelope, run
from tasks.eeg.shipped_onsets import ShippedOnsets
from tasks.eeg.source_config import ShippedFiles

FS = 64


@cache
def loudness_of(name: str) -> np.ndarray:
    return envelope(sound_of(name), FS)


def shipped(folder: Path, names: list[str], change: Callable[[np.ndarray], None] | None = None, moved: int = 0) -> str:
    """Envelope, onsets at the notes, and onsets times pitch; each piece was heard twice."""
    data = np.empty((3, 2 * len(ORDER)), dtype=object)
    for column, name in enumerate(ORDER * 2):
        loudness = loudness_of(name)
        onsets = np.zeros(loudness.size)
        for onset_s, _, pitch in notes_of(name):
            onsets[round(onset_s * FS)] = pitch
        data[:, column] = [np.roll(loudness, moved)[:, None], (onsets > 0)[:, None] * 1.0, onsets[:, None]]
    if change is not None:
        change(data)
    path = folder / "dataStim.mat"
    scipy.io.savemat(path, {"stim": {"fs": float(FS), "data": data, **({"names": cells(names)} if names else {})}})
    return str(path)


def test_shipped_onsets_stand_where_the_notes_begin(
    tmp_path: Path, silent_corpus: Artefact, make_cell: MakeCell
) -> None:
    config = {"sample_rate_hz": 128, "shipped": {"stimulus_file": shipped(tmp_path, [])}}
    cell = make_cell("features", "features", config, corpus=silent_corpus)
    (result,) = run([cell], Context())
    assert result.failure is None
    arrays = load_file(cell.out_dir / "features.safetensors")
    for name in DURATIONS_S:
        expected = np.zeros(int(DURATIONS_S[name] * 44_100) * 128 // 44_100)
        expected[[2 * round(onset_s * FS) for onset_s, _, _ in notes_of(name)]] = 1.0
        np.testing.assert_array_equal(arrays[f"{name}/onsets"][:, 0], expected)


def other_repetition(data: np.ndarray) -> None:
    data[1, 3] = np.roll(data[1, 3], 1)


def no_onsets(data: np.ndarray) -> None:
    data[1, 4] = data[0, 4]


@pytest.mark.parametrize(
    ("names", "change", "moved", "sentence"),
    [
        (["Envelope", "Rise", "Pitch"], None, 0, "no feature is called onsets (it has: Envelope, Rise, Pitch)"),
        ([], None, 3, "don't fit its audio: our audio is 3 samples early; see orchestrator data check"),
        ([], other_repetition, 0, "trials 1, 4 heard audio1, but their onsets are not the same"),
        (["Envelope", "Note onsets", "Pitch"], no_onsets, 0, "Note onsets of trial 5 is no series of onsets"),
    ],
)
def test_onsets_that_cannot_be_relied_on_are_refused(
    tmp_path: Path, silent_corpus: Artefact, names: list[str], change: Any, moved: int, sentence: str
) -> None:
    files = ShippedFiles(stimulus_file=shipped(tmp_path, names, change, moved))
    with pytest.raises(TaskError) as caught:
        ShippedOnsets(silent_corpus, files, open_file).of(recordings(silent_corpus)[0], sound_of("audio1"), 64)
    assert sentence in str(caught.value)
