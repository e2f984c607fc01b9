"""Cells and their inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CellSpec:
    """One cell as it is planned: what it is called, what decides its result, and whose results it reads.

    `labels` (variant, noise_level, subject, role, model, block, ...) are for people and for grouping: not hashed.
    `places` says where the files lie that the config names by their content alone: not hashed either.
    `missing` names the data that is not there yet: such a cell is planned, and blocked.
    """

    stage: str
    name: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str | tuple[str, ...]]
    signature: str
    labels: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def parents(self) -> tuple[str, ...]:
        """Signatures of all inputs, in order, each once."""
        seen: dict[str, None] = {}
        for value in self.inputs.values():
            for signature in (value,) if isinstance(value, str) else value:
                seen[signature] = None
        return tuple(seen)


@dataclass(frozen=True)
class Graph:
    """All cells of a study by signature, parents before children; `notes` say what was left out of it, and why."""

    cells: Mapping[str, CellSpec]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[CellSpec]:
        return iter(self.cells.values())

    def __len__(self) -> int:
        return len(self.cells)
