"""Weights that others have published, brought into the ledger as a cell of their own."""

from __future__ import annotations

import hashlib
import shlex
import time
from typing import TYPE_CHECKING, BinaryIO

from orchestrator.graph import CellSpec
from orchestrator.ledger import Ledger
from orchestrator.models import opened
from orchestrator.opening import check_writable, open_ledger
from orchestrator.reading import UsageError
from orchestrator.reasons import State
from orchestrator.signature import SHORT, sign
from orchestrator.stages import STAGES

if TYPE_CHECKING:
    from tasks.flow.published import Imported

CONVERSION = 1
"""Rises when the conversion of the same file gives other weights."""


def import_weights(file: str, ledger_root: str) -> int:
    """Import `file`, and say how it is used.

    Raises
    ------
    UsageError
        In one line, for a file that is not there, isn't safe to read, or has another layout; nothing is written then.
    """
    ledger = open_ledger(ledger_root)
    cell, is_new = import_flow(ledger, file)
    where = shlex.quote(ledger.storage.shown)
    print(f"{cell.name}: flow {cell.signature[:SHORT]}, {'imported' if is_new else 'imported before'}")
    print(
        f"IC with it: orchestrator surprisal FILES... --model {cell.signature[:SHORT]} --autoencoder SIGNATURE "
        f"--ledger {where}"
    )
    return 0


def import_flow(ledger: Ledger, file: str) -> tuple[CellSpec, bool]:
    """The cell of a published flow checkpoint, and whether it is new in the ledger.

    Raises
    ------
    UsageError
        As `import_weights`.
    """
    name = file.rstrip("/").rsplit("/", 1)[-1]
    with opened(file, ledger.storage.options) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        stream.seek(0)
        config = {"imported": {"kind": "flow", "sha256": digest, "conversion": CONVERSION}}
        signature = sign("flow", STAGES["flow"].version, config, {})
        cell = CellSpec("flow", f"flow {name}", config, {}, signature, {"variant": name})
        state, reason, _ = ledger.survey([cell], full=True)[signature]
        if state is State.CACHED:
            return cell, False
        began = time.monotonic()
        model = _converted(file, stream)
    from orchestrator.study import new_driver

    check_writable(ledger)
    attempt = ledger.begin(cell, reason, new_driver())
    ledger.publish(attempt, attempt.out_dir, model.write(attempt.out_dir), time.monotonic() - began)
    return cell, True


def _converted(file: str, stream: BinaryIO) -> Imported:
    from tasks.contract import TaskError
    from tasks.flow.published import convert
    from tasks.weights import load_checkpoint

    try:
        return convert(load_checkpoint(stream))
    except TaskError as error:
        raise UsageError(f"{file}: {error}") from error
