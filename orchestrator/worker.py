"""Computes the cells of one task in the process it is called in, and publishes each as soon as it is whole."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator import trouble
from orchestrator.ledger import Attempt, CorruptArtefact, Ledger
from orchestrator.node_cache import default_folder
from orchestrator.orders import Emit, Event, Pruned, WorkOrder
from orchestrator.outside import open_outside
from orchestrator.reasons import Reason
from orchestrator.redaction import redact
from orchestrator.storage import Storage
from orchestrator.trouble import StorageAway
from tasks.contract import Artefact, Cell, Context, Input, Result, Run, Stopped, TaskError

STOP_CHECK_S, STOP_CHECK_AWAY_S = 1.0, 15.0
FULL_BELOW_BYTES = 2**20
LONGEST_SENTENCE = 400
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def execute(order: WorkOrder, emit: Emit, should_stop: Callable[[], bool]) -> None:
    """Compute and publish the cells of `order`; what goes wrong becomes a status or an event, never an exception."""
    left = dict.fromkeys(spec.signature for spec in order.cells)

    def tell(event: Event) -> None:
        if event.kind not in ("started", "progress"):
            left.pop(event.signature, None)
        emit(event)

    try:
        with tempfile.TemporaryDirectory(prefix="orchestrator-") as scratch, threads(order.stage.threads) as settle:
            _Task(order, tell, should_stop, Path(scratch), settle).run()
    except Exception as error:  # the ledger could not be written to, or there is no room for temporary files
        for signature in left:
            emit(Event("lost", signature, reason=trouble_of(error) or Reason.ERROR, sentence=sentence(error)))


def trouble_of(error: BaseException, folder: Path | None = None) -> Reason | None:
    """The trouble of a node or of the store, in which a cell has no part; not every library names a full disk."""
    if trouble.away(error):
        return Reason.STORAGE_AWAY
    if trouble.no_room(error):
        return Reason.NO_SPACE
    with suppress(OSError):
        if folder is not None and shutil.disk_usage(folder).free < FULL_BELOW_BYTES:
            return Reason.NO_SPACE
    return None


def stop_marker(storage: Storage, path: str) -> Callable[[], bool]:
    """True once the file `path` exists; asked often, it looks only every second."""
    seen, look_at, hasty = False, 0.0, storage.hasty()

    def should_stop() -> bool:
        nonlocal seen, look_at
        if not seen and time.monotonic() >= look_at:
            try:
                seen = hasty.exists(path)
                look_at = time.monotonic() + STOP_CHECK_S
            except Exception:  # a store that is not reachable for a while stops nothing, and holds up nothing
                look_at = time.monotonic() + STOP_CHECK_AWAY_S
        return seen

    return should_stop


@contextmanager
def threads(count: int) -> Iterator[Callable[[], None]]:
    """Hold numerical libraries to `count` threads; call what it yields after imports that may have brought in more."""
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(count)))
    limits = [threadpool_limits(limits=count)]
    torch_before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None

    def settle() -> None:
        limits.append(threadpool_limits(limits=count))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(count)

    settle()
    try:
        yield settle
    finally:
        for limit in reversed(limits):
            limit.restore_original_limits()
        if torch_before is not None:
            sys.modules["torch"].set_num_threads(torch_before)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class _Task:
    """One execution of one order."""

    def __init__(
        self, order: WorkOrder, emit: Emit, should_stop: Callable[[], bool], scratch: Path, settle: Callable[[], None]
    ) -> None:
        self._order = order
        self._emit = emit
        self._should_stop = should_stop
        self._scratch = scratch
        self._settle = settle
        self._ledger = Ledger(order.storage)
        self._specs = {spec.signature: spec for spec in order.cells}
        self._open: dict[str, tuple[Attempt, Cell]] = {}
        self._artefacts: dict[str, Artefact] = {}
        self._corrupt: CorruptArtefact | None = None
        self._away: StorageAway | None = None
        self._since = time.monotonic()

    def run(self) -> None:
        try:
            run = self._order.stage.load()
        except Exception as error:
            self._begin_all()
            if not self._lose(error):
                self._fail_all(error)
            return
        self._settle()
        self._begin_all()
        if self._open and not self._compute(run, list(self._open)):
            for signature in list(self._open):  # one of several cells raised: each alone, to find out which
                self._compute(run, [signature])

    def _begin_all(self) -> None:
        for spec in self._order.cells:
            if self._should_stop():
                self._emit(Event("stopped", spec.signature))
                continue
            attempt = self._ledger.begin(spec, self._order.reasons[spec.signature], self._order.driver)
            self._emit(Event("started", spec.signature))
            try:
                inputs = {role: self._input(value) for role, value in spec.inputs.items()}
            except CorruptArtefact as error:
                self._ledger.abandon(attempt, Reason.INPUT_CORRUPT)
                self._emit(Event("corrupt", spec.signature, reason=error.reason, producer=error.signature))
                continue
            except Exception as error:
                if trouble_of(error, self._scratch) is not None:
                    raise
                self._fail(attempt, spec.signature, error)
                continue
            cell = Cell(spec.signature, spec.stage, spec.config, inputs, attempt.out_dir, spec.places)
            self._open[spec.signature] = (attempt, cell)

    def _compute(self, run: Run, signatures: list[str]) -> bool:
        """Run the stage on some cells; False when it raised and it is not clear which of them is to blame."""
        cells = [self._fresh(self._open[signature][1]) for signature in signatures]
        self._since = time.monotonic()
        try:
            results = run(cells, self._context(signatures))
            for result in results:
                self._take(result)
                if self._open and self._should_stop() and not self._order.stage.training:
                    raise Stopped
        except Stopped as stop:
            self._let_go(Reason.PRUNED if isinstance(stop, Pruned) else Reason.STOPPED)
        except CorruptArtefact as error:
            self._recompute(error)
        except Exception as error:
            return self._raised(error, signatures)
        for signature in signatures:
            if signature in self._open:
                self._fail_one(signature, TaskError(f"the stage {self._order.stage.name!r} gave no result for it"))
        return True

    def _raised(self, error: Exception, signatures: list[str]) -> bool:
        if self._corrupt is not None:
            self._recompute(self._corrupt)
            return True
        if self._lose(self._away or error):
            return True
        left = [signature for signature in signatures if signature in self._open]
        if len(signatures) > 1 and left:
            return False
        for signature in left:
            self._fail_one(signature, error)
        return True

    def _fresh(self, cell: Cell) -> Cell:
        shutil.rmtree(cell.out_dir, ignore_errors=True)
        cell.out_dir.mkdir(parents=True)
        return cell

    def _take(self, result: Result) -> None:
        """Publish or fail the cell of `result`, unless an input turned out to be corrupt, or could not be read."""
        if self._corrupt is not None and self._corrupt.signature in self._specs[result.signature].parents:
            raise self._corrupt
        if self._away is not None:  # what it says of the part it could not read is no property of that part
            raise self._away
        attempt, cell = self._open[result.signature]
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        if result.failure is None:
            status = self._ledger.publish(attempt, cell.out_dir, result.metrics, seconds)
        else:
            status = self._ledger.fail(attempt, Reason.ERROR, result.failure, seconds)
        del self._open[result.signature]
        theirs = status.attempt != attempt.id
        self._emit(Event("settled", result.signature, status=status, superseded=theirs))

    def _context(self, signatures: list[str]) -> Context:
        def progress(done: int, total: int, metrics: Mapping[str, float]) -> None:
            current = next((signature for signature in signatures if signature in self._open), signatures[-1])
            self._emit(Event("progress", current, step=done, total=total, metrics=dict(metrics)))

        def checkpoints(signature: str) -> Any:
            return self._ledger.checkpoints(self._order.stage.name, signature, self._scratch / "checkpoints")

        def open_file(path: str) -> BinaryIO:
            url = path if "://" in path else os.path.join(self._order.folder, path)  # noqa: PTH118
            try:
                return open_outside(url, options=self._order.storage.options)
            except StorageAway as error:
                self._away = error
                raise

        return Context(open_file, progress, self._should_stop, checkpoints)

    def _input(self, value: str | tuple[str, ...]) -> Input:
        if isinstance(value, str):
            return self._artefact(value)
        return tuple(self._artefact(signature) for signature in value)

    def _artefact(self, signature: str) -> Artefact:
        if signature not in self._artefacts:
            found = self._ledger.artefact(self._order.stage_of[signature], signature, default_folder() / "inputs")
            self._artefacts[signature] = Artefact(
                found.signature, found.stage, found.config, found.metrics, self._watched(found)
            )
        return self._artefacts[signature]

    def _watched(self, artefact: Artefact) -> Callable[[str], BinaryIO]:
        """Remember a corrupt input or a store that is away, even when the stage swallows that and names a part."""

        def open_(name: str) -> BinaryIO:
            try:
                return artefact.open(name)
            except CorruptArtefact as error:
                self._corrupt = error
                raise
            except StorageAway as error:
                self._away = error
                raise

        return open_

    def _recompute(self, error: CorruptArtefact) -> None:
        for signature, (attempt, _) in list(self._open.items()):
            del self._open[signature]
            if error.signature in self._specs[signature].parents:
                self._ledger.abandon(attempt, Reason.INPUT_CORRUPT)
                self._emit(Event("corrupt", signature, reason=error.reason, producer=error.signature))
            else:
                self._ledger.abandon(attempt, Reason.SET_BACK)
                self._emit(Event("again", signature))

    def _lose(self, error: Exception) -> bool:
        """Give all open cells back when it was none of their doing; False when it may have been."""
        reason = trouble_of(error, self._scratch)
        if reason is None:
            return False
        given_back = [attempt for attempt, _ in self._open.values()]
        for signature in list(self._open):
            del self._open[signature]
            self._emit(Event("lost", signature, reason=reason, sentence=sentence(error)))
        with suppress(Exception):  # the next attempt says why; a store that is away is waited for only once
            for attempt in given_back:
                self._ledger.abandon(attempt, reason)
        return True

    def _let_go(self, why: Reason) -> None:
        for signature, (attempt, _) in list(self._open.items()):
            del self._open[signature]
            self._ledger.abandon(attempt, why)
            self._emit(Event("stopped", signature))

    def _fail_all(self, error: Exception) -> None:
        for signature in list(self._open):
            self._fail_one(signature, error)

    def _fail_one(self, signature: str, error: Exception) -> None:
        attempt, _ = self._open.pop(signature)
        self._fail(attempt, signature, error)

    def _fail(self, attempt: Attempt, signature: str, error: Exception) -> None:
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        text = "".join(traceback.format_exception(error))
        self._ledger.storage.write(attempt.path("traceback.txt"), redact(text).encode())
        status = self._ledger.fail(attempt, Reason.ERROR, sentence(error), seconds)
        self._emit(Event("settled", signature, status=status))


def placed(error: BaseException) -> str:
    """An exception in one line, with the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" [{Path(frames[-1].filename).name}:{frames[-1].lineno}]" if frames else ""
    return sentence(error) + where


def sentence(error: BaseException) -> str:
    """An exception in one line: the message alone for a `TaskError`, which is written for people."""
    text = textwrap.shorten(redact(str(error)), LONGEST_SENTENCE, placeholder=" ...")
    return text if isinstance(error, TaskError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
