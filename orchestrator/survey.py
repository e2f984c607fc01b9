"""Where cells stand, by what the ledger holds of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from orchestrator.artefacts import wrong_contents
from orchestrator.attempts import cell_path
from orchestrator.graph import CellSpec
from orchestrator.reasons import Reason, State
from orchestrator.status import Status, StatusDamaged
from orchestrator.storage import Storage

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
    """A folder is asked for each cell; a remote store is listed once."""
    paths = {signature: cell_path(stage, signature, "status.json") for signature in signatures}
    if storage.is_local:
        size: Callable[[str], int | None] = storage.size
        begun = {signature for signature in signatures if _has_begun(storage, stage, signature)}
    else:
        listing = storage.find(stage)
        size, begun = listing.get, _begun_in(listing)
        paths = {signature: path for signature, path in paths.items() if path in listing}
    texts = storage.read_many(paths.values())
    return {
        signature: _finding(stage, signature, texts.get(paths.get(signature, "")), size, signature in begun)
        for signature in signatures
    }


def _finding(stage: str, signature: str, text: bytes | None, size: Callable[[str], int | None], begun: bool) -> Finding:
    if text is None:
        return State.TO_DO, Reason.INTERRUPTED if begun else Reason.NEW, None
    try:
        return judge(parse_status(text, stage, signature), size)
    except StatusDamaged:
        return State.TO_DO, Reason.STATUS_DAMAGED, None


def _has_begun(storage: Storage, stage: str, signature: str) -> bool:
    return any(storage.names(cell_path(stage, signature, kind)) for kind in ("attempts", "checkpoints"))


def _begun_in(listing: Mapping[str, int]) -> set[str]:
    parts = (path.split("/", 3) for path in listing)
    return {part[1] for part in parts if len(part) == 4 and part[2] in ("attempts", "checkpoints")}
