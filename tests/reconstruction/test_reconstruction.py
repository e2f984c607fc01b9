"""What survives latent noise: metrics, excerpts, floor, and the independence of cells."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tasks import reconstruction
from tasks.audio.config import DataSet, SplitConfig
from tasks.autoencoder import codec as codecs
from tasks.autoencoder.codec import Codec
from tasks.autoencoder.training import initial
from tasks.contract import Artefact, Cell, Context, Result

RATE_HZ = 44_100
CONFIG = {
    "seed": 0,
    "snr": 1.0,
    "metrics": ["si_sdr", "log_spectral_distance"],
    "excerpt_s": 0.5,
    "n_excerpts": 5,
    "n_draws": 2,
}


def chords(seed: int, seconds: float = 1.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tones = [np.sin(2 * np.pi * f * time + p) for f, p in rng.uniform((100, 0), (4000, 6), (5, 2))]
    return (0.1 * np.sum(tones, axis=0)).astype(np.float32)


def corpus(clusters: Mapping[str, int | None]) -> Artefact:
    files: dict[str, bytes] = {}
    listed = []
    for number, (name, cluster) in enumerate(clusters.items()):
        stream = io.BytesIO()
        soundfile.write(stream, chords(number), RATE_HZ, format="FLAC", subtype="PCM_16")
        files[f"{name}.flac"] = stream.getvalue()
        part = {"id": name, "piece": name, "cluster": cluster, "file": f"{name}.flac", "path": None, "notes": None}
        samples = {"sample_rate_hz": RATE_HZ, "start_sample": 0, "n_samples": len(chords(number))}
        listed.append(part | samples | {"pcm_fingerprint": name, "within_recording": False})
    files["corpus.json"] = json.dumps({"recordings": listed, "skipped": []}).encode()
    config = {"role": "reconstruction", "dataset": DataSet(source="chorales").model_dump(mode="json")}
    config |= {"seed": 0, "split": SplitConfig().model_dump(mode="json"), "files": []}
    return Artefact("corpus", "corpus", config, {}, lambda name: io.BytesIO(files[name]))


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("codec")
    Codec(initial("tiny", "layernorm", 0), "tiny", "layernorm", 0.0, 1.0).save(folder)
    return Artefact("codec", "autoencoder", {}, {}, lambda name: (folder / name).open("rb"))


@pytest.fixture(scope="module")
def three() -> Artefact:
    return corpus({"a": 0, "b": 0, "c": 1})


def cell(folder: Path, autoencoder: Artefact, heard: Artefact, **changed: object) -> Cell:
    folder.mkdir(parents=True)
    config = CONFIG | changed
    inputs = {"autoencoder": autoencoder, "corpus": heard}
    return Cell(f"snr-{config['snr']}", "reconstruction", config, inputs, folder)


def test_equal_signals_are_at_no_distance() -> None:
    audio = chords(0)
    assert reconstruction.log_spectral_distance(audio, audio) == 0
    assert reconstruction.si_sdr(audio, audio) > 100


def test_distance_of_a_gain_is_the_gain() -> None:
    audio = np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)
    assert reconstruction.log_spectral_distance(audio, audio / 10) == pytest.approx(20.0, abs=0.01)
    assert reconstruction.si_sdr(audio, audio / 10) > 100


def test_si_sdr_of_known_noise_without_removal_of_means() -> None:
    rng = np.random.default_rng(0)
    audio, noise = rng.standard_normal((2, RATE_HZ)).astype(np.float32)
    noise -= np.float32(audio @ noise / (audio @ audio)) * audio
    noise *= np.float32(math.sqrt(float(audio @ audio) / float(noise @ noise) / 10))
    assert reconstruction.si_sdr(audio, audio + noise) == pytest.approx(10.0, abs=0.01)
    offset = np.ones(RATE_HZ, dtype=np.float32)
    assert reconstruction.si_sdr(offset, offset) > 100


def test_decoder_is_given_the_mixture_and_its_rescaling() -> None:
    inputs = reconstruction.noised_inputs(4.0)
    assert inputs["mixture"] == pytest.approx((2 / 3, 1 / 3))
    assert (inputs["mixture"][0] / inputs["mixture"][1]) ** 2 == pytest.approx(4.0)
    assert math.hypot(*inputs["rescaled"]) == pytest.approx(1.0)
    assert reconstruction.noised_inputs(math.inf) == {"clean": (1.0, 0.0)}


def test_excerpts_are_spread_and_do_not_overlap(three: Artefact) -> None:
    config = reconstruction.StageConfig.model_validate(CONFIG)
    excerpts = reconstruction.choose_excerpts(three, config, Context())
    assert len(excerpts) == 5
    assert {e.recording.id for e in excerpts[:3]} == {"a", "b", "c"}
    assert len({e.id for e in excerpts}) == 5
    for excerpt in excerpts:
        start = excerpt.number * len(excerpt.audio)
        whole = chords("abc".index(excerpt.recording.id))
        assert np.allclose(excerpt.audio, whole[start : start + len(excerpt.audio)], atol=1e-4)


def scores(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "scores.csv").open()))


def run(*cells: Cell) -> list[Result]:
    results = list(reconstruction.run(cells, Context()))
    assert [result.failure for result in results] == [None] * len(cells)
    return results


def test_one_cell_alone_gives_what_it_gives_in_a_group(autoencoder: Artefact, three: Artefact, tmp_path: Path) -> None:
    alone = cell(tmp_path / "alone", autoencoder, three)
    grouped = [cell(tmp_path / f"{snr}", autoencoder, three, snr=snr) for snr in ("inf", 1.0)]
    (one,), (clean, same) = run(alone), run(*grouped)
    assert one == same
    assert (tmp_path / "alone/scores.csv").read_bytes() == (tmp_path / "1.0/scores.csv").read_bytes()
    assert clean.metrics["si_sdr_input"] == "clean"
    assert one.metrics["si_sdr_floor_mean"] == clean.metrics["si_sdr_floor_mean"]
    assert one.metrics["n_excerpts"] == 5


def test_a_perfect_decoder_scores_perfectly_and_its_floor_is_another_recording(
    autoencoder: Artefact, three: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A codec whose latents are the audio itself: clean is perfect, the floor is what another recording sounds like."""

    class Perfect:
        def encode(self, audio: np.ndarray) -> np.ndarray:
            frames = (len(audio) - 1536) // 4096
            last = np.tile(audio[-1536:], (frames, 1))
            return np.concatenate([audio[: frames * 4096].reshape(frames, 4096), last], 1)

        def decode(self, latents: np.ndarray, seed: int) -> np.ndarray:
            assert seed >= 0
            return np.concatenate([latents[:, :4096].ravel(), latents[-1, 4096:]]).astype(np.float32)

    monkeypatch.setattr(codecs, "load", lambda _: Perfect())
    (clean,) = run(cell(tmp_path / "clean", autoencoder, three, snr="inf"))
    assert clean.metrics["log_spectral_distance_mean"] == 0
    assert clean.metrics["log_spectral_distance_floor_mean"] > 10
    assert clean.metrics["si_sdr_mean"] > 100
    assert clean.metrics["si_sdr_floor_mean"] < -10
    (noisy,) = run(cell(tmp_path / "noisy", autoencoder, three, snr=1.0))
    assert noisy.metrics["si_sdr_mean"] < clean.metrics["si_sdr_mean"]


