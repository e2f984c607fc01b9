"""Mirrors a study in MLflow while it runs, from a thread of its own: no store, slow or broken, stops a study."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import mirror
from orchestrator.background import Background, Trouble
from orchestrator.graph import CellSpec, Graph
from orchestrator.reasons import Reason
from orchestrator.redaction import redact
from orchestrator.report.results import States, simulates
from orchestrator.tracking_errors import judge
from orchestrator.trouble import StorageAway

if TYPE_CHECKING:
    from orchestrator.ledger import Ledger, Status
    from orchestrator.report import Report
    from orchestrator.study import Outcome
    from orchestrator.tracking import Store

SQLITE = "sqlite:///"
DRAIN_S, DRAIN_AT_MOST_S, DRAIN_STOPPED_S, MAX_AGE_S = 120.0, 1800.0, 10.0, 60.0
LONGEST_LINE = 300
MOST_POINTS = 10_000
"""Points of one curve that wait for a store; what a training finishes with comes from the ledger."""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Tracking:
    """An observer of a study; `report_built` and `close` come after `study_finished`.

    Where neither the cells nor a sqlite store changed since the last mirror, MLflow isn't even imported.
    """

    def __init__(
        self,
        uri: str,
        study: str,
        ledger: Ledger,
        driver: str,
        say: Callable[[str], None] = _say,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """`tags` are put on every run."""
        self._uri, self._study, self._ledger, self._driver, self._say = uri, study, ledger, driver, say
        self._tags = dict(tags or {})
        self._writer: Background[Store] = Background(self._open, self._flush, self)
        self._held: dict[Hashable, Callable[[Store], None]] | None = None
        self._points: dict[str, tuple[CellSpec, mirror.Curve]] = {}
        self._lock = threading.Lock()
        self._mark = _Mark(uri, study)
        self._simulated = False
        self._status = "FINISHED"
        self._answered = self._gave_up = self._others_run = False

    # What the study tells

    def study_started(self, graph: Graph, states: States) -> None:
        """Take up the parent run, and end what dead drivers left running."""
        self._simulated = simulates(graph)
        self._mark.cells = {sig: f"{s.state} {s.attempt}" for sig, (_, _, s) in states.items() if s is not None}
        self._held = {} if self._mark.holds() else None
        self._do("start", self._start)

    def cell_started(self, cell: CellSpec, reason: Reason) -> None:
        self._release()
        if mirror.is_training(cell):
            tags = {"driver": self._driver, "reason": reason.value}
            self._do(cell.signature, lambda store: store.begin(mirror.training(cell), tags))

    def cell_progress(self, cell: CellSpec, step: int, total: int, metrics: Mapping[str, float]) -> None:
        values = {key: number for key, value in metrics.items() if (number := mirror.number(value)) is not None}
        if mirror.is_training(cell) and values:
            with self._lock:
                rows = self._points.setdefault(cell.signature, (cell, []))[1]
                rows.append((step, values))
                if len(rows) > MOST_POINTS:
                    del rows[:-1:2]

    def cell_finished(self, cell: CellSpec, status: Status, cached: bool) -> None:
        self._mark.cells[cell.signature] = f"{status.state} {status.attempt}"
        if not cached:
            self._release()
        if mirror.is_training(cell):
            self._do(cell.signature, lambda store: self._mirror(store, cell, status, cached))

    def cell_pruned(self, cell: CellSpec) -> None:
        """A search stopped a training early: nobody shall take its run for a whole one."""
        self._do(cell.signature, lambda store: self._end_pruned(store, cell))

    def trials_scored(self, measure: str, scores: Mapping[int, float]) -> None:
        """The scores of a search on the parent run, trial by trial."""
        rows = [(number, {f"search/{measure}": score}) for number, score in sorted(scores.items())]
        self._do("trials", lambda store: store.log((mirror.PARENT, self._study), rows, rewrite=True))

    def study_finished(self, outcome: Outcome) -> None:
        """End every run of this driver, and wait until that is written."""
        self._status = "KILLED" if outcome.stopped else "FAILED" if outcome.exit_code else "FINISHED"
        self._do("points", self._flush)
        self._do("end", lambda store: self._finish(store, outcome.stopped))
        self._wait()

    def report_built(self, report: Report) -> None:
        """One run per variant with its curves over noise level; figures and tables on the parent."""
        paths = sorted(report.paths.items())
        self._mark.report = mirror.digest(part for name, path in paths for part in (name, path.read_bytes()))
        if not self._mark.holds():
            self._release()
        self._do("report", lambda store: self._show(store, report))
        self._wait()

    def close(self) -> None:
        """Write what is left, and remember that this state is mirrored; what is missing is said."""
        whole = self._wait()
        if self._writer.broken or not self._writer.started:
            return
        if not whole:
            self._say(
                f"MLflow ({redact(self._uri)}) does not have {self._missing()}. The ledger has everything: "
                "the same command sends it, and computes nothing again."
            )
        elif self._status != "KILLED" and not self._others_run:
            self._mark.put()

    def _wait(self) -> bool:
        """Wait for what is to be written as long as it makes headway; a store that was given up gets no second wait."""
        if self._gave_up:
            stalled_s, at_most_s = 0.1, 0.1
        elif self._status == "KILLED":
            stalled_s, at_most_s = DRAIN_STOPPED_S, DRAIN_STOPPED_S
        else:
            stalled_s, at_most_s = DRAIN_S, DRAIN_AT_MOST_S
        self._gave_up = not self._writer.drain(stalled_s, at_most_s)
        return not self._gave_up

    def _missing(self) -> str:
        left = set(self._writer.left())
        trainings = len(left - {"start", "points", "end", "report", "trials", "idle"})
        parts = [f"{trainings} training{'s' if trainings > 1 else ''}"] if trainings else []
        parts += ["the report"] if "report" in left else []
        return " and ".join(parts or ["the end of this run"])

    # What is written, in the thread

    def _start(self, store: Store) -> None:
        store.close_dead(self._ledger.alive_drivers(MAX_AGE_S))
        store.begin(mirror.parent(self._study), {"driver": self._driver})

    def _mirror(self, store: Store, cell: CellSpec, status: Status, cached: bool) -> None:
        content, tags = mirror.training(cell), mirror.attempt_tags(status)
        found = store.found(content.key)
        last = "FINISHED" if status.state == "done" else "FAILED"
        if cached and found and found[0] == last and found[1].get("attempt") == status.attempt:
            return
        if cached and found is None:
            other = store.study_that_computed(cell.signature)
            tags |= {"reused_from": other} if other else {"rebuilt": "true"}
        store.begin(content, {**tags, "driver": self._driver})
        store.log(content.key, self._curve(cell, status))
        store.log(content.key, [(0, mirror.final_metrics(status.metrics))], rewrite=True)
        store.end(content.key, last, {})
        with self._lock:
            self._points.pop(cell.signature, None)

    def _end_pruned(self, store: Store, cell: CellSpec) -> None:
        content = mirror.training(cell)
        store.begin(content, {"driver": self._driver})
        self._flush(store)
        store.end(content.key, "KILLED", {"stop_reason": Reason.PRUNED.value})

    def _curve(self, cell: CellSpec, status: Status) -> mirror.Curve:
        with self._lock:
            live = list(self._points.get(cell.signature, (cell, []))[1])
        if status.state != "done":
            return live
        try:
            text = self._ledger.artefact(cell.stage, cell.signature, None).read_bytes("curve.csv").decode()
        except StorageAway:
            raise  # the curve is there, and is sent when it can be read
        except Exception:  # gone or damaged: the ledger's own survey says so, and computes it again
            return live
        return mirror.curve(text)

    def _flush(self, store: Store) -> None:
        """Points of curves that grow; what a resumed training repeats is already there."""
        with self._lock:
            taken = {signature: (cell, rows) for signature, (cell, rows) in self._points.items() if rows}
            self._points.update({signature: (cell, []) for signature, (cell, _) in taken.items()})
        while taken:
            signature, (cell, rows) = next(iter(taken.items()))
            key = mirror.training(cell).key
            try:
                if store.found(key):
                    store.log(key, rows)
            except Exception:  # only what is written is forgotten: a job that fails is done again
                self._put_back(taken)
                raise
            del taken[signature]

    def _put_back(self, taken: Mapping[str, tuple[CellSpec, mirror.Curve]]) -> None:
        with self._lock:
            for signature, (cell, rows) in taken.items():
                self._points[signature] = (cell, rows + self._points.get(signature, (cell, []))[1])

    def _finish(self, store: Store, stopped: bool) -> None:
        for key in store.running(self._driver):
            if key[0] != mirror.PARENT:
                reason = Reason.STOPPED if stopped else Reason.LOST_PROCESS
                store.end(key, "KILLED", {"stop_reason": reason.value})
        tags = {"stop_reason": Reason.STOPPED.value} if stopped else {}
        store.end((mirror.PARENT, self._study), self._status, tags)
        self._others_run = store.others_run(self._driver)

    def _show(self, store: Store, report: Report) -> None:
        parent = (mirror.PARENT, self._study)
        store.tag(parent, {"mlflow.note.content": "\n\n".join(report.headline)})
        store.put_files(parent, report.paths["report.html"].parent)
        for variant in report.results.variants:
            content = mirror.evaluation(variant, report.results.arms.get(variant, {}))
            curves = mirror.by_level(report, variant)
            if not curves:
                continue
            store.begin(content, {"driver": self._driver})
            rows = [(step, {f"by_level/{name}": v}) for name, points in curves.items() for step, v in points.items()]
            store.log(content.key, [*rows, (0, mirror.best(curves))], rewrite=True)
            if table := mirror.variant_table(report, variant):
                store.put_text(content.key, table, "group.csv")
            store.end(content.key, "FINISHED", {})

    # How jobs reach the thread, and what it tells

    def _do(self, key: Hashable, job: Callable[[Store], None]) -> None:
        if self._held is not None:
            self._held[key] = job
        else:
            self._writer.do(job, key)

    def _release(self) -> None:
        held, self._held = self._held, None
        for key, job in (held or {}).items():
            self._do(key, job)

    def _open(self) -> Store:
        from orchestrator.tracking import Store

        store = Store(self._uri, self._study, {**self._tags, **({"SIMULATED": "true"} if self._simulated else {})})
        self._answered = True
        return store

    def judge(self, error: Exception) -> Trouble:
        return judge(error, self._answered)

    def away(self, error: Exception) -> None:
        self._tell("is away", error, "The study goes on; what is missing is sent when it is back.")

    def back(self) -> None:
        self._say(redact(f"MLflow ({self._uri}) is back, and is sent what it missed."))

    def failed(self, error: Exception) -> None:
        self._tell("is left behind", error, "The ledger has everything.")

    def _tell(self, what: str, error: Exception, then: str) -> None:
        line = " ".join(str(error).split())[:LONGEST_LINE]
        self._say(redact(f"MLflow ({self._uri}) {what}: {type(error).__name__}: {line}. {then}"))


class _Mark:
    """Beside a sqlite store: what of each study was mirrored when the store was last written to."""

    def __init__(self, uri: str, study: str) -> None:
        self._store = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
        self._study = study
        self.cells: dict[str, str] = {}
        self.report: str | None = None

    def holds(self) -> bool:
        """True when store, cells and (once it is known) report are as they were."""
        mark = self._read().get(self._study)
        if not isinstance(mark, dict) or mark.get("store") != self._state():
            return False
        return mark.get("cells") == self._digest() and self.report in (None, mark.get("report"))

    def put(self) -> None:
        if self._store is not None:
            mark = {"store": self._state(), "cells": self._digest(), "report": self.report}
            text = json.dumps({**self._read(), self._study: mark}, sort_keys=True, indent=1)
            self._path(self._store).write_text(text, encoding="utf-8")

    def _path(self, store: Path) -> Path:
        return store.with_name(store.name + ".mirrored.json")

    def _read(self) -> dict[str, Any]:
        try:
            marks = json.loads(self._path(self._store).read_text(encoding="utf-8")) if self._store else {}
        except (OSError, ValueError):
            return {}
        return marks if isinstance(marks, dict) else {}

    def _state(self) -> str:
        """Changes whenever anyone writes to the store."""
        try:
            found = self._store.stat() if self._store else None
        except OSError:
            return "none"
        return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}" if found else "remote"

    def _digest(self) -> str:
        return mirror.digest(f"{signature} {what}" for signature, what in sorted(self.cells.items()))
