"""A small corpus of rendered notes, and cells on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from eeg_material import DURATIONS_S, RATE, MakeCell, artefact, entry, notes_of, sound_of
from safetensors.numpy import save_file

from tasks.contract import Artefact, Cell
from tasks.seeds import numpy_stream


@pytest.fixture(scope="session")
def stimuli_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for name in DURATIONS_S:
        soundfile.write(folder / f"{name}.flac", sound_of(name), RATE, format="FLAC", subtype="PCM_16")
    content = {"recordings": [entry(name, notes_of(name)) for name in DURATIONS_S], "skipped": []}
    (folder / "corpus.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def corpus(stimuli_dir: Path) -> Artefact:
    return artefact("corpus", stimuli_dir, {"dataset": {"excerpt_s": None, "split_by": "tune"}})


@pytest.fixture(scope="session")
def silent_corpus(stimuli_dir: Path) -> Artefact:
    """The same sound, with the notes unknown."""
    content = {"recordings": [entry(name, None) for name in DURATIONS_S], "skipped": []}
    (stimuli_dir / "silent.json").write_text(json.dumps(content))
    names = {"corpus.json": "silent.json"}
    return Artefact("silent", "corpus", {}, {}, lambda name: (stimuli_dir / names.get(name, name)).open("rb"))


@pytest.fixture(scope="session")
def pitch_surprisal(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("pitch_surprisal")
    bits = {n: numpy_stream("bits", n).gamma(2.0, 1.3, len(notes_of(n))).tolist() for n in DURATIONS_S}
    (folder / "surprisal.json").write_text(json.dumps(bits))
    return artefact("pitch_surprisal", folder)


@pytest.fixture(scope="session")
def surprisal(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("surprisal")
    frames = {name: int(seconds * RATE - 1536) // 4096 for name, seconds in DURATIONS_S.items()}
    ic = {name: numpy_stream("ic", name).normal(50, 9, n) for name, n in frames.items()}
    for values in ic.values():
        values[0] = np.nan
    save_file(ic, folder / "ic.safetensors")
    about = {"lead_samples": 0, "trail_samples": 0}
    recordings = {n: {**about, "n_frames": frames[n], "n_samples": int(DURATIONS_S[n] * RATE)} for n in frames}
    content = {
        "noise_level": 0.4,
        "unit": "nats",
        "sample_rate_hz": RATE,
        "frame_samples": 4096,
        "stamp": "start of the frame",
        "recordings": recordings,
    }
    (folder / "ic.json").write_text(json.dumps(content))
    return artefact("surprisal", folder)


@pytest.fixture
def make_cell(tmp_path: Path) -> MakeCell:
    def make(name: str, stage: str, config: dict[str, Any], **inputs: Artefact) -> Cell:
        out_dir = tmp_path / "cells" / name
        out_dir.mkdir(parents=True)
        return Cell(name, stage, config, inputs, out_dir)

    return make
