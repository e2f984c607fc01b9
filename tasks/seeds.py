"""Every random stream of a study derives from names, never from the order in which work was done."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from any number of names and integers; ``(1, 2)`` and ``("1", "2")`` are different streams."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_stream(*parts: str | int) -> np.random.Generator:
    """A numpy generator for the stream named by `parts`."""
    import numpy as np

    return np.random.default_rng(derive_seed(*parts))


def torch_stream(*parts: str | int) -> torch.Generator:
    """A torch generator on the CPU for the stream named by `parts`."""
    import torch

    return torch.Generator().manual_seed(derive_seed(*parts))
