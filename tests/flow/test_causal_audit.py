"""The audit finds an encoder that hears what is to come, and clears one that doesn't."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file
from tiny_flow import tiny_flow

import tasks.causal_audit
from tasks.audio.spectrum import n_latents
from tasks.causal_audit import COLUMNS, TAIL_FRAMES, encode_again, run
from tasks.config import SurprisalConfig
from tasks.contract import Artefact, Cell, Context, Stopped

HOP, OVERHANG = 4096, 1536
SECONDS = 12
LEAD = 5_000
Encode = Callable[[np.ndarray], np.ndarray]


def causal(audio: np.ndarray) -> np.ndarray:
    """64 means of the first 4096 samples of each frame: nothing of the next frame is in it."""
    frames = n_latents(len(audio))
    means = audio[: frames * HOP].reshape(frames, 64, 64).mean(2)
    return (20 * means).astype(np.float32)


def leaking(audio: np.ndarray) -> np.ndarray:
    """Half of that, and what the next frame holds."""
    own = causal(audio)
    ahead = np.concatenate([own[1:], np.zeros((1, 64), dtype=np.float32)])
    return 0.5 * own + ahead


def drifting(seed: int) -> np.ndarray:
    """Audio whose loudness and sign drift, so that frames tell of the next ones."""
    random = np.random.default_rng(seed)
    steps = random.standard_normal((SECONDS * 11, 64)) * 0.05
    for t in range(1, len(steps)):
        steps[t] += 0.8 * steps[t - 1]
    audio = np.repeat(steps, 64, axis=1).ravel()
    return np.clip(np.concatenate([np.zeros(LEAD), audio, np.zeros(OVERHANG + 700)]), -1, 1).astype(np.float32)


def corpus_of(folder: Path, audio: Mapping[str, np.ndarray]) -> Artefact:
    folder.mkdir()
    listed = []
    for name, samples in audio.items():
        soundfile.write(folder / f"{name}.flac", samples, 44_100, subtype="PCM_16")
        part = {"sample_rate_hz": 44_100, "start_sample": 0, "n_samples": len(samples), "path": None, "notes": None}
        about = {"piece": name, "cluster": None, "pcm_fingerprint": name, "within_recording": False}
        listed.append({"id": name, "file": f"{name}.flac", **part, **about})
    (folder / "corpus.json").write_text(json.dumps({"recordings": listed, "skipped": []}))
    return Artefact("corpus", "corpus", {}, {}, lambda name: (folder / name).open("rb"))


def centred(audio: np.ndarray) -> np.ndarray:
    """The causal ones, with zero mean over channels."""
    frames = causal(audio)
    return frames - frames.mean(1, keepdims=True)


class World:
    """Recordings, their latents by one encoder, and a flow trained on them."""

    def __init__(self, folder: Path, encode: Encode, project: bool = False) -> None:
        folder.mkdir()
        self.folder = folder
        self.corpus = corpus_of(folder / "corpus", {f"r{k}": drifting(k) for k in range(3)})
        latents, about = {}, {}
        for k in range(3):
            audio, _ = soundfile.read(folder / f"corpus/r{k}.flac", dtype="float32")
            latents[f"r{k}"] = encode(audio[LEAD:])
            about[f"r{k}"] = {"lead_samples": LEAD, "trail_samples": 0, "n_samples": len(audio)}
        save_file(latents, folder / "latents.safetensors")
        (folder / "latents.json").write_text(json.dumps(about))
        self.latents = Artefact("latents", "latents", {}, {}, lambda name: (folder / name).open("rb"))
        self.flow = tiny_flow(folder / "flow", self.latents, project=project)

    def cell(self, out_dir: Path, level: float, frames_per_recording: int = 24, seed: int = 0) -> Cell:
        out_dir.mkdir(parents=True)
        surprisal = SurprisalConfig(n_nodes=8, n_probes=4).cell(level)
        config = {"role": "melodies", "seed": seed, "surprisal": surprisal}
        config["audit"] = {"frames_per_recording": frames_per_recording}
        inputs = {"flow": self.flow, "autoencoder": self.flow, "latents": self.latents, "corpus": self.corpus}
        return Cell(f"audit {level}", "causal_audit", config, inputs, out_dir)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    root = tmp_path_factory.mktemp("audit")
    encoders = (causal, leaking, centred)
    return {encode.__name__: World(root / encode.__name__, encode, encode is centred) for encode in encoders}


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch, worlds: dict[str, World]) -> Callable[..., list[Mapping[str, Any]]]:
    """Runs cells of the world of one encoder, which stands in the place of the codec."""

    def metrics(encode: Encode, cells: list[Cell], context: Context | None = None) -> list[Mapping[str, Any]]:
        class Codec:
            def __init__(self) -> None:
                self.encode = encode

        monkeypatch.setattr(tasks.causal_audit, "load", lambda _: Codec())
        results = list(run(cells, context or Context()))
        assert [result.failure for result in results] == [None] * len(cells)
        return [result.metrics for result in results]

    return metrics


@pytest.mark.parametrize("encode", [causal, centred], ids=["64 channels", "63 coordinates"])
def test_a_causal_encoder_is_cleared(tmp_path: Path, worlds: dict[str, World], audit: Any, encode: Encode) -> None:
    levels = (0.0, 0.3, 0.9)
    world = worlds[encode.__name__]
    found = audit(encode, [world.cell(tmp_path / f"{level}", level) for level in levels])
    for metrics in found:
        assert metrics["spearman_mean"] == pytest.approx(1)
        assert metrics["change_mean"] == pytest.approx(0, abs=1e-3)
        assert metrics["control_spearman_mean"] == pytest.approx(1)
        assert metrics["control_change_mean"] == pytest.approx(0, abs=1e-3)
        assert (metrics["n_recordings"], metrics["n_frames"], metrics["n_skipped"]) == (3, 72, 0)
        assert metrics["ic_sd"] > 0


def test_an_encoder_that_hears_ahead_is_found(tmp_path: Path, worlds: dict[str, World], audit: Any) -> None:
    world = worlds["leaking"]
    low, high = audit(leaking, [world.cell(tmp_path / f"{level}", level) for level in (0.2, 0.6)])
    for metrics in (low, high):
        assert metrics["spearman_mean"] < 0.99
        assert metrics["change_mean"] > 1  # without what leaked, frames surprise more
        assert metrics["control_spearman_mean"] == pytest.approx(1)
        assert metrics["control_change_mean"] == pytest.approx(0, abs=1e-3)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "0.2/audit.csv").read_text())))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["role"], row["recording"], row["n_frames"]) for row in rows] == [
        ("melodies", f"r{k}", "24") for k in range(3)
    ]
    changes = [float(row["change_mean"]) for row in rows]
    assert np.mean(changes) == pytest.approx(low["change_mean"])
    assert np.std(changes, ddof=1) / np.sqrt(3) == pytest.approx(low["change_se"])


def test_a_level_alone_has_the_numbers_it_has_among_others(
    tmp_path: Path, worlds: dict[str, World], audit: Any
) -> None:
    world = worlds["leaking"]
    together = audit(leaking, [world.cell(tmp_path / f"a{level}", level) for level in (0.6, 0.2)])
    (alone,) = audit(leaking, [world.cell(tmp_path / "b", 0.2)])
    assert alone == together[1]
    assert (tmp_path / "b/audit.csv").read_bytes() == (tmp_path / "a0.2/audit.csv").read_bytes()
    (other,) = audit(leaking, [world.cell(tmp_path / "c", 0.2, seed=1)])
    assert other["change_mean"] != alone["change_mean"]


def test_all_noise_has_no_ranks_to_compare(tmp_path: Path, worlds: dict[str, World], audit: Any) -> None:
    (metrics,) = audit(leaking, [worlds["leaking"].cell(tmp_path / "out", 1.0)])
    assert metrics["spearman_mean"] is None
    assert metrics["change_mean"] == 0


def test_more_frames_than_there_are_means_all(tmp_path: Path, worlds: dict[str, World], audit: Any) -> None:
    world = worlds["causal"]
    (metrics,) = audit(causal, [world.cell(tmp_path / "out", 0.3, frames_per_recording=10_000)])
    lengths = [
        n_latents(entry["n_samples"] - LEAD)
        for entry in json.loads((world.folder / "latents.json").read_text()).values()
    ]
    assert metrics["n_frames"] == sum(lengths) - 3
    assert metrics["spearman_mean"] == pytest.approx(1)


def test_it_stops_when_asked(tmp_path: Path, worlds: dict[str, World], audit: Any) -> None:
    with pytest.raises(Stopped):
        audit(causal, [worlds["causal"].cell(tmp_path / "out", 0.3)], Context(should_stop=lambda: True))


@pytest.mark.parametrize("frame", [1, 5, 24, 40, 41, 90, 99])
def test_nothing_behind_the_cut_is_encoded(frame: int) -> None:
    audio = drifting(0)[: 100 * HOP + OVERHANG]
    spoiled = audio.copy()
    spoiled[frame * HOP :] = 0.9
    heard: list[int] = []

    def encode(samples: np.ndarray) -> np.ndarray:
        heard.append(len(samples))
        return leaking(samples)

    cut, control = encode_again(encode, audio, frame, 100)
    other_cut, other_control = encode_again(encode, spoiled, frame, 100)
    assert cut.shape == control.shape == (min(frame, TAIL_FRAMES), 64)
    assert np.array_equal(cut, other_cut)
    assert not np.array_equal(control, other_control)
    assert np.allclose(control, leaking(audio)[max(frame - TAIL_FRAMES, 0) : frame], atol=1e-6)
    assert max(heard) <= (TAIL_FRAMES + 2 * 16) * HOP + OVERHANG
