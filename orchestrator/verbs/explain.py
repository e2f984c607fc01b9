"""From any result back to the recordings: what made it, of what, when, and how often it was tried."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.ledger import Ledger
from orchestrator.reading import UsageError
from orchestrator.signature import SHORT
from orchestrator.stages import STAGES
from orchestrator.storage import Storage

SHORTEST = 4


def explain(ledger_root: str, prefix: str, as_json: bool) -> str:
    """Walk the inputs of the cell whose signature starts with `prefix`, each cell once.

    Raises
    ------
    UsageError
        If no cell, or more than one, has that signature.
    """
    ledger = Ledger(Storage(ledger_root))
    places = _places(ledger)
    signature = _find(places, prefix, ledger_root)
    steps: list[dict[str, Any]] = []
    _walk(ledger, places, signature, 0, steps, set())
    if as_json:
        return json.dumps(steps, indent=1)
    return "\n".join(_line(step) for step in steps)


def _places(ledger: Ledger) -> dict[str, str]:
    return {name: stage for stage in STAGES for name in ledger.signatures(stage)}


def _find(places: dict[str, str], prefix: str, root: str) -> str:
    if len(prefix) < SHORTEST:
        raise UsageError(f"{prefix!r}: give at least {SHORTEST} characters of a signature (plan and report show them)")
    matches = [signature for signature in places if signature.startswith(prefix)]
    if not matches:
        raise UsageError(f"{prefix!r}: no cell of the ledger {root} has that signature")
    if len(matches) > 1:
        raise UsageError(f"{prefix!r}: {len(matches)} cells begin so; give more characters")
    return matches[0]


def _walk(
    ledger: Ledger, places: dict[str, str], signature: str, depth: int, steps: list[dict[str, Any]], seen: set[str]
) -> None:
    if signature in seen:
        return
    seen.add(signature)
    stage = places.get(signature)
    if stage is None:
        steps.append({"depth": depth, "signature": signature, "stage": "?", "name": "not in this ledger"})
        return
    config = ledger.config(stage, signature)
    status = ledger.status(stage, signature)
    steps.append(
        {
            "depth": depth,
            "signature": signature,
            "stage": stage,
            "name": config["name"],
            "config": config["config"],
            "state": status.state if status is not None else "no result",
            "metrics": status.metrics if status is not None else {},
            "attempts": [f"{attempt.id}: {attempt.reason.value} -> {attempt.outcome}" for attempt in status.attempts]
            if status is not None
            else [],
            "provenance": status.provenance if status is not None else {},
        }
    )
    for parents in config["inputs"].values():
        for parent in [parents] if isinstance(parents, str) else parents:
            _walk(ledger, places, parent, depth + 1, steps, seen)


def _line(step: dict[str, Any]) -> str:
    margin = "  " * step["depth"]
    head = f"{margin}{step['signature'][:SHORT]}  {step['name']}"
    if "config" not in step:
        return head
    numbers = {key: value for key, value in step["metrics"].items() if isinstance(value, int | float)}
    shown = ", ".join(f"{key}={value:.4g}" for key, value in list(numbers.items())[:6])
    tries = "" if len(step["attempts"]) < 2 else f"\n{margin}    attempts: {'; '.join(step['attempts'])}"
    return f"{head}  [{step['state']}]  {shown}{tries}"
