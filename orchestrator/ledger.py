"""What the study remembers: state, attempts and files of every cell, under the signature of what made them.

No whole status "done", no result; any whole "done" is valid. ``status.json`` is put last and at once, so a process that
is killed at any moment leaves either a whole result or an attempt that the history calls interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from orchestrator import drivers
from orchestrator.artefacts import CorruptArtefact, OpenVerified, sha256_of
from orchestrator.attempts import ABANDONED, Attempt, cell_path, new_attempt_id, read_history, set_aside
from orchestrator.checkpoints import LedgerCheckpoints
from orchestrator.graph import CellSpec
from orchestrator.paths import UnsafePath
from orchestrator.provenance import process_facts, provenance, utc_now
from orchestrator.reasons import Reason, State
from orchestrator.redaction import redact
from orchestrator.signature import canonical_json
from orchestrator.stages import STAGES
from orchestrator.status import AttemptRecord, FileRecord, Status, StatusDamaged, dump
from orchestrator.storage import Storage
from orchestrator.survey import Finding, judge, parse_status, survey
from tasks.contract import Artefact, Checkpoints

__all__ = [
    "Attempt",
    "AttemptRecord",
    "CorruptArtefact",
    "FileRecord",
    "Ledger",
    "Status",
    "StatusDamaged",
]

CRASH_VARIABLE = "ORCHESTRATOR_CRASH_BEFORE_STATUS"
"""Test hook: a process that publishes a cell of the stage named here kills itself between its files and its status."""

_VOIDS_THE_OLD = {
    Reason.FILE_MISSING,
    Reason.SIZE_MISMATCH,
    Reason.CHECKSUM_MISMATCH,
    Reason.STATUS_DAMAGED,
    Reason.INPUT_CORRUPT,
    Reason.RETRY_REQUESTED,
}


class Ledger:
    """Results in one `Storage`; picklable."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def __repr__(self) -> str:
        return f"Ledger({self.storage!r})"

    def status(self, stage: str, signature: str) -> Status | None:
        """What a cell says of itself, None when it says nothing yet; `StatusDamaged` when it cannot be read."""
        try:
            data = self.storage.read(cell_path(stage, signature, "status.json"))
        except FileNotFoundError:
            return None
        return parse_status(data, stage, signature)

    def config(self, stage: str, signature: str) -> dict[str, Any]:
        """Stage, version, name, config, inputs and labels of a cell that was begun; `FileNotFoundError` if never."""
        return cast(dict[str, Any], json.loads(self.storage.read(cell_path(stage, signature, "config.json"))))

    def signatures(self, stage: str) -> list[str]:
        """All cells of a stage that were ever begun."""
        return self.storage.names(stage)

    def attempts(self, stage: str, signature: str) -> list[str]:
        """Ids of all attempts at a cell so far, by time."""
        return self.storage.names(cell_path(stage, signature, "attempts"))

    def history(self, stage: str, signature: str) -> tuple[AttemptRecord, ...]:
        """All attempts at a cell so far by time, those after its last status included."""
        try:
            counting = self.status(stage, signature)
        except StatusDamaged:
            counting = None
        return read_history(self.storage, stage, signature, counting)

    def survey(self, cells: Iterable[CellSpec], full: bool) -> dict[str, Finding]:
        """State, reason and status of every cell on its own, by existence and sizes; `full` hashes local contents."""
        return survey(self.storage, cells, full)

    def begin(self, cell: CellSpec, reason: Reason, driver: str) -> Attempt:
        """Open an attempt; a status that no longer counts is moved to its attempt, so that the history explains it."""
        attempt = Attempt(new_attempt_id(), cell, reason, driver, utc_now(), Path())
        self._write_config(cell, fresh=reason is Reason.NEW)
        facts = process_facts()
        record = {"reason": reason.value, "driver": driver, "host": facts["host"], "pid": os.getpid()}
        self.storage.write(attempt.path("attempt.json"), dump({**record, "started": attempt.started}))
        self._set_aside_old(attempt)
        out = self.storage.local_path(attempt.path("out"))
        if out is None:
            out = Path(tempfile.mkdtemp(prefix=f"{cell.stage}-{cell.signature[:12]}-"))
        out.mkdir(parents=True, exist_ok=True)
        return replace(attempt, out_dir=out)

    def publish(self, attempt: Attempt, out_dir: Path, metrics: Mapping[str, Any], seconds: float) -> Status:
        """Make the files in `out_dir` the result of the attempt's cell; `out_dir` is given up.

        When another driver has published the same cell meanwhile, its result stays and is returned.
        """
        cell = attempt.cell
        files = self._take(attempt, out_dir)
        if os.environ.get(CRASH_VARIABLE) == cell.stage:
            os.kill(os.getpid(), signal.SIGKILL)
        status = self._describe(attempt, "done", Reason.DONE, seconds)
        status = replace(status, files=files, metrics=dict(metrics))
        counts = self._put_status(attempt, status)
        if cell.stage not in STAGES or STAGES[cell.stage].training:
            self.storage.delete(cell_path(cell.stage, cell.signature, "checkpoints"), recursive=True)
        return counts

    def fail(self, attempt: Attempt, reason: Reason, sentence: str, seconds: float) -> Status:
        """Record why there is no result; a whole result of another attempt stays and is returned."""
        shutil.rmtree(attempt.out_dir, ignore_errors=True)
        status = replace(self._describe(attempt, "failed", reason, seconds), failure=redact(sentence))
        return self._put_status(attempt, status)

    def abandon(self, attempt: Attempt, why: Reason) -> None:
        """Drop the unpublished files of an attempt that stops here; `why` is the reason of the next one."""
        shutil.rmtree(attempt.out_dir, ignore_errors=True)
        self.storage.write(attempt.path(ABANDONED), dump({"why": why.value}))

    def abandon_last(self, cell: CellSpec, why: Reason) -> None:
        """Say of the last attempt at a cell that it was given up, whose process perhaps had no time to say so."""
        for attempt in self.storage.names(cell_path(cell.stage, cell.signature, "attempts"))[-1:]:
            path = cell_path(cell.stage, cell.signature, "attempts", attempt, ABANDONED)
            if not self.storage.exists(path):
                self.storage.write(path, dump({"why": why.value}))

    def artefact(self, stage: str, signature: str, cache: Path | None) -> Artefact:
        """A finished cell as later stages read it; each file is verified when it is first opened in this process.

        Raises
        ------
        CorruptArtefact
            There is no whole result, now or when a file is opened.
        """
        try:
            status = self.status(stage, signature)
            config = self.config(stage, signature)["config"]
        except StatusDamaged as error:
            raise CorruptArtefact(stage, signature, "status.json", Reason.STATUS_DAMAGED) from error
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtefact(stage, signature, "config.json", Reason.FILE_MISSING) from error
        if status is None or status.state != "done":
            raise CorruptArtefact(stage, signature, "status.json", Reason.FILE_MISSING)
        return Artefact(signature, stage, config, status.metrics, OpenVerified(self.storage, status, cache))

    def checkpoints(self, stage: str, signature: str, scratch: Path) -> Checkpoints:
        """Where a training of this cell keeps what it needs to go on, on this node or another."""
        return LedgerCheckpoints(self.storage, cell_path(stage, signature, "checkpoints"), scratch)

    def heartbeat(self, driver: str, study: str = "", claims: Iterable[str] = ()) -> None:
        """Say that this process drives `study` under the id `driver`, and which cells it has in hand."""
        drivers.beat(self.storage, driver, study, claims)

    def peers(self, driver: str, max_age_s: float) -> dict[str, drivers.Peer]:
        """The other drivers at work, and what each has in hand."""
        return drivers.peers(self.storage, driver, max_age_s)

    def leave(self, driver: str) -> None:
        """Say that the driver ended in order."""
        drivers.leave(self.storage, driver)

    def clear_dead_drivers(self) -> None:
        """Remove what killed drivers left of themselves."""
        drivers.clear_dead(self.storage)

    def alive_drivers(self, max_age_s: float) -> set[str]:
        """Ids of the drivers that are at work."""
        return drivers.alive(self.storage, max_age_s)

    def _write_config(self, cell: CellSpec, fresh: bool) -> None:
        """Put ``config.json`` unless a readable one with the same content is there; a `fresh` cell is not asked."""
        version = STAGES[cell.stage].version if cell.stage in STAGES else 1
        inputs = {role: value if isinstance(value, str) else list(value) for role, value in cell.inputs.items()}
        record = {"stage": cell.stage, "version": version, "config": dict(cell.config), "inputs": inputs}
        try:
            there = {} if fresh else self.config(cell.stage, cell.signature)
            if not fresh and canonical_json({key: there[key] for key in record}) == canonical_json(record):
                return
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        record = json.loads(canonical_json({**record, "name": cell.name, "labels": dict(cell.labels)}))
        self.storage.write(cell_path(cell.stage, cell.signature, "config.json"), dump(record))

    def _set_aside_old(self, attempt: Attempt) -> None:
        cell = attempt.cell
        try:
            old = self.storage.read(cell_path(cell.stage, cell.signature, "status.json"))
        except FileNotFoundError:
            return
        if attempt.reason in _VOIDS_THE_OLD or not self._is_result(old, cell):
            set_aside(self.storage, old, attempt, attempt.reason)
            self._unmark(cell)

    def _unmark(self, cell: CellSpec) -> None:
        for state in ("done", "failed"):
            self.storage.delete(_marker(cell, state))

    def _is_result(self, data: bytes, cell: CellSpec) -> bool:
        try:
            status = parse_status(data, cell.stage, cell.signature)
        except StatusDamaged:
            return False
        return judge(status, self.storage.size)[0] is State.CACHED

    def _take(self, attempt: Attempt, out_dir: Path) -> dict[str, FileRecord]:
        """Hash the files of an attempt and move them to its folder, side by side to a remote one."""
        found = {file.relative_to(out_dir).as_posix(): file for file in _plain_files(out_dir)}
        targets = {name: attempt.path("out", name) for name in found}
        files = {n: FileRecord(file.stat().st_size, sha256_of(file, trust_known=False)) for n, file in found.items()}
        self.storage.adopt_many({found[name]: targets[name] for name in found})
        for folder in {out_dir, attempt.out_dir} - {self.storage.local_path(attempt.path("out"))}:
            shutil.rmtree(folder, ignore_errors=True)
        return files

    def _describe(self, attempt: Attempt, state: str, reason: Reason, seconds: float) -> Status:
        cell, own = attempt.cell, AttemptRecord(attempt.id, attempt.reason, state)
        facts = provenance(attempt.started)
        return Status(
            cell.stage, cell.signature, cell.name, state, attempt.id, {}, {}, None, reason, seconds, (own,), facts
        )

    def _put_status(self, attempt: Attempt, status: Status) -> Status:
        """Put the status last, unless another attempt has a result already; then the index, which nobody trusts."""
        cell = attempt.cell
        path = cell_path(cell.stage, cell.signature, "status.json")
        there = self.storage.read_many([path]).get(path)
        if there is not None and not self._is_result(there, cell):
            self._unmark(cell)
            set_aside(self.storage, there, attempt, attempt.reason)
        status = replace(status, attempts=read_history(self.storage, cell.stage, cell.signature, status))
        there = self.storage.read_many([path]).get(path)  # as late as can be: another driver may be as far
        if there is not None and self._is_result(there, cell):
            other = parse_status(there, cell.stage, cell.signature)
            if other.attempt != attempt.id:
                record = {"why": Reason.DONE.value, "by": other.attempt, "state": status.state}
                record["status"] = json.loads(status.to_json())
                self.storage.write(attempt.path("superseded.json"), dump(record))
                return other
        self.storage.write(path, status.to_json())
        self.storage.write(_marker(cell, status.state), b"")
        return status


def _marker(cell: CellSpec, state: str) -> str:
    return f"index/{cell_path(cell.stage, cell.signature)}.{state}"


def _plain_files(folder: Path) -> list[Path]:
    """All files below `folder`; links are refused, for they may lead out of it."""
    found = sorted(folder.rglob("*"))
    for file in found:
        if file.is_symlink():
            raise UnsafePath(f"{file.name!r} is a link. A result consists of plain files: write a copy instead.")
    return [file for file in found if file.is_file()]
