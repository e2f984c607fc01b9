"""What the driver hands to a process that computes, and what it hears from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.graph import CellSpec
from orchestrator.ledger import Status
from orchestrator.reasons import Reason
from orchestrator.stages import Stage
from orchestrator.storage import Storage
from tasks.contract import Stopped


@dataclass(frozen=True)
class WorkOrder:
    """Everything a process needs to compute some cells of one stage; it is pickled to Ray's workers.

    Relative paths of recordings are meant from `folder`, the driver's, wherever the worker runs.
    """

    storage: Storage
    stage: Stage
    cells: tuple[CellSpec, ...]
    reasons: Mapping[str, Reason]
    stage_of: Mapping[str, str]
    driver: str
    stop_path: str = ""
    folder: str = field(default_factory=os.getcwd)


@dataclass(frozen=True)
class Event:
    """What happened to one cell.

    ``settled`` carries its status, another driver's where that was first (`superseded`); ``again`` says that it has to
    be computed later, ``corrupt`` that first its input `producer` has to be (because of `reason`); ``stopped`` that the
    study's stop reached it; ``lost`` that its process died, or that its end could not be recorded (`reason`,
    `sentence`).
    """

    kind: Literal["started", "progress", "settled", "stopped", "again", "corrupt", "lost"]
    signature: str
    status: Status | None = None
    reason: Reason | None = None
    producer: str = ""
    sentence: str = ""
    step: int = 0
    total: int = 0
    superseded: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)


Emit = Callable[[Event], None]


class Pruned(Stopped):
    """A search stopped this training early; `emit` may raise it."""

    reason = Reason.PRUNED
