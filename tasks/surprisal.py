"""Stage ``surprisal``: information content (IC) of latent frames at a noise level, and its CSV.

The IC of frame t at noise level s is ``-log p_s(x_t | x_0..x_(t-1))`` in nats, summed over the latent channels. With
definition ``expectation`` the whole sequence, context included, is scaled by 1 - s (the mean of the noised sequence),
and the density is that of the flow's marginal at time tau = 1 - s, as in the published inference code of
"Perceptually Aligning Representations of Music via Noise-Augmented Autoencoders" (Bjare et al. 2025).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from tasks.config import ProbeFile, SurprisalCell
from tasks.contract import Artefact, Cell, Context, Result, Stopped, TaskError
from tasks.flow.crops import read_latents
from tasks.flow.information import InformationContent
from tasks.flow.network import Flow, default_device, read_flow
from tasks.ic import FRAME_SAMPLES, SAMPLE_RATE_HZ


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
        try:
            if loaded is None or loaded[0] != inputs:
                loaded = (inputs, Surprisal(cell.input("flow"), cell.input("latents")))
            yield loaded[1].solve(cell, context, done=index, total=len(cells))
        except TaskError as problem:
            yield Result(cell.signature, failure=str(problem))


class Surprisal:
    """A trained flow and the recordings whose IC is asked for."""

    def __init__(self, flow: Artefact, latents: Artefact) -> None:
        model, self.window = read_flow(flow)
        self.flow = model.to(default_device())
        self.recordings, self.skipped = read_latents(latents, model.project)
        self.about: dict[str, dict[str, int]] = json.loads(latents.read_bytes("latents.json"))
        _check_sizes(self.flow, self.recordings)

    def with_probes(self, probes: np.ndarray | None) -> tuple[Mapping[str, np.ndarray], list[str]]:
        """The recordings that given probes are for, and a sentence on each of the others."""
        if probes is None or probes.ndim == 2:
            return self.recordings, []
        lengths = {name: self.recordings.n_frames(name) - 1 for name in self.recordings}
        wrong = [
            f"{name}: the given probes are for {probes.shape[1]} frames, and it has {length} behind its first"
            for name, length in lengths.items()
            if length != probes.shape[1]
        ]
        if len(wrong) == len(lengths):
            raise TaskError(wrong[0])
        return {name: self.recordings[name] for name, length in lengths.items() if length == probes.shape[1]}, wrong

    def solve(self, cell: Cell, context: Context, done: int, total: int) -> Result:
        """Compute and write one cell; `done` of `total` cells were finished before it."""
        config = SurprisalCell.model_validate(cell.config)
        if not self.recordings:
            raise TaskError(
                "No recording has latents to compute IC of: " + ("; ".join(self.skipped[:5]) or "none given")
            )
        skipped = list(self.skipped)
        with torch.inference_mode():
            probes = read_probes(config, cell.places.get("probes"), self.flow.latent_dim, context)
            recordings, without = self.with_probes(probes)
            skipped += without
            ic = InformationContent(self.flow, self.window, config, cell.signature, probes)
            n_frames = ic.n_draws * sum(self.recordings.n_frames(name) - 1 for name in recordings)

            def tell(frames: int) -> None:
                if context.should_stop():
                    raise Stopped
                context.progress(done * n_frames + frames, total * n_frames, {})

            values = ic.of(recordings, tell)
            error_nats, constant = ic.solver_error_nats, ic.rule_constant_nats
            if constant is not None and not math.isfinite(constant[0]):
                raise TaskError(
                    f"noise level {config.noise_level:g}: the flow's density isn't finite on frames that the flow "
                    "itself generates, so there is no IC; the flow hasn't learned enough, or has diverged"
                )
        for name, series in values.items():
            bad = int((~np.isfinite(series[1:])).sum())
            if bad:
                skipped.append(f"{name}: {bad} of {len(series)} frames have no finite IC")
            values[name] = np.where(np.isfinite(series), series, np.nan)
        return self.write(cell, config, values, error_nats if math.isfinite(error_nats) else None, skipped)

    def write(
        self,
        cell: Cell,
        config: SurprisalCell,
        values: dict[str, np.ndarray],
        error_nats: float | None,
        skipped: list[str],
    ) -> Result:
        """Write the cell's files and give its result."""
        (cell.out_dir / "ic.safetensors").write_bytes(save(values))
        about: dict[str, Any] = {
            "noise_level": config.noise_level,
            "unit": "nats",
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "frame_samples": FRAME_SAMPLES,
            "stamp": "start of the frame",
            "solver_error_nats": error_nats,
            "recordings": {name: self.about[name] for name in values},
            "skipped": skipped,
        }
        (cell.out_dir / "ic.json").write_text(json.dumps(about, sort_keys=True, indent=1) + "\n")
        pooled = np.concatenate([ic[np.isfinite(ic)] for ic in values.values()])
        if not len(pooled):
            return Result(
                cell.signature, failure=f"No frame has a finite IC at noise level {config.noise_level}: {skipped[0]}"
            )
        metrics = {
            "ic_mean": float(pooled.mean()),
            "ic_sd": float(pooled.std()),
            "solver_error_nats": error_nats,
            "n_frames": len(pooled),
            "n_recordings": len(values),
            "n_skipped": len(skipped),
            "skipped": skipped[:20],
        }
        return Result(cell.signature, metrics=metrics)


def _check_sizes(flow: Flow, recordings: Mapping[str, np.ndarray]) -> None:
    """Refuse latents of another size than the flow's."""
    name = next(iter(recordings), None)
    width = recordings[name].shape[1] if name is not None else flow.latent_dim
    if width != flow.latent_dim:
        channels, theirs = flow.latent_dim + flow.project, width + flow.project
        raise TaskError(
            f"the flow predicts latents of {channels} channels, and these have {theirs}: it was trained on another "
            "autoencoder's; use the autoencoder that it was trained with"
        )


def read_probes(config: SurprisalCell, path: str | None, dim: int, context: Context) -> np.ndarray | None:
    """The probes that the file at `path` holds, ``(P, D)`` or ``(P, frames - 1, D)``; None where no file is asked for.

    Raises
    ------
    TaskError
        The file can't be opened, or holds others than were asked for, or no such array.
    """
    if not isinstance(config.probes, ProbeFile):
        return None
    assert path is not None, "the cell names a file of probes, and not where it lies"
    try:
        with context.open_file(path) as stream:
            data = stream.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise TaskError(
            f"{path}: the probes can't be read ({reason}). Restore the file, or give its new path"
        ) from error
    if hashlib.sha256(data).hexdigest() != config.probes.sha256:
        raise TaskError(f"{path}: not the probes that were asked for (its sha256 has changed)")
    try:
        probes = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise TaskError(f"{path}: not an array of numbers in numpy's .npy format ({error})") from None
    if not isinstance(probes, np.ndarray):
        raise TaskError(f"{path}: holds several arrays; allowed is one, in numpy's .npy format")
    fits = probes.ndim in (2, 3) and len(probes) > 0 and probes.shape[-1] == dim and probes.dtype.kind in "if"
    if not fits or not np.isfinite(probes).all():
        raise TaskError(
            f"{path}: shape {probes.shape} of {probes.dtype}; allowed are finite numbers of shape (probes, {dim}) or "
            f"(probes, frames - 1, {dim})"
        )
    return np.asarray(probes, dtype=np.float32)
