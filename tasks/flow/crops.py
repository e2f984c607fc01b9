"""Training crops of latents: which frames a step sees, and the noise and times it meets them with."""

from __future__ import annotations

import json
import math
import struct
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from tasks.contract import Artefact, TaskError
from tasks.flow.hyperplane import projected
from tasks.seeds import numpy_stream, torch_stream

TauSampling = Literal["uniform", "logit_normal"]
Crop = tuple[str, int]
"""A recording's id and the first frame of the crop."""
DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
"""Numbers in a safetensors file, by the names that its header has for them."""


@dataclass(frozen=True)
class Batch:
    """`frames` (B, S, D) and which of them are real, `mask` (B, S); the rest is padding at the end."""

    frames: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(self.frames.to(device), self.mask.to(device))


class LatentFile(Mapping[str, np.ndarray]):
    """Latents by recording id, ``(T, D)`` float32 each, read from a safetensors file when they are asked for.

    Nothing is kept: the file is on this machine's disk, and the pages that the operating system has at hand are the
    cache. The format is a length, a JSON header with the place of each array, and the arrays.

    Parameters
    ----------
    stream : file
        Open for reading, at its start; it is closed when nobody needs the latents any more.
    project : bool
        Give coordinates in the hyperplane, ``(T, D - 1)``, in place of the latents (`tasks.flow.hyperplane`).
    """

    def __init__(self, stream: BinaryIO, project: bool = False) -> None:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        self._stream, self._first, self._project = stream, 8 + length, project
        weakref.finalize(self, stream.close)
        self._entries: dict[str, dict[str, Any]] = {name: header[name] for name in sorted(header)}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.part(name, 0, self.n_frames(name))

    def n_frames(self, name: str) -> int:
        """Frames of a recording, without reading it."""
        return int(self._entries[name]["shape"][0])

    def part(self, name: str, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop` (exclusive, cut at the recording's end) of a recording, and only they are read."""
        entry = self._entries[name]
        shape, dtype = entry["shape"][1:], np.dtype(DTYPES[entry["dtype"]])
        row_bytes = dtype.itemsize * math.prod(shape)
        self._stream.seek(self._first + entry["data_offsets"][0] + start * row_bytes)
        data = self._stream.read(max(min(stop, self.n_frames(name)) - start, 0) * row_bytes)
        frames = np.frombuffer(data, dtype).reshape(-1, *shape).astype(np.float32)
        return projected(frames) if self._project else frames

    def keep(self, names: Collection[str]) -> None:
        """Leave out all other recordings from now on."""
        self._entries = {name: entry for name, entry in self._entries.items() if name in names}


def read_latents(artefact: Artefact, project: bool = False) -> tuple[LatentFile, list[str]]:
    """Standardised latents by recording id, in the order of the ids, and sentences on those left out.

    With `project` they are coordinates in the hyperplane of a layer norm's latents, as a flow that projects has them;
    `TaskError` where they aren't of it.

    Left out are recordings of fewer than two frames and recordings with NaN or infinite values. Each is read once for
    that, and not kept.
    """
    latents = LatentFile(artefact.open("latents.safetensors"), project)
    usable, skipped = [], []
    for name, frames in latents.items():
        if len(frames) < 2:
            skipped.append(f"{name}: {len(frames)} latent frame(s), at least 2 are needed to predict one from another")
        elif not np.isfinite(frames).all():
            bad = int((~np.isfinite(frames).all(axis=1)).sum())
            skipped.append(f"{name}: {bad} of {len(frames)} latent frames are not finite")
        else:
            usable.append(name)
    latents.keep(usable)
    return latents, skipped


class Crops:
    """Random crops of `sequence_frames` from recordings, each recording as often as it has frames to predict.

    The crops of a step depend on the seed, the step and the recordings, not on the steps before. Only they are in
    memory, however large the corpus is.
    """

    def __init__(self, latents: LatentFile, sequence_frames: int, batch_size: int, seed: int) -> None:
        if not latents:
            raise TaskError(
                "No usable recording among the training latents; at least one of 2 or more frames is needed."
            )
        self.latents, self.names = latents, list(latents)
        self.sequence_frames, self.batch_size, self.seed = sequence_frames, batch_size, seed
        weights = np.array([latents.n_frames(name) - 1 for name in self.names], dtype=np.float64)
        self.shares = weights / weights.sum()

    def batch(self, step: int) -> Batch:
        """The crops of `step`."""
        random = numpy_stream(self.seed, "flow", "crops", step)
        chosen = []
        for index in random.choice(len(self.names), size=self.batch_size, p=self.shares):
            name = self.names[index]
            last = max(self.latents.n_frames(name) - self.sequence_frames, 0)
            chosen.append((name, int(random.integers(0, last + 1))))
        return read_crops(self.latents, chosen, self.sequence_frames)


def consecutive(latents: LatentFile, sequence_frames: int, batch_size: int, n_batches: int) -> list[list[Crop]]:
    """At most `n_batches` batches of crops spread evenly over all recordings, for validation."""
    crops = [(name, start) for name in latents for start in range(0, latents.n_frames(name) - 1, sequence_frames)]
    chosen = np.unique(np.linspace(0, len(crops) - 1, min(len(crops), n_batches * batch_size)).round().astype(int))
    crops = [crops[index] for index in chosen]
    return [crops[i : i + batch_size] for i in range(0, len(crops), batch_size)]


def read_crops(latents: LatentFile, chosen: Sequence[Crop], sequence_frames: int) -> Batch:
    """The batch of some crops."""
    return pad([latents.part(name, start, start + sequence_frames) for name, start in chosen], sequence_frames)


def pad(crops: Sequence[np.ndarray], sequence_frames: int) -> Batch:
    """Stack crops, zeros behind the short ones."""
    frames = np.zeros((len(crops), sequence_frames, crops[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(crops), sequence_frames), dtype=bool)
    for row, crop in enumerate(crops):
        frames[row, : len(crop)] = crop
        mask[row, : len(crop)] = True
    return Batch(torch.from_numpy(frames), torch.from_numpy(mask))


def draw_times(n_draws: int, batch_size: int, sampling: TauSampling, random: torch.Generator) -> Tensor:
    """tau ``(n_draws, batch_size)``, one from each of equally likely strata, in random order.

    ``uniform`` on [0, 1], or ``logit_normal``: sigmoid of a standard normal (Esser et al. 2024).
    """
    count = n_draws * batch_size
    order = torch.randperm(count, generator=random).double()
    share = (order + torch.rand(count, generator=random, dtype=torch.float64)) / count
    if sampling == "logit_normal":
        share = torch.sigmoid(torch.special.ndtri(share.clamp(1e-9, 1 - 1e-9)))
    return share.float().view(n_draws, batch_size)


def draw_noise(n_draws: int, target: Tensor, random: torch.Generator) -> Tensor:
    """Standard normal noise, `n_draws` for each of ``target (B, T, D)``."""
    return torch.randn((n_draws, *target.shape), generator=random)


def draw_dropped(share: float, mask: Tensor, random: torch.Generator) -> Tensor:
    """Which of the frames ``(B, T)`` are learned without their context: each with probability `share`."""
    return torch.rand(mask.shape, generator=random) < share


def step_stream(seed: int, *names: str | int) -> torch.Generator:
    """The generator of one step's noise and times."""
    return torch_stream(seed, "flow", "noise", *names)
