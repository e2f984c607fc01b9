"""Attempts at a cell: each has a folder of its own, and together they tell why anything was computed again."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.graph import CellSpec
from orchestrator.paths import check_name, check_path
from orchestrator.reasons import Reason
from orchestrator.status import AttemptRecord, Status, StatusDamaged, dump
from orchestrator.storage import Storage

_ATTEMPT_IN_TEXT = re.compile(rb'"attempt":\s*"([^"\\/]+)"')
ABANDONED = "abandoned.json"
"""Beside an attempt that was given up in order: why."""

_RECORDS = ("attempt.json", "superseded.json")


def cell_path(stage: str, signature: str, *inside: str) -> str:
    """Path of a cell in the ledger, or of something in it."""
    return check_path("/".join((check_name(stage), check_name(signature), *inside)))


def new_attempt_id() -> str:
    """An id that sorts by time and is nobody else's."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Attempt:
    """One attempt at a cell, begun: its files go to `out_dir`, which is already in the ledger when that is local."""

    id: str
    cell: CellSpec
    reason: Reason
    driver: str
    started: str
    out_dir: Path

    def path(self, *inside: str) -> str:
        """Path in the ledger of something in this attempt's folder."""
        return cell_path(self.cell.stage, self.cell.signature, "attempts", self.id, *inside)


def set_aside(storage: Storage, old: bytes, attempt: Attempt, why: Reason) -> None:
    """Move a status that no longer counts into the folder of its attempt, where the history finds it."""
    attempts = cell_path(attempt.cell.stage, attempt.cell.signature, "attempts")
    try:
        status: Status | None = Status.from_json(old)
    except StatusDamaged:
        status, why = None, Reason.STATUS_DAMAGED
    earlier = [name for name in storage.names(attempts) if name != attempt.id]
    record = {
        "why": why.value,
        "by": attempt.id,
        "state": status.state if status else "unreadable",
        "status": json.loads(old) if status else old.decode("utf-8", "replace"),
    }
    storage.write(f"{attempts}/{_attempt_of(old, status, earlier)}/superseded.json", dump(record))
    path = cell_path(attempt.cell.stage, attempt.cell.signature, "status.json")
    if storage.read_many([path]).get(path) == old:  # another driver may have put its result there meanwhile
        storage.delete(path)


def _attempt_of(old: bytes, status: Status | None, earlier: list[str]) -> str:
    """The attempt that wrote a status; of a damaged one as far as it can be told."""
    if status is not None:
        return status.attempt
    found = _ATTEMPT_IN_TEXT.search(old)
    named = found.group(1).decode("utf-8", "replace") if found else ""
    return named if named in earlier else (earlier or ["unknown"])[-1]


def read_history(storage: Storage, stage: str, signature: str, counting: Status | None) -> tuple[AttemptRecord, ...]:
    """All attempts at a cell by time: `counting` is the status that counts now, others ended as their folder says."""
    attempts = cell_path(stage, signature, "attempts")
    own = {record.id: record for record in counting.attempts if record.id == counting.attempt} if counting else {}
    others = [name for name in storage.names(attempts) if name not in own]
    kept = storage.read_many(f"{attempts}/{name}/{file}" for name in others for file in _RECORDS)
    records = dict(own)
    for name in others:
        begun, ended = (_json(kept.get(f"{attempts}/{name}/{file}")) for file in _RECORDS)
        records[name] = AttemptRecord(name, _reason(begun.get("reason")), _outcome(ended))
    return tuple(records[name] for name in sorted(records))


def why_open(record: bytes | None) -> Reason:
    """Why a cell without a status is to do, by what its last attempt left in `ABANDONED`; None: it left nothing."""
    return _reason(_json(record).get("why"), otherwise=Reason.INTERRUPTED)


def _outcome(ended: dict[str, object]) -> str:
    if not ended:
        return "interrupted"
    return "failed" if ended.get("state") == "failed" else "superseded"


def _json(data: bytes | None) -> dict[str, object]:
    try:
        found = json.loads(data) if data is not None else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _reason(value: object, otherwise: Reason = Reason.NEW) -> Reason:
    try:
        return Reason(str(value))
    except ValueError:
        return otherwise
