"""The loss in parts, at every noise level, in other numbers; and latents that are never all in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tasks.contract import Artefact
from tasks.flow import loss
from tasks.flow.crops import Crops, pad, read_latents
from tasks.flow.loss import LEVELS, Draw, flow_loss, step_loss, validation_losses
from tasks.flow.network import Flow, new_flow

Latents = dict[str, np.ndarray]
CPU = torch.device("cpu")


@pytest.fixture
def draw(latents: Latents) -> Draw:
    """Crops of 9, 32, 40 and 9 frames."""
    random = torch.Generator().manual_seed(3)
    batch = pad([latents["b"], latents["c"][:32], latents["a"], latents["b"]], 48)
    tau, noise = torch.rand(4, 4, generator=random), torch.randn(4, 4, 47, 64, generator=random)
    return Draw(batch, tau, noise, torch.rand(4, 47, generator=random) < 0.2)


def gradients(flow: Flow) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in flow.parameters() if parameter.grad is not None])


def test_a_step_in_parts_has_the_loss_and_gradients_of_the_whole(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = new_flow("tiny", seed=0, null_context=True).eval()
    whole = step_loss(flow, draw, CPU, torch.float32)
    wanted = gradients(flow).clone()
    flow.zero_grad()
    monkeypatch.setitem(loss.MOST_FRAMES, "cpu", 70)
    assert step_loss(flow, draw, CPU, torch.float32) == pytest.approx(whole, rel=1e-5)
    assert torch.allclose(gradients(flow), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_parts_hold_every_crop_once_without_more_padding_than_they_need(draw: Draw) -> None:
    assert [part.batch.mask.shape for part in draw.parts(4 * 48)] == [(4, 48)]
    parts = list(draw.parts(70))
    assert [tuple(part.batch.mask.shape) for part in parts] == [(1, 40), (2, 32), (1, 9)]
    assert [part.n_targets for part in parts] == [39, 31 + 8, 8]
    first = parts[0]
    assert torch.equal(first.batch.frames[0], draw.batch.frames[2, :40])
    assert torch.equal(first.noise[:, 0], draw.noise[:, 2, :39])
    assert torch.equal(first.tau[:, 0], draw.tau[:, 2])
    assert first.dropped is not None
    assert draw.dropped is not None
    assert torch.equal(first.dropped[0], draw.dropped[2, :39])
    assert [tuple(part.batch.mask.shape) for part in draw.parts(1)] == [(1, 40), (1, 32), (1, 9), (1, 9)]


def test_validation_is_told_at_every_noise_level(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = new_flow("tiny", seed=0, null_context=True).eval()
    plain = Draw(draw.batch, draw.tau, draw.noise)
    losses = validation_losses(flow, [plain], CPU)
    with torch.no_grad():
        assert losses["validation_loss"] == pytest.approx(float(flow_loss(flow, plain.batch, plain.tau, plain.noise)))
        for level in (0.0, 0.3, 0.9):
            tau = torch.full((1, 4), 1 - level)
            wanted = float(flow_loss(flow, plain.batch, tau, plain.noise[:1]))
            assert losses[f"validation_loss_s{level}"] == pytest.approx(wanted)
        everywhere = torch.ones(4, 47, dtype=torch.bool)
        hidden = flow_loss(flow, plain.batch, plain.tau, plain.noise, everywhere)
        assert losses["validation_loss_null"] == pytest.approx(float(hidden))
    assert len({losses[f"validation_loss_s{level}"] for level in LEVELS}) == 10
    monkeypatch.setitem(loss.MOST_FRAMES, "cpu", 70)
    assert validation_losses(flow, [plain], CPU) == pytest.approx(losses, rel=1e-5)
    assert "validation_loss_null" not in validation_losses(new_flow("tiny", seed=0), [plain], CPU)


def test_bfloat16_is_close_and_leaves_the_weights_float32(draw: Draw) -> None:
    flow = new_flow("tiny", seed=0, null_context=True).eval()
    exact = step_loss(flow, draw, CPU, torch.float32)
    wanted = gradients(flow).clone()
    flow.zero_grad()
    rough = step_loss(flow, draw, CPU, torch.bfloat16)
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.01)
    assert gradients(flow).dtype == torch.float32
    assert float(torch.cosine_similarity(gradients(flow), wanted, dim=0)) > 0.99


class Counting:
    """A file that remembers how much was read of it at once."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.largest, self.total = stream, 0, 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "the whole file was asked for"
        self.largest, self.total = max(self.largest, size), self.total + size
        return self.stream.read(size)

    def seek(self, place: int) -> int:
        return self.stream.seek(place)

    def close(self) -> None:
        self.stream.close()


