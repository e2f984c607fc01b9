"""Where cells stand, by what the ledger holds of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from orchestrator.artefacts import wrong_contents
from orchestrator.attempts import ABANDONED, cell_path, why_open
from orchestrator.graph import CellSpec
from orchestrator.reasons import Reason, State
from orchestrator.status import Status, StatusDamaged
from orchestrator.storage import Storage

FEW = 32

Finding = tuple[State, Reason, Status | None]


def parse_status(data: bytes, stage: str, signature: str) -> Status:
    """The status of this very cell; `StatusDamaged` when it is not whole or speaks of another."""
    status = Status.from_json(data)
    if (status.stage, status.signature) != (stage, signature):
        raise StatusDamaged(f"the status file of {stage} {signature[:12]} is that of another cell")
    return status


def judge(status: Status, size: Callable[[str], int | None]) -> Finding:
    """Whether a whole status still has its files, by their sizes."""
    if status.state == "failed":
        return State.FAILED, Reason.FAILED_BEFORE, status
    out = cell_path(status.stage, status.signature, "attempts", status.attempt, "out")
    for name, record in status.files.items():
        found = size(f"{out}/{name}")
        if found is None:
            return State.TO_DO, Reason.FILE_MISSING, status
        if found != record.size:
            return State.TO_DO, Reason.SIZE_MISMATCH, status
    return State.CACHED, Reason.DONE, status


def survey(storage: Storage, cells: Iterable[CellSpec], full: bool) -> dict[str, Finding]:
    """Every cell on its own, whatever its inputs; `full` also hashes all contents of a local store."""
    stages: dict[str, dict[str, None]] = {}
    for cell in cells:
        stages.setdefault(cell.stage, {})[cell.signature] = None
    found: dict[str, Finding] = {}
    for stage, signatures in stages.items():
        found.update(_survey_stage(storage, stage, list(signatures)))
    if full and storage.is_local:
        whole = [status for state, _, status in found.values() if state is State.CACHED and status is not None]
        for signature in wrong_contents(storage, whole):
            found[signature] = (State.TO_DO, Reason.CHECKSUM_MISMATCH, found[signature][2])
    return found


def _survey_stage(storage: Storage, stage: str, signatures: list[str]) -> dict[str, Finding]:
    """A folder is asked for each cell; a remote store is listed once, unless it is about a few cells."""
    listing = None if storage.is_local or len(signatures) <= FEW else storage.find(stage)
    paths = {signature: cell_path(stage, signature, "status.json") for signature in signatures}
    texts = storage.read_many(path for path in paths.values() if listing is None or path in listing)
    told = {signature: texts[path] for signature, path in paths.items() if path in texts}
    untold = [signature for signature in signatures if signature not in told]
    last = _begun(storage, stage, untold) if listing is None else _begun_in(listing)
    reasons = _why_untold(storage, stage, {signature: last[signature] for signature in untold if signature in last})
    size = storage.size if listing is None else listing.get
    found: dict[str, Finding] = {}
    for signature in signatures:
        if signature in told:
            found[signature] = _finding(stage, signature, told[signature], size)
        else:
            found[signature] = (State.TO_DO, reasons.get(signature, Reason.NEW), None)
    return found


def _finding(stage: str, signature: str, text: bytes, size: Callable[[str], int | None]) -> Finding:
    try:
        return judge(parse_status(text, stage, signature), size)
    except StatusDamaged:
        return State.TO_DO, Reason.STATUS_DAMAGED, None


def _why_untold(storage: Storage, stage: str, last: Mapping[str, str]) -> dict[str, Reason]:
    """Why cells without a status are to do, by their last attempts."""
    notes = {key: cell_path(stage, key, "attempts", attempt, ABANDONED) for key, attempt in last.items() if attempt}
    said = storage.read_many(notes.values())
    return {signature: why_open(said.get(notes.get(signature, ""))) for signature in last}


def _begun(storage: Storage, stage: str, signatures: Iterable[str]) -> dict[str, str]:
    """The last attempt at each cell that was begun; "" when there are only checkpoints."""
    found: dict[str, str] = {}
    for signature in signatures:
        attempts = storage.names(cell_path(stage, signature, "attempts"))
        if attempts or storage.names(cell_path(stage, signature, "checkpoints")):
            found[signature] = attempts[-1] if attempts else ""
    return found


def _begun_in(listing: Iterable[str]) -> dict[str, str]:
    """The same from the paths of a stage."""
    found: dict[str, str] = {}
    for parts in (path.split("/", 4) for path in listing):
        if len(parts) > 3 and parts[2] in ("attempts", "checkpoints"):
            attempt = parts[3] if parts[2] == "attempts" else ""
            found[parts[1]] = max(found.get(parts[1], ""), attempt)
    return found
