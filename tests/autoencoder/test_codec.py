"""Encoding, decoding, silence, and the stage ``latents``."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers_autoencoder import RATE_HZ, corpus, melody
from safetensors.numpy import load as load_arrays

from tasks.autoencoder import codec
from tasks.contract import Artefact, Cell, Context, TaskError


@pytest.mark.parametrize("samples", [5632, 9727, 9728, 34_304, 50_001])
def test_number_of_latents_and_of_decoded_samples(base: Artefact, samples: int) -> None:
    loaded = codec.load(base)
    latents = loaded.encode(melody(0, 1.25)[:samples])
    frames = (samples - 1536) // 4096
    assert latents.shape == (frames, 64)
    assert latents.dtype == np.float32
    assert loaded.decode(latents, 0).shape == (4096 * frames + 1536,)


def test_latents_are_standardised(base: Artefact, tanh_base: Artefact) -> None:
    audio = np.concatenate([melody(k, 2.0) for k in range(3)])
    assert codec.load(base).encode(audio).std(axis=1) == pytest.approx(1.0, abs=1e-3)
    assert codec.load(tanh_base).encode(audio).std() == pytest.approx(1.0, abs=0.25)


def test_decoder_noise_comes_from_the_seed(base: Artefact) -> None:
    loaded = codec.load(base)
    latents = loaded.encode(melody(0, 1.0))
    assert np.array_equal(loaded.decode(latents, 3), loaded.decode(latents, 3))
    assert not np.array_equal(loaded.decode(latents, 3), loaded.decode(latents, 4))


def test_long_audio_is_encoded_in_pieces_that_nearly_meet(base: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, audio = codec.load(base), melody(0, 6.0)
    whole = loaded.encode(audio)
    monkeypatch.setattr(codec, "CHUNK_FRAMES", 33)
    pieces = loaded.encode(audio)
    assert pieces.shape == whole.shape
    assert np.corrcoef(pieces.ravel(), whole.ravel())[0, 1] > 0.95
    assert loaded.decode(pieces, 0).shape == loaded.decode(whole, 0).shape


@pytest.mark.parametrize(("audio", "named"), [(np.zeros(5631), "too short"), (np.full(9000, np.nan), "not finite")])
def test_audio_that_cannot_be_encoded_is_refused(base: Artefact, audio: np.ndarray, named: str) -> None:
    with pytest.raises(TaskError, match=named):
        codec.load(base).encode(audio.astype(np.float32))


def test_silence_is_found_to_the_window() -> None:
    tone = np.sin(np.arange(RATE_HZ) / 10).astype(np.float32)
    lead, trail = codec.silence(
        np.concatenate([np.zeros(10_000), 1e-5 * tone, tone, np.zeros(20_000)]).astype(np.float32)
    )
    assert 10_000 + RATE_HZ - 2048 - 512 < lead <= 10_000 + RATE_HZ
    assert 20_000 - 2048 <= trail <= 20_000
    assert codec.silence(tone) == (0, 0)


def test_latents_of_a_corpus(base: Artefact, tmp_path: Path) -> None:
    quiet = np.zeros(30_000, dtype=np.float32)
    notes = corpus(
        "melodies",
        {"first": melody(7, 1.0), "late": np.concatenate([quiet, melody(8, 1.0), quiet]), "none": quiet},
    )
    cell = Cell("latents", "latents", {"role": "melodies"}, {"autoencoder": base, "corpus": notes}, tmp_path)
    (result,) = codec.run([cell], Context())
    latents = load_arrays((tmp_path / "latents.safetensors").read_bytes())
    spans = json.loads((tmp_path / "latents.json").read_text())
    assert set(latents) == set(spans) == {"first", "late"}
    assert result.metrics["skipped"] == ["none: the recording is silent"]
    assert result.metrics["n_frames"] == sum(len(frames) for frames in latents.values())
    for name, span in spans.items():
        kept = span["n_samples"] - span["lead_samples"] - span["trail_samples"]
        assert span["n_frames"] == len(latents[name]) == (kept - 1536) // 4096
    assert spans["late"]["lead_samples"] > 27_000
    assert np.array_equal(latents["first"], codec.load(base).encode(melody_as_stored(7)))


def melody_as_stored(seed: int) -> np.ndarray:
    """What 16 bits keep of a melody, without the silence that `codec.silence` finds."""
    audio = (np.round(melody(seed, 1.0) * 32768) / 32768).astype(np.float32)
    lead, trail = codec.silence(audio)
    return audio[lead : len(audio) - trail]


def test_a_corpus_of_silence_fails_by_name(base: Artefact, tmp_path: Path) -> None:
    silent = corpus("melodies", {"nothing": np.zeros(RATE_HZ, dtype=np.float32)})
    cell = Cell("latents", "latents", {"role": "melodies"}, {"autoencoder": base, "corpus": silent}, tmp_path)
    (result,) = codec.run([cell], Context())
    assert result.failure is not None
    assert "nothing: the recording is silent" in result.failure


def test_a_corpus_whose_file_changed_fails_instead_of_going_on_without_it(base: Artefact, tmp_path: Path) -> None:
    made = corpus("stimuli", {"a": melody(0, 1.0), "b": melody(1, 1.0)})
    listed = json.loads(made.read_bytes("corpus.json"))
    outside = tmp_path / "b.flac"
    outside.write_bytes(made.read_bytes("b.flac"))
    listed["recordings"][1] |= {"file": None, "path": str(outside), "pcm_fingerprint": "of what it was"}
    files = {"a.flac": made.read_bytes("a.flac"), "corpus.json": json.dumps(listed).encode()}
    changed = Artefact("changed", "corpus", made.config, {}, lambda name: io.BytesIO(files[name]))
    (tmp_path / "out").mkdir()
    cell = Cell("latents", "latents", {}, {"autoencoder": base, "corpus": changed}, tmp_path / "out")
    (result,) = codec.run([cell], Context())
    assert f"{outside}: its audio changed" in (result.failure or "")
    assert not list((tmp_path / "out").iterdir())
