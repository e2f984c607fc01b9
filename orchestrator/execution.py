"""Where and how a study runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.stages import Request


@dataclass(frozen=True)
class Execution:
    """Where and how a study runs; nothing here changes a result.

    Attributes
    ----------
    inline : bool
        All in this process, one task after the other, without Ray.
    address : str or None
        A running Ray cluster; None: $RAY_ADDRESS, or a Ray of our own on this machine.
    cpus : int or None
        CPUs of a Ray of our own; None: all.
    gpus_per_training : float
        GPUs of one training; shares such as 0.5 are possible.
    resources : mapping
        What single stages ask for; goes before `gpus_per_training`.
    cluster : str or None
        The Ray cluster YAML that says which nodes there should be, and which can be started.
    retry_failed : bool
        Try cells again that failed before.
    shared_ledger : bool
        All nodes see a ledger in a folder under the same path: its URL begins with ``file://``.
    """

    inline: bool = False
    address: str | None = None
    cpus: int | None = None
    gpus_per_training: float = 0.0
    resources: Mapping[str, Request] = field(default_factory=dict)
    cluster: str | None = None
    retry_failed: bool = False
    shared_ledger: bool = False
