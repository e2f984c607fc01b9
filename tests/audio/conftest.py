"""Made melodies, made audio files, and finished cells to read them from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

from tasks.contract import Artefact, Cell, Context, Input, Result

MakeFile = Callable[..., dict[str, Any]]
RunCell = Callable[..., tuple[Result, Artefact]]


@pytest.fixture
def run_cell(tmp_path: Path) -> RunCell:
    """Runs one cell of a stage; gives its result and, as the stages after it see it, its artefact."""
    count = 0

    def run(
        entry: Any, config: Mapping[str, Any], inputs: Mapping[str, Input] | None = None
    ) -> tuple[Result, Artefact]:
        nonlocal count
        count += 1
        out_dir = tmp_path / f"out{count}"
        out_dir.mkdir()
        cell = Cell(f"cell{count}", "stage", config, inputs or {}, out_dir)
        (result,) = entry([cell], Context())
        opener = lambda name: (out_dir / name).open("rb")  # noqa: E731
        return result, Artefact(cell.signature, "stage", config, result.metrics, opener)

    return run


@pytest.fixture
def source_file() -> Callable[[Path], dict[str, Any]]:
    """The entry of a file in a cell's config."""
    return lambda path: {"path": str(path), "size": path.stat().st_size, "version": "1"}


@pytest.fixture
def audio_file(tmp_path: Path, source_file: Callable[[Path], dict[str, Any]]) -> MakeFile:
    """Writes noise (or given samples) as an audio file and gives its entry for a cell's config."""

    def make(name: str, seconds: float = 3.0, rate: int = 44_100, channels: int = 2, **options: Any) -> dict[str, Any]:
        folder = tmp_path / "audio"
        folder.mkdir(exist_ok=True)
        samples = options.get("samples")
        if samples is None:
            rng = np.random.default_rng(options.get("seed", sum(name.encode())))
            samples = 0.1 * rng.standard_normal((round(seconds * rate), channels)).clip(-5, 5)
        path = folder / name
        if options.get("subtype") is None:
            samples = np.round(np.asarray(samples) * 32_767).astype(np.int16)
        soundfile.write(path, samples, rate, subtype=options.get("subtype"))
        return source_file(path)

    return make


@pytest.fixture
def midi_file(tmp_path: Path, source_file: Callable[[Path], dict[str, Any]]) -> MakeFile:
    """Writes messages as a MIDI file of 480 ticks per quarter note and gives its entry for a cell's config."""

    def make(name: str, *tracks: Sequence[mido.Message]) -> dict[str, Any]:
        folder = tmp_path / "midi"
        folder.mkdir(exist_ok=True)
        midi = mido.MidiFile(ticks_per_beat=480)
        midi.tracks.extend(mido.MidiTrack(track) for track in tracks)
        midi.save(folder / name)
        return source_file(folder / name)

    return make


@pytest.fixture
def tunes(tmp_path: Path) -> Artefact:
    """Six tunes of five clusters: two related ones for training, one for dev, three (two of them related) for test."""
    rng = np.random.default_rng(0)
    listed = []
    for number, (cluster, split) in enumerate(
        [(0, "train"), (0, "train"), (1, "dev"), (2, "test"), (2, "test"), (3, "test")]
    ):
        pitches = rng.integers(60, 80, size=8).tolist()
        notes = [[0.5 * i, 0.5, pitch] for i, pitch in enumerate(pitches)]
        listed.append({"id": f"t{number}", "title": "made", "cluster": cluster, "split": split, "time_unit": "quarter"})
        listed[-1]["notes"] = notes
    path = tmp_path / "tunes.json"
    path.write_text(json.dumps({"tunes": listed, "skipped": []}))
    return Artefact("tunes", "tunes", {}, {}, lambda name: (tmp_path / name).open("rb"))
