"""What a finished or failed cell says of itself: the content of ``status.json``."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.paths import check_path
from orchestrator.reasons import Reason

OUTCOMES = ("done", "failed", "interrupted", "superseded")
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class StatusDamaged(Exception):
    """A status file that cannot be read, or whose checksum does not match: it counts as no result."""


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 (hex) of one file of a result."""

    size: int
    sha256: str


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt: why it was made and how it ended (`OUTCOMES`)."""

    id: str
    reason: Reason
    outcome: str


@dataclass(frozen=True)
class Status:
    """State of a cell ("done" or "failed"), the attempt that counts with its files, and all attempts so far.

    NaN and infinite metrics are written as the strings "nan", "inf", "-inf" and read back as floats.
    """

    stage: str
    signature: str
    name: str
    state: str
    attempt: str
    files: Mapping[str, FileRecord]
    metrics: Mapping[str, Any]
    failure: str | None
    reason: Reason
    seconds: float
    attempts: tuple[AttemptRecord, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """JSON for people, with a checksum over everything in it."""
        body = {
            "stage": self.stage,
            "signature": self.signature,
            "name": self.name,
            "state": self.state,
            "attempt": self.attempt,
            "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in self.files.items()},
            "metrics": {str(key): plain(value) for key, value in self.metrics.items()},
            "failure": self.failure,
            "reason": self.reason.value,
            "seconds": plain(self.seconds),
            "attempts": [{"id": a.id, "reason": a.reason.value, "outcome": a.outcome} for a in self.attempts],
            "provenance": dict(self.provenance),
        }
        return dump({**body, "checksum": _checksum(body)})

    @classmethod
    def from_json(cls, data: bytes) -> Status:
        """Read a status file.

        Raises
        ------
        StatusDamaged
            It is not whole: not JSON, a value or the checksum does not fit.
        """
        try:
            body = json.loads(data)
            checksum = body.pop("checksum")
            if checksum != _checksum(body):
                raise StatusDamaged("the checksum of the status file does not match its content")
            return cls._of(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StatusDamaged(f"the status file is not whole: {type(error).__name__}: {error}") from error

    @classmethod
    def _of(cls, body: dict[str, Any]) -> Status:
        if body["state"] not in ("done", "failed"):
            raise ValueError(f"unknown state {body['state']!r}")
        return cls(
            stage=check_path(body["stage"]),
            signature=check_path(body["signature"]),
            name=body["name"],
            state=body["state"],
            attempt=check_path(body["attempt"]),
            files={check_path(n): FileRecord(int(f["size"]), str(f["sha256"])) for n, f in body["files"].items()},
            metrics={key: _parsed(value) for key, value in body["metrics"].items()},
            failure=body["failure"],
            reason=Reason(body["reason"]),
            seconds=float(body["seconds"]),
            attempts=tuple(AttemptRecord(a["id"], Reason(a["reason"]), a["outcome"]) for a in body["attempts"]),
            provenance=body["provenance"],
        )


def plain(value: Any) -> Any:
    """JSON-ready copy of a metric: NumPy scalars and arrays as numbers, NaN and infinities as strings."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _parsed(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_FINITE.get(value, value)
    if isinstance(value, list):
        return [_parsed(item) for item in value]
    if isinstance(value, dict):
        return {key: _parsed(item) for key, item in value.items()}
    return value


def dump(value: Any) -> bytes:
    """JSON for people: sorted, indented, UTF-8, ends in a line break."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(
        errors="backslashreplace"
    )


def _checksum(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
