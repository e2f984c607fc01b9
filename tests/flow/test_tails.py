"""Contexts with other last frames equal those of the sequence that has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.flow.contexts import contexts, windows
from tasks.flow.network import new_flow
from tasks.flow.tails import Tail, contexts_after, first_seen

Latents = dict[str, np.ndarray]


@pytest.mark.parametrize("window", [8, 15, 16, 39, 100])
def test_a_tail_gets_the_context_of_the_sequence_that_ends_with_it(latents: Latents, window: int) -> None:
    flow = new_flow("tiny", seed=2).eval()
    frames = torch.from_numpy(latents["c"])
    random = torch.Generator().manual_seed(0)
    tails = [Tail(t, torch.randn(min(t, 5), 64, generator=random)) for t in (1, 3, 7, 15, 16, 17, 24, 40, 41, 69, 16)]
    with torch.no_grad():
        found = contexts_after(flow, frames, tails, window)
        for row, tail in enumerate(tails):
            changed = frames.clone()
            changed[tail.frame - len(tail.latents) : tail.frame] = tail.latents
            wanted = torch.cat([c for _, c in contexts(flow, windows(("r", 0), changed, window))])[tail.frame - 1]
            assert torch.allclose(found[row], wanted, atol=2e-5), tail.frame


def test_the_recordings_own_frames_as_a_tail_change_nothing(latents: Latents) -> None:
    flow = new_flow("tiny", seed=2).eval()
    frames = torch.from_numpy(latents["c"])
    with torch.no_grad():
        ordinary = torch.cat([c for _, c in contexts(flow, windows(("r", 0), frames, 16))])
        found = contexts_after(flow, frames, [Tail(t, frames[max(t - 24, 0) : t]) for t in range(1, 70)], 16)
    assert torch.allclose(found, ordinary, atol=2e-5)


def test_windows_start_where_contexts_start_them() -> None:
    assert [first_seen(t, 16) for t in (1, 15, 16, 23, 24, 47, 60)] == [0, 0, 8, 8, 16, 32, 48]
    assert first_seen(500, 1_000) == 0
