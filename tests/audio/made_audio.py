"""Configs that several tests of this room need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.audio.config import SplitConfig

SPLIT = SplitConfig().model_dump()


def corpus_config(
    role: str, *, files: Sequence[Mapping[str, Any]] = (), seed: int = 0, **dataset: Any
) -> dict[str, Any]:
    """The config of a corpus cell."""
    split = {**SPLIT, **dataset.pop("shares", {})}
    return {"role": role, "dataset": dataset, "seed": seed, "split": split, "files": list(files)}
