"""Stage ``surprisal``: information content (IC) of latent frames at a noise level, and its CSV.

The IC of frame t at noise level s is ``-log p_s(x_t | x_0..x_(t-1))`` in nats, summed over the latent channels. With
definition ``expectation`` the whole sequence, context included, is scaled by 1 - s (the mean of the noised sequence),
and the density is that of the flow's marginal at time tau = 1 - s, as in the published inference code of
"Perceptually Aligning Representations of Music via Noise-Augmented Autoencoders" (Bjare et al. 2025).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from tasks.config import SurprisalConfig
from tasks.contract import Artefact, Cell, Context, Result, Stopped, TaskError
from tasks.flow.crops import read_latents
from tasks.flow.likelihood import HeadAt, HeadField, log_likelihood
from tasks.flow.network import Flow, default_device, read_flow
from tasks.ic import FRAME_SAMPLES, SAMPLE_RATE_HZ
from tasks.seeds import numpy_stream

BLOCK_FRAMES = {"cpu": 128, "cuda": 4096}
"""Most frames of a recording that are solved together, by kind of device."""


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """IC of every usable recording at the noise level of each cell.

    Inputs ``flow`` and ``latents``. Files: ``ic.safetensors`` (recording id to ``(T,)`` float64 nats) and ``ic.json``.
    Metrics: mean and standard deviation over all finite values, how many there are (``n_frames``), ``n_recordings``,
    and ``skipped``, which names recordings left out. Each (recording, level) is solved by itself, with probes from
    (cell, recording, frame), so that its bits don't depend on what else is computed.

    Raises
    ------
    Stopped
        When the study was asked to stop.
    """
    loaded: tuple[tuple[str, str], Surprisal] | None = None
    for index, cell in enumerate(cells):
        inputs = (cell.input("flow").signature, cell.input("latents").signature)
        if loaded is None or loaded[0] != inputs:
            loaded = (inputs, Surprisal(cell.input("flow"), cell.input("latents")))
        try:
            yield loaded[1].solve(cell, context, done=index, total=len(cells))
        except TaskError as problem:
            yield Result(cell.signature, failure=str(problem))


class Surprisal:
    """A trained flow and the recordings whose IC is asked for."""

    def __init__(self, flow: Artefact, latents: Artefact) -> None:
        self.device = default_device()
        model, self.window = read_flow(flow)
        self.flow = model.to(self.device)
        self.recordings, self.skipped = read_latents(latents)
        self.about: dict[str, dict[str, int]] = json.loads(latents.read_bytes("latents.json"))

    def solve(self, cell: Cell, context: Context, done: int, total: int) -> Result:
        """Compute and write one cell; `done` of `total` cells were finished before it."""
        level = float(cell.config["noise_level"])
        shared = {key: value for key, value in cell.config.items() if key != "noise_level"}
        config = SurprisalConfig.model_validate({**shared, "noise_levels": (level,)})
        if not self.recordings:
            raise TaskError(
                "No recording has latents to compute IC of: " + ("; ".join(self.skipped[:5]) or "none given")
            )
        skipped, values = list(self.skipped), {}
        with torch.inference_mode():
            times = HeadAt(self.flow.head)
            for count, (name, frames) in enumerate(self.recordings.items()):
                if context.should_stop():
                    raise Stopped
                probes = draw_probes(cell.signature, name, len(frames), config.n_probes, frames.shape[1])
                ic = self.ic(times, frames, probes, 1.0 - level, config.n_steps)
                bad = int((~np.isfinite(ic[1:])).sum())
                if bad:
                    skipped.append(f"{name}: {bad} of {len(ic)} frames have no finite IC")
                values[name] = np.where(np.isfinite(ic), ic, np.nan)
                context.progress(done * len(self.recordings) + count + 1, total * len(self.recordings), {})
        return self.write(cell, level, values, skipped)

    def ic(self, times: HeadAt, frames: np.ndarray, probes: np.ndarray, tau: float, n_steps: int) -> np.ndarray:
        """IC ``(T,)`` of one recording's ``frames (T, D)`` with ``probes (T, P, D)``, at time tau = 1 - noise level."""
        scaled = torch.from_numpy(frames * np.float32(tau)).to(self.device)
        context = contexts(self.flow, scaled, self.window)
        target, ahead = scaled[1:], torch.from_numpy(probes[1:]).to(self.device, torch.float32).transpose(0, 1)
        n_blocks = -(-len(target) // BLOCK_FRAMES[self.device.type])
        ic = [np.full(1, np.nan)]
        for block in np.array_split(np.arange(len(target)), n_blocks):
            part = slice(int(block[0]), int(block[-1]) + 1)
            field = HeadField(times, context[part].contiguous(), ahead[:, part].contiguous())
            ic.append(-log_likelihood(field, target[part].clone(), tau, n_steps).cpu().numpy())
        return np.concatenate(ic)

    def write(self, cell: Cell, level: float, values: dict[str, np.ndarray], skipped: list[str]) -> Result:
        """Write the cell's files and give its result."""
        (cell.out_dir / "ic.safetensors").write_bytes(save(values))
        about: dict[str, Any] = {
            "noise_level": level,
            "unit": "nats",
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "frame_samples": FRAME_SAMPLES,
            "stamp": "start of the frame",
            "recordings": {name: self.about[name] for name in values},
            "skipped": skipped,
        }
        (cell.out_dir / "ic.json").write_text(json.dumps(about, sort_keys=True, indent=1) + "\n")
        pooled = np.concatenate([ic[np.isfinite(ic)] for ic in values.values()])
        if not len(pooled):
            return Result(cell.signature, failure=f"No frame has a finite IC at noise level {level}: {skipped[0]}")
        metrics = {
            "ic_mean": float(pooled.mean()),
            "ic_sd": float(pooled.std()),
            "n_frames": len(pooled),
            "n_recordings": len(values),
            "n_skipped": len(skipped),
            "skipped": skipped[:20],
        }
        return Result(cell.signature, metrics=metrics)


def draw_probes(signature: str, recording: str, n_frames: int, n_probes: int, dim: int) -> np.ndarray:
    """Rademacher probes ``(T, P, D)``, values -1 and 1, of one recording in one cell.

    Each frame gets rows of a Hadamard matrix in random order, its columns multiplied by random signs: every probe is
    Rademacher, up to D probes of a frame are orthogonal, and with D of them the divergence is exact. `dim` is a power
    of 2.
    """
    rounds = -(-n_probes // dim)
    signs = numpy_stream(signature, "probe signs", recording).integers(0, 2, (n_frames, rounds, dim), dtype=np.int8)
    order = numpy_stream(signature, "probe rows", recording).random((n_frames, rounds, dim)).argsort(axis=-1)
    probes = hadamard(dim)[order[:, :, :n_probes]] * (2 * signs - 1)[:, :, None, :]
    return probes.reshape(n_frames, -1, dim)[:, :n_probes]


def hadamard(dim: int) -> np.ndarray:
    """Sylvester's matrix of -1 and 1 with orthogonal rows, ``(dim, dim)`` int8; `dim` is a power of 2."""
    rows = np.ones((1, 1), dtype=np.int8)
    while len(rows) < dim:
        rows = np.block([[rows, rows], [rows, -rows]])
    assert len(rows) == dim, f"{dim} is not a power of 2"
    return rows


def contexts(flow: Flow, frames: Tensor, window: int) -> Tensor:
    """Contexts of frames 1..T-1 of one recording, ``(T - 1, C)`` from ``frames (T, D)``.

    No context is longer than in training: recordings of more than `window` frames are read in windows that overlap by
    half, and a frame behind the first window is predicted in the earliest window that shows it, from at least
    ``window - window // 2`` frames before it.
    """
    n_frames, hop = len(frames), max(window // 2, 1)
    if n_frames <= window:
        whole: Tensor = flow.backbone(frames[None, :-1])
        return whole[0]
    n_windows = 1 + -(-(n_frames - window) // hop)
    padded = torch.cat([frames, frames.new_zeros((n_windows - 1) * hop + window - n_frames, frames.shape[1])])
    seen = flow.backbone(padded.unfold(0, window, hop).transpose(1, 2)[:, :-1].contiguous())
    return torch.cat([seen[0], seen[1:, -hop:].flatten(0, 1)])[: n_frames - 1]
