"""Contexts of frames whose last past frames are other than the recording's, at the cost of these few frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.flow.network import Flow


@dataclass(frozen=True)
class Tail:
    """What comes right before `frame` in place of the recording's own: `latents` (m, D), 1 <= m <= frame."""

    frame: int
    latents: Tensor


def first_seen(frame: int, window: int) -> int:
    """The first frame that the context of `frame` has seen, with contexts of at most `window` frames.

    As in `tasks.flow.contexts.windows`: they start every ``window // 2`` frames, and a frame behind the first is
    predicted in the earliest window that shows it.
    """
    hop = max(window // 2, 1)
    return 0 if frame < window else (frame - window + hop) // hop * hop


def contexts_after(flow: Flow, frames: Tensor, tails: Sequence[Tail], window: int) -> Tensor:
    """The context of each tail's frame: the recording up to the tail, then the tail, read together.

    The tails of one window go through the backbone in one pass behind the recording's own frames: each of their frames
    sees the recording before its tail, and its own tail up to itself.

    Parameters
    ----------
    flow : Flow
    frames : (T, D) tensor
        The recording.
    tails : sequence of Tail
    window : int
        Most frames of a context.

    Returns
    -------
    (N, C) tensor
        One context per tail.
    """
    contexts = frames.new_empty(len(tails), flow.backbone.norm.weight.shape[0])
    for first in sorted({first_seen(tail.frame, window) for tail in tails}):
        rows = [row for row, tail in enumerate(tails) if first_seen(tail.frame, window) == first]
        cut = [Tail(tails[row].frame - first, tails[row].latents[-(tails[row].frame - first) :]) for row in rows]
        contexts[rows] = _one_pass(flow, frames[first:], cut)
    return contexts


def _one_pass(flow: Flow, frames: Tensor, tails: Sequence[Tail]) -> Tensor:
    own = max(tail.frame - len(tail.latents) for tail in tails)
    sequence = torch.cat([frames[:own], *(tail.latents for tail in tails)])
    positions = torch.arange(len(sequence), device=frames.device)
    visible = torch.zeros(len(sequence), len(sequence), dtype=torch.bool, device=frames.device)
    visible[:own, :own] = _triangle(visible, own)
    ends, start = [], own
    for tail in tails:
        length = len(tail.latents)
        here = slice(start, start + length)
        positions[here] = torch.arange(tail.frame - length, tail.frame, device=frames.device)
        visible[here, : tail.frame - length] = True
        visible[here, here] = _triangle(visible, length)
        start += length
        ends.append(start - 1)
    contexts: Tensor = flow.backbone(sequence[None], positions.float(), visible)[0, ends]
    return contexts


def _triangle(like: Tensor, size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool, device=like.device).tril()
