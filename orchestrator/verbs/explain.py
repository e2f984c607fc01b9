"""From any result back to the recordings: what made it, of what, when, and how often it was tried."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.ledger import CorruptArtefact, Ledger, StatusDamaged
from orchestrator.opening import open_ledger
from orchestrator.reading import UsageError
from orchestrator.signature import SHORT
from orchestrator.stages import STAGES
from orchestrator.status import plain

SHORTEST = 4
SHOWN = 20


def explain(ledger_root: str, prefix: str, as_json: bool) -> str:
    """Walk the inputs of the cell whose signature starts with `prefix`, each cell once.

    Raises
    ------
    UsageError
        If no cell, or more than one, has that signature.
    """
    ledger = open_ledger(ledger_root)
    places = _places(ledger)
    signature = _find(places, prefix, ledger_root)
    steps: list[dict[str, Any]] = []
    _walk(ledger, places, signature, 0, steps, set())
    if as_json:
        return json.dumps(steps, indent=1, allow_nan=False)
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
    try:
        recorded = ledger.config(stage, signature)
        name, config, inputs = recorded["name"], recorded["config"], recorded["inputs"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        name, config, inputs = f"{stage}: its config.json is gone or damaged", {}, {}
    steps.append(
        {
            "depth": depth,
            "signature": signature,
            "stage": stage,
            "name": name,
            "config": config,
            **_outcome(ledger, stage, signature),
        }
    )
    for parents in inputs.values():
        for parent in [parents] if isinstance(parents, str) else parents:
            _walk(ledger, places, parent, depth + 1, steps, seen)


def _outcome(ledger: Ledger, stage: str, signature: str) -> dict[str, Any]:
    """State, metrics, attempts and provenance of a cell; of a corpus the recordings too."""
    state, status = "no result", None
    try:
        status = ledger.status(stage, signature)
    except StatusDamaged:
        state = "status damaged"
    attempts = status.attempts if status is not None else ledger.history(stage, signature)
    found: dict[str, Any] = {
        "state": status.state if status is not None else state,
        "failure": status.failure if status is not None else None,
        "metrics": plain(status.metrics) if status is not None else {},
        "attempts": [f"{attempt.id}: {attempt.reason.value} -> {attempt.outcome}" for attempt in attempts],
        "provenance": dict(status.provenance) if status is not None else {},
    }
    if stage == "corpus" and status is not None and status.state == "done":
        found["recordings"] = _recordings(ledger, signature)
    return found


def _recordings(ledger: Ledger, signature: str) -> list[dict[str, Any]]:
    """What the walk ends at: each recording, where it lies, and the fingerprint of its samples."""
    try:
        content = json.loads(ledger.artefact("corpus", signature, None).read_bytes("corpus.json"))
        return [
            {"id": one["id"], "file": one["path"] or one["file"], "pcm_fingerprint": one["pcm_fingerprint"]}
            for one in content["recordings"]
        ]
    except (CorruptArtefact, OSError, ValueError, KeyError, TypeError) as error:
        return [{"id": f"corpus.json cannot be read: {error}", "file": None, "pcm_fingerprint": ""}]


def _line(step: dict[str, Any]) -> str:
    margin = "  " * step["depth"]
    head = f"{margin}{step['signature'][:SHORT]}  {step['name']}"
    if "config" not in step:
        return head
    numbers = {key: value for key, value in step["metrics"].items() if isinstance(value, int | float)}
    shown = ", ".join(f"{key}={value:.4g}" for key, value in list(numbers.items())[:6])
    lines = [f"{head}  [{step['state']}]  {step['failure'] or shown}".rstrip()]
    if len(step["attempts"]) > 1 or step["state"] in ("no result", "status damaged"):
        lines.append(f"{margin}    attempts: {'; '.join(step['attempts']) or 'none'}")
    recordings = step.get("recordings", [])
    for one in recordings[:SHOWN]:
        file = f"  {one['file']}" if one["file"] else ""
        lines.append(f"{margin}    recording {one['id']}  {one['pcm_fingerprint'][:SHORT]}{file}".rstrip())
    if len(recordings) > SHOWN:
        lines.append(f"{margin}    ... and {len(recordings) - SHOWN} more recordings (--json names them all)")
    return "\n".join(lines)