def corpus_of(folder: Path, n_recordings: int) -> Artefact:
    random = np.random.default_rng(0)
    save_file(
        {f"r{k:03}": random.standard_normal((3_000, 64)).astype(np.float32) for k in range(n_recordings)},
        folder / "latents.safetensors",
    )
    return Artefact("many", "latents", {}, {}, lambda name: (folder / name).open("rb"))


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    peaks = {}
    for n_recordings in (2, 40):  # 1.5 and 31 MB
        (tmp_path / str(n_recordings)).mkdir()
        corpus = corpus_of(tmp_path / str(n_recordings), n_recordings)
        tracemalloc.start()
        latents, _ = read_latents(corpus)
        crops = Crops(latents, sequence_frames=100, batch_size=4, seed=0)
        for step in range(20):
            crops.batch(step)
        peaks[n_recordings] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[40] < peaks[2] + 200_000
    assert peaks[40] < 4_000_000


def test_a_step_reads_its_crops_alone(tmp_path: Path) -> None:
    folder_artefact = corpus_of(tmp_path, 10)
    opened: list[Any] = []

    def open_counting(name: str) -> Any:
        opened.append(Counting(folder_artefact.open(name)))
        return opened[-1]

    latents, skipped = read_latents(Artefact("many", "latents", {}, {}, open_counting))
    assert (len(latents), skipped) == (10, [])
    assert opened[0].largest == 3_000 * 64 * 4  # one recording at a time, to see whether it is whole
    opened[0].largest = opened[0].total = 0
    batch = Crops(latents, sequence_frames=100, batch_size=4, seed=0).batch(7)
    assert (opened[0].largest, opened[0].total) == (100 * 64 * 4, 4 * 100 * 64 * 4)
    assert batch.mask.all()
    assert len(opened) == 1


def test_latents_are_those_that_were_saved(tmp_path: Path, latents: Latents) -> None:
    saved = {**latents, "half": latents["a"].astype(np.float16)}
    save_file(saved, tmp_path / "latents.safetensors", metadata={"unit": "SD"})
    read, skipped = read_latents(Artefact("some", "latents", {}, {}, lambda name: (tmp_path / name).open("rb")))
    assert (list(read), skipped) == (sorted(saved), [])
    for name, frames in saved.items():
        assert read.n_frames(name) == len(frames)
        assert read[name].dtype == np.float32
        assert np.array_equal(read[name], frames.astype(np.float32))
        assert np.array_equal(read.part(name, 5, 8), frames[5:8].astype(np.float32))
        assert len(read.part(name, 5, 1_000)) == len(frames) - 5


def test_tracks_of_up_to_4600_frames_are_taken_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tracks = {f"{n}": random.standard_normal((n, 64)).astype(np.float32) for n in (6000, 4600, 3000)}
    save_file(tracks, tmp_path / "latents.safetensors")
    latents, _ = read_latents(Artefact("some", "latents", {}, {}, lambda name: (tmp_path / name).open("rb")))
    batch = Crops(latents, sequence_frames=4600, batch_size=8, seed=0).batch(0)
    assert set(batch.mask.sum(1).tolist()) == {4600, 3000}
    short = int(batch.mask.sum(1).argmin())
    assert np.array_equal(batch.frames[short, :3000], tracks["3000"])
    assert not batch.frames[short, 3000:].any()
    backbone = new_flow("tiny", seed=0).backbone.eval()
    with torch.no_grad():
        contexts = backbone(batch.frames[:1])
        assert torch.allclose(contexts[:, :200], backbone(batch.frames[:1, :200]), atol=1e-4)
    assert bool(contexts.isfinite().all())
