"""What must be true of a study when it has ended, whatever happened meanwhile."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hosts import wait_until
from lab import Lab

from orchestrator.stages import STAGES

TRAININGS = ("autoencoder_base", "autoencoder", "flow")
RESULTS = "CLUSTER_RESULTS"
"""Names the file that results are added to, one JSON object a line."""

ORDINARY = {"new", "input_to_do"}
OF_A_STUDY = ("orchestrator run", "ray::ImplicitFunc", *(f"ray::{stage}" for stage in STAGES))


@dataclass(frozen=True)
class Left:
    """What a study left: tables, cells with their attempts, runs."""

    tables: dict[str, bytes]
    cells: dict[str, dict[str, Any]]
    runs: list[dict[str, Any]]

    @property
    def repeated(self) -> dict[str, list[list[str]]]:
        """Name and attempts (reason, outcome) of the cells that were begun more than once."""
        return {cell["name"]: cell["attempts"] for cell in self.cells.values() if len(cell["attempts"]) > 1}


def left(lab: Lab, study: str, *more: str) -> Left:
    """Look at everything that `study` left."""
    return Left(lab.tables(study, *more), lab.ledger(study)["cells"], lab.runs(study))


def judge(found: Left, calm: Left | None) -> None:
    """Every cell done, each further attempt for a reason, one finished run per training; numbers as in calm."""
    assert {cell["state"] for cell in found.cells.values()} == {"done"}, [
        cell for cell in found.cells.values() if cell["state"] != "done"
    ]
    for cell in found.cells.values():
        _, *others = [reason for reason, _ in cell["attempts"]]
        assert not ORDINARY & set(others), f"begun again without a reason: {cell}"
    assert {run["status"] for run in found.runs} == {"FINISHED"}, found.runs
    trainings = sorted(signature for signature, cell in found.cells.items() if cell["stage"] in TRAININGS)
    tracked = sorted(run["signature"] for run in found.runs if run["kind"] == "training")
    assert tracked == trainings
    for run in (run for run in found.runs if run["kind"] == "training"):
        steps = [step for step, _ in run["curves"].get("validation_loss", [])]
        assert steps, f"a curve is missing: {run}"
        assert len(steps) == len(set(steps)), f"points of a curve are there twice: {run}"
    if calm is not None:
        assert found.cells.keys() == calm.cells.keys()
        differing = [name for name in calm.tables if found.tables.get(name) != calm.tables[name]]
        assert found.tables.keys() == calm.tables.keys()
        assert not differing, f"tables differ from those of the undisturbed study: {differing}"
        assert len(found.runs) == len(calm.runs)
        missing = [name for name, curves in _curves(calm).items() if _curves(found)[name] != curves]
        assert not missing, f"curves in MLflow differ from those of the undisturbed study: {missing}"


def _curves(left: Left) -> dict[str, dict[str, list[list[float]]]]:
    """Every point (step, value) of every curve of the trainings, by signature."""
    return {run["signature"]: run["curves"] for run in left.runs if run["kind"] == "training"}


def wait_for_quiet(lab: Lab, seconds: float = 60) -> None:
    """No process of a study is left on any host."""

    def quiet() -> bool:
        return not any(part in words for words in _processes(lab) for part in OF_A_STUDY)

    wait_until("the end of all the study's processes", quiet, seconds, 2)


def _processes(lab: Lab) -> list[str]:
    return [words for host in (lab.head, *lab.workers) for words in host.processes().values()]


def record(what: str, seconds: float, outcome: str, repeated: dict[str, list[list[str]]], **more: Any) -> None:
    """Add a line to the file of results, where one was asked for."""
    if os.environ.get(RESULTS):
        line = {"fault": what, "seconds": round(seconds, 1), "outcome": outcome, "repeated": repeated, **more}
        line["at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with Path(os.environ[RESULTS]).open("a") as stream:
            stream.write(json.dumps(line) + "\n")
