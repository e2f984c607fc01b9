"""Contexts of the frames of recordings of any length, in bounded memory.

Shapes: T frames, D latent channels, C width of a context.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from tasks.flow.network import Flow

BATCH_FRAMES = {"cpu": 1, "cuda": 32768}
"""Most frames that pass the backbone together, padding included, by kind of device; a single window may be longer.

On a CPU every window passes alone: nothing would be won, and so its bits don't depend on what else is computed.
"""


@dataclass(frozen=True)
class Window:
    """Frames that the backbone reads at once.

    `frames` (n, D) are frames `start`.. of the sequence `name`; contexts are wanted of the frames from `first` on.
    """

    name: tuple[str, int]
    start: int
    first: int
    frames: Tensor


def windows(name: tuple[str, int], frames: Tensor, size: int) -> Iterator[Window]:
    """The windows of one sequence ``frames (T, D)``, which together predict each of the frames 1..T-1 once.

    No context is longer than in training: sequences of more than `size` frames are read in windows that overlap by
    half, and a frame behind the first window is predicted in the earliest window that shows it, from at least
    ``size - size // 2`` frames before it.
    """
    hop, first = max(size // 2, 1), 1
    for start in range(0, max(len(frames) - size + hop, 1), hop):
        part = frames[start : start + size]
        if first < start + len(part):
            yield Window(name, start, first, part)
        first = start + len(part)


def contexts(flow: Flow, read: Iterable[Window]) -> Iterator[tuple[Window, Tensor]]:
    """Each window with the contexts of its wanted frames, ``(n, C)``, in the order given.

    Windows of different lengths pass the backbone together, with zeros behind the short ones: attention is causal, so
    these change nothing before them.
    """
    batch: list[Window] = []
    longest, room = 0, BATCH_FRAMES[flow.head.out.weight.device.type]
    for window in read:
        longest = max(longest, len(window.frames))
        if batch and longest * (len(batch) + 1) > room:
            yield from _batch(flow, batch)
            batch, longest = [], len(window.frames)
        batch.append(window)
    if batch:
        yield from _batch(flow, batch)


def _batch(flow: Flow, batch: list[Window]) -> Iterator[tuple[Window, Tensor]]:
    longest = max(len(window.frames) for window in batch) - 1
    rows = [pad(window.frames[:-1], (0, 0, 0, longest + 1 - len(window.frames))) for window in batch]
    seen = flow.backbone(torch.stack(rows))
    for window, row in zip(batch, seen, strict=True):
        yield window, row[window.first - 1 - window.start : len(window.frames) - 1]