def test_rows_name_recording_cluster_and_excerpt(autoencoder: Artefact, three: Artefact, tmp_path: Path) -> None:
    (result,) = run(cell(tmp_path / "rows", autoencoder, three))
    rows = scores(tmp_path / "rows")
    assert {(row["recording"], row["cluster"]) for row in rows} == {("a", "0"), ("b", "0"), ("c", "1")}
    mean = np.mean([float(row["si_sdr"]) for row in rows])
    assert mean == pytest.approx(result.metrics["si_sdr_mean"])


def test_error_counts_families_not_excerpts() -> None:
    values = np.repeat([1.0, 2.0, 4.0, 7.0], 5)
    families = np.repeat(["a", "b", "c", "d"], 5).tolist()
    expected = np.std([1.0, 2.0, 4.0, 7.0], ddof=1) / 2
    assert reconstruction.clustered_error(values, families) == pytest.approx(expected)
    assert reconstruction.clustered_error(values, ["a"] * 20) is None


def test_a_score_differs_from_its_floor_by_two_errors_of_the_paired_difference() -> None:
    families = ["a", "b", "c", "d"]
    spread = np.array([-1.0, 1.0, -1.0, 1.0])  # standard error of the mean: 1 / sqrt(3)
    edge = 2 / math.sqrt(3)
    assert reconstruction.differs(spread + edge + 0.01, families) is True
    assert reconstruction.differs(spread - edge - 0.01, families) is True
    assert reconstruction.differs(spread + edge - 0.01, families) is False
    assert reconstruction.differs(np.zeros(4), families) is False
    assert reconstruction.differs(np.repeat(spread + edge - 0.01, 100), np.repeat(families, 100).tolist()) is False
    assert reconstruction.differs(spread + 9, ["a"] * 4) is None


def test_a_score_above_its_floor_is_told_from_one_at_it(
    autoencoder: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excerpts that differ by tens of dB, and scores that are a little above the floor of each, or not."""
    four = corpus({"a": 0, "b": 1, "c": 2, "d": 3})
    gain = {"si_sdr": 1.0, "log_spectral_distance": 0.0}

    def scored(codec: Codec, excerpt: reconstruction.Excerpt, *given: object) -> dict[str, float]:
        level, sign = 20.0 * "abcd".index(excerpt.recording.id), 1 if excerpt.number else -1
        at_floor = given[1] == (1.0, 0.0)
        return {metric: level if at_floor else level + sign * 0.1 + by for metric, by in gain.items()}

    monkeypatch.setattr(reconstruction, "_mean_score", scored)
    (result,) = run(cell(tmp_path / "scored", autoencoder, four, n_excerpts=8))
    assert result.metrics["si_sdr_above_floor"] is True
    assert result.metrics["log_spectral_distance_above_floor"] is False
    assert result.metrics["si_sdr_se"] > 5


def test_a_single_recording_is_refused(autoencoder: Artefact, tmp_path: Path) -> None:
    alone = cell(tmp_path / "one", autoencoder, corpus({"a": None}))
    (result,) = reconstruction.run([alone], Context())
    assert result.failure is not None
    assert "at least 2" in result.failure


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
