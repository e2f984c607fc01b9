"""A driver process for tests: ``fake_driver.py LEDGER STUDY [--inline] [--modules] [--address=RAY]``.

Prints what happens.

``FAKE_EXPIRES_S`` shortens the time after which a silent driver is taken for dead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fake_stages import STAGES, cell, graph

from orchestrator import claims
from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger, Status
from orchestrator.reasons import Reason
from orchestrator.storage import Storage
from orchestrator.study import Execution, Outcome, run_study


def small() -> Graph:
    source = cell("source", "s")
    return graph(source, cell("latents", "l", {"source": source}))


def training() -> Graph:
    return graph(cell("base", "b", steps=25, step_s=0.2, every=1))


def mixed() -> Graph:
    """A training with naps beside it and fan-out behind it."""
    base = cell("base", "b", steps=40, step_s=0.3)
    naps = [cell("nap", f"n{index}", sleep_s=0.5) for index in range(8)]
    latents = [cell("latents", f"l{index}", {"base": base}, sleep_s=0.5) for index in range(2)]
    levels = [cell("level", f"level {index}", {"latents": latents}, sleep_s=0.4) for index in range(5)]
    return graph(base, *naps, *latents, *levels)


def crowded() -> Graph:
    """A training that is released when another is done, and 500 naps that want the same two CPUs."""
    base = cell("base", "b", steps=3, step_s=0.2)
    arm = cell("arm", "a", {"base": base}, steps=1000, step_s=0.2)
    return graph(base, arm, *(cell("nap", f"n{index}", sleep_s=0.5) for index in range(500)))


def chain(folder: Path) -> Graph:
    """Trainings that wait for slow fan-out that waits for trainings; one of everything goes wrong on the way."""
    base = cell("base", "b", steps=6, step_s=0.1, dies_unless=str(folder / "base died"))
    arm = cell("arm", "a", {"base": base}, steps=3)
    latents = cell("latents", "l", {"arm": arm}, sleep_s=20)
    flow = cell("flow", "f", {"latents": latents})
    inputs = {"flow": flow, "arm": arm}
    levels = [
        cell("level", f"level {index}", inputs, **({"raises": "on purpose"} if index == 1 else {}))
        for index in range(3)
    ]
    once = cell("nap", "dies once", dies_unless=str(folder / "nap died"))
    killer = cell("nap", "killer", always_dies=True)
    return graph(base, arm, latents, flow, *levels, once, killer, cell("group", "g", {"levels": levels}))


def crowd() -> Graph:
    """Work enough for two drivers: trainings, and naps in tasks of their own."""
    bases = [cell("base", f"b{index}", steps=6, step_s=0.2) for index in range(6)]
    naps = [cell("nap", f"n{index}", sleep_s=0.4) for index in range(24)]
    return graph(*bases, *naps, cell("group", "g", {"bases": bases, "naps": naps}))


def slow() -> Graph:
    """One nap that is long enough to be stopped in, and what reads it."""
    nap = cell("nap", "n", sleep_s=3.0)
    return graph(nap, cell("latents", "l", {"nap": nap}))


def nodes(folder: Path) -> Graph:
    """Two trainings and two naps, all at work until `folder` has a file ``go``."""
    until = str(folder / "go")
    bases = [cell("base", f"b{index}", steps=6, step_s=1.0, until=until) for index in range(2)]
    return graph(*bases, *(cell("nap", f"n{index}", until=until) for index in range(2)))


class Steps:
    """Prints what happens, for the test to react to."""

    def study_started(self, planned: Graph, states: Mapping[str, Any]) -> None: ...

    def cell_started(self, spec: CellSpec, reason: Reason) -> None:
        if "--started" in sys.argv:
            print("started", spec.name, flush=True)

    def cell_progress(self, spec: CellSpec, step: int, total: int, metrics: Mapping[str, float]) -> None:
        if STAGES[spec.stage].training and step >= 3:
            print(spec.name, step, flush=True)

    def cell_finished(self, spec: CellSpec, status: Status, cached: bool) -> None:
        print(spec.name, "cached" if cached else status.state, flush=True)

    def study_finished(self, outcome: Outcome) -> None: ...


def main() -> int:
    root, study, *options = sys.argv[1:]
    claims.EXPIRES_S = float(os.environ.get("FAKE_EXPIRES_S", claims.EXPIRES_S))
    claims.HEARTBEAT_S = min(claims.HEARTBEAT_S, claims.EXPIRES_S / 4)
    studies = {function.__name__: function for function in (small, training, mixed, crowded, crowd, slow)}
    plan = nodes(Path(root).parent) if study == "nodes" else studies[study]()
    address = next((option.removeprefix("--address=") for option in options if option.startswith("--address=")), None)
    execution = Execution(inline="--inline" in options, cpus=2, address=address, shared_ledger=address is not None)
    outcome = run_study(plan, Ledger(Storage(root)), execution, [Steps()], stages=STAGES)
    if "--counts" in options:
        print("twice", len(outcome.computed_twice), "done", len(outcome.done), "cached", len(outcome.cached))
    if "--modules" in options:
        print(*(f"{name}={name in sys.modules}" for name in ("ray", "torch", "mlflow")))
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
