"""Why a cell is computed, kept, waited for or left out: one vocabulary for plan, console, MLflow tags and report."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a cell stands before a run touches it."""

    CACHED = "cached"
    TO_DO = "to do"
    BLOCKED = "blocked"
    FAILED = "failed"


class Reason(StrEnum):
    """The one reason that is named for a state or an attempt."""

    DONE = "done"
    NEW = "new"
    INTERRUPTED = "interrupted"
    FILE_MISSING = "file_missing"
    SIZE_MISMATCH = "size_mismatch"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    STATUS_DAMAGED = "status_damaged"
    RETRY_REQUESTED = "retry_requested"
    FAILED_BEFORE = "failed_before"
    INPUT_TO_DO = "input_to_do"
    INPUT_FAILED = "input_failed"
    INPUT_CORRUPT = "input_corrupt"
    SET_BACK = "set_back"
    DATA_MISSING = "data_missing"
    STOPPED = "stopped"
    PRUNED = "pruned"
    LOST_PROCESS = "lost_process"
    NOT_BEGUN = "not_begun"
    NO_SPACE = "no_space"
    STORAGE_AWAY = "storage_away"
    ERROR = "error"


TROUBLES = frozenset({Reason.NOT_BEGUN, Reason.NO_SPACE, Reason.STORAGE_AWAY})
"""Trouble of a node or of the store, in which a cell has no part: it waits, and is computed again."""

SENTENCES: dict[Reason, str] = {
    Reason.DONE: "its result is in the ledger",
    Reason.NEW: "no result yet",
    Reason.INTERRUPTED: "an attempt began and its process died before it was published",
    Reason.FILE_MISSING: "a file of its result is gone",
    Reason.SIZE_MISMATCH: "a file of its result has another size than was published",
    Reason.CHECKSUM_MISMATCH: "a file of its result has another checksum than was published",
    Reason.STATUS_DAMAGED: "its status file cannot be read",
    Reason.RETRY_REQUESTED: "it failed before, and --retry failed asks for another attempt",
    Reason.FAILED_BEFORE: "it failed before; --retry failed tries again",
    Reason.INPUT_TO_DO: "an input is still to do",
    Reason.INPUT_FAILED: "an input failed",
    Reason.INPUT_CORRUPT: "an input did not match its checksum when it was read",
    Reason.SET_BACK: "another cell of its task met a corrupt input",
    Reason.DATA_MISSING: "its data are not there yet",
    Reason.STOPPED: "the study was asked to stop",
    Reason.PRUNED: "a search stopped it early, for others did better",
    Reason.LOST_PROCESS: "the process or node that computed it was lost",
    Reason.NOT_BEGUN: "the node could not start the process that should have computed it",
    Reason.NO_SPACE: "the node that computed it had no room left on its disk",
    Reason.STORAGE_AWAY: "the ledger did not answer",
    Reason.ERROR: "it raised an error",
}
