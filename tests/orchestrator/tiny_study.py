"""The demo with few cells, called as a person calls it, on a ledger whose results are made up."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import made_up_study
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.graph import CellSpec
from orchestrator.opening import Study, open_study
from orchestrator.planner_eeg_group import reduce
from orchestrator.reasons import State
from orchestrator.schedule import Schedule

ROOT = Path(__file__).parents[2]


DEMO, PAPER = (str(ROOT / "experiments" / name) for name in ("demo.yaml", "noise_levels.yaml"))


SMALL = [
    "name=tiny",
    "sweep=[]",
    "surprisal.noise_levels=[0.0, 0.4]",
    "reconstruction.snr=[.inf]",
    "eeg.simulation.n_subjects=3",
    "eeg.permutations={n: 20, block: 20}",
    "eeg.canaries={variant: null, noise_level: 0.4}",
]


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def tiny(folder: Path) -> Study:
    return open_study(DEMO, SMALL, str(folder / "ledger"))


def fill(study: Study, cells: Iterable[CellSpec], files: dict[str, bytes] | None = None) -> None:
    ledger = made_up_study.RealLedger(study.ledger.storage)
    for cell in cells:
        ledger.finish(cell, {"made_up.txt": b"made up", **(files or {})}, {"loss": 1.0, "bad": float("nan")})


def named(study: Study, name: str) -> CellSpec:
    return next(cell for cell in study.graph if cell.name == name)


def planned(folder: Path, *words: str) -> dict[str, Any]:
    result = call("plan", DEMO, *SMALL, "--ledger", str(folder / "ledger"), "--json", *words)
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def as_run(study: Study) -> dict[str, CellSpec]:
    """Aggregates as the driver reduces them: all that can succeeds, one task after the other."""
    states = {
        key: (state, reason, (status.failure or "") if state is State.FAILED and status else "")
        for key, (state, reason, status) in study.ledger.survey(study.graph, full=False).items()
    }
    schedule = Schedule(study.graph, states, reduce=reduce)
    while not schedule.finished:
        for task in list(schedule.ready()):
            schedule.started(task)
            for cell in task.cells:
                schedule.done(cell.signature)
    return dict(schedule.reduced)
