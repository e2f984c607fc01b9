"""The EEG half of a small study: what comes before it is made up and lies in the ledger, all of EEG is to do."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import soundfile
from made_up_study import RealLedger
from safetensors.numpy import save
from tiny_study import DEMO, SMALL, named

from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger
from orchestrator.opening import open_study

EEG_STAGES = ("features", "eeg", "trf", "permutations", "group", "canaries")
RATE_HZ, FRAME = 44_100, 4096
PIECES_S = {"one": 8.5, "two": 9.0, "three": 9.5, "four": 8.0}
FEW = (
    *SMALL,
    "eeg.simulation.n_subjects=2",
    "eeg.trf={lag_min_s: 0.0, lag_max_s: 0.2, lambdas: [1e-2, 1e-1]}",
    "eeg.trf.models=[{reduced: acoustic_plus, regressor: onset, tested: true}]",
    "eeg.permutations={n: 24, block: 12}",
    "eeg.canaries={noise_level: 0.4, n_noise_channels: 20, n_acoustic_listeners: 10}",
)


def heard_study(folder: Path) -> tuple[Graph, Ledger]:
    """The cells of EEG and those that they read, the latter finished in a ledger in `folder`."""
    study = open_study(DEMO, FEW, str(folder))
    wanted = {cell.signature for cell in study.graph if cell.stage in EEG_STAGES}
    read = {parent for signature in wanted for parent in study.graph.cells[signature].parents} - wanted
    ledger = RealLedger(study.ledger.storage)
    notes = {name: _notes(name) for name in PIECES_S}
    ledger.finish(named(study, "corpus stimuli"), _corpus(notes), {"n_recordings": len(notes)})
    bits = {name: _random(name, "bits").gamma(2.0, 1.3, len(own)).tolist() for name, own in notes.items()}
    ledger.finish(
        named(study, "pitch surprisal stimuli"), {"surprisal.json": json.dumps(bits).encode()}, {"n_notes": 1}
    )
    for cell in (study.graph.cells[signature] for signature in read):
        if cell.stage == "surprisal":
            ledger.finish(cell, _ic(float(cell.labels["noise_level"])), {"ic_mean": 50.0})
    cells = {cell.signature: cell for cell in study.graph if cell.signature in wanted | read}
    return Graph({signature: _alone(cell, cells) for signature, cell in cells.items()}), study.ledger


def _alone(cell: CellSpec, cells: dict[str, CellSpec]) -> CellSpec:
    """The cell as planned; what made the made-up ones is no part of this graph."""
    kept = {role: value for role, value in cell.inputs.items() if cell.stage in EEG_STAGES}
    return CellSpec(cell.stage, cell.name, cell.config, kept, cell.signature, cell.labels)


def _random(name: str, what: str) -> np.random.Generator:
    return np.random.default_rng([*name.encode(), *what.encode()])


def _notes(name: str) -> list[list[float]]:
    random = _random(name, "notes")
    onsets = np.cumsum(random.uniform(0.2, 0.5, 40))
    return [[float(onset), 0.2, int(random.integers(60, 80))] for onset in onsets if onset < PIECES_S[name] - 0.4]


def _corpus(notes: dict[str, list[list[float]]]) -> dict[str, bytes]:
    files, listed = {}, []
    for name, own in notes.items():
        audio = np.zeros(round(PIECES_S[name] * RATE_HZ))
        for onset, length, pitch in own:
            start, t = round(onset * RATE_HZ), np.arange(round(length * RATE_HZ)) / RATE_HZ
            audio[start : start + t.size] += (
                0.2 * np.exp(-t / 0.1) * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t)
            )
        stream = io.BytesIO()
        soundfile.write(stream, audio, RATE_HZ, format="FLAC", subtype="PCM_16")
        files[f"{name}.flac"] = stream.getvalue()
        about = {"id": name, "piece": name, "cluster": None, "file": f"{name}.flac", "path": None, "start_sample": 0}
        about |= {"sample_rate_hz": RATE_HZ, "n_samples": audio.size, "pcm_fingerprint": "0", "within_recording": False}
        listed.append({**about, "notes": own})
    return {**files, "corpus.json": json.dumps({"recordings": listed, "skipped": []}).encode()}


def _ic(noise_level: float) -> dict[str, bytes]:
    values, about = {}, {}
    for name, seconds in PIECES_S.items():
        n_samples = round(seconds * RATE_HZ)
        values[name] = _random(name, f"ic {noise_level}").normal(50.0, 9.0, n_samples // FRAME)
        values[name][0] = np.nan
        about[name] = {"lead_samples": 0, "trail_samples": 0, "n_frames": len(values[name]), "n_samples": n_samples}
    table = {"noise_level": noise_level, "unit": "nats", "sample_rate_hz": RATE_HZ, "frame_samples": FRAME}
    table |= {"stamp": "start of the frame", "recordings": about}
    return {"ic.safetensors": save(values), "ic.json": json.dumps(table).encode()}
