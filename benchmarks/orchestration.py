"""What orchestration costs: the driver's time and memory per cell, the way to the first trial, how busy CPUs are kept.

Run alone: `python benchmarks/orchestration.py [--quick]`. The last lines are one JSON object per figure. Cells do
nothing (one per task, the dearest case) or keep one CPU busy (trials of a minute); ledger and Ray are the real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from orchestrator.graph import CellSpec, Graph  # noqa: E402
from orchestrator.ledger import Ledger, Status  # noqa: E402
from orchestrator.outcome import Outcome  # noqa: E402
from orchestrator.progress import Progress  # noqa: E402
from orchestrator.reasons import Reason  # noqa: E402
from orchestrator.signature import sign  # noqa: E402
from orchestrator.stages import Stage  # noqa: E402
from orchestrator.storage import Storage  # noqa: E402
from orchestrator.study import Execution, run_study  # noqa: E402
from tasks.contract import Cell, Context, Result  # noqa: E402

STAGES = {
    "corpus": Stage("corpus", "orchestration:nothing", "does nothing"),
    "flow": Stage("flow", "orchestration:compute", "keeps one CPU busy", training=True),
}
TRIALS = 12


# What runs in the workers


def nothing(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Results without content."""
    for cell in cells:
        yield Result(cell.signature, metrics={"value": 1.0})


def compute(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Keep one CPU busy for `seconds`, reporting ten times a second as a training does."""
    (cell,) = cells
    seconds = float(cell.config["seconds"])
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pass
        context.progress(int(10 * passed), int(10 * seconds), {"loss": 1.0 / (1.0 + passed)})
    yield Result(cell.signature, metrics={"value": 1.0})


# What is measured, each in a process of its own


class Watch:
    """An observer that tells times: of the first start and the last end, and whatever `at_cell` asks."""

    def __init__(self, at_cell: Callable[[int], None] = lambda done: None) -> None:
        self.first_start: float | None = None
        self.last_end = 0.0
        self.seconds: list[float] = []
        self._at_cell = at_cell

    def study_started(self, graph: Graph, states: Mapping[str, Any]) -> None: ...

    def cell_started(self, cell: CellSpec, reason: Reason) -> None:
        self.first_start = time.time() if self.first_start is None else self.first_start

    def cell_progress(self, cell: CellSpec, step: int, total: int, metrics: Mapping[str, float]) -> None: ...

    def cell_finished(self, cell: CellSpec, status: Status, cached: bool) -> None:
        self.last_end = time.time()
        self.seconds.append(status.seconds)
        self._at_cell(len(self.seconds))

    def study_finished(self, outcome: Outcome) -> None: ...


def cells_of(stage: str, count: int, **config: Any) -> Graph:
    """Cells that need nothing and differ by their number."""
    specs = []
    for number in range(count):
        own = {"number": number, **config}
        specs.append(CellSpec(stage, f"{stage} {number}", own, {}, sign(stage, 1, own, {})))
    return Graph({spec.signature: spec for spec in specs})


def ran(graph: Graph, folder: Path, execution: Execution, watch: Watch) -> None:
    """Run a study through the real driver loop, its progress shown to nobody."""
    ledger = Ledger(Storage(str(folder / "ledger")))
    with (folder / "progress.txt").open("w") as stream:
        outcome = run_study(graph, ledger, execution, [watch, Progress(stream)], stages=STAGES)
    assert outcome.exit_code == 0, (outcome.refused, outcome.aborted, list(outcome.failed.values())[:1])


def resident_mb() -> float:
    """Memory of this process that nobody else has, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1000


def driver_cost(count: int, folder: Path) -> dict[str, float]:
    """CPU milliseconds of the driver's process (all threads) per cell, MB per 1000 finished cells, cells per second.

    All are taken between a fifth of the cells and the last one: the start of Ray belongs to no cell.
    """
    marks: list[tuple[int, float, float, float]] = []

    def mark(done: int) -> None:
        if done in (count // 5, count):
            marks.append((done, time.process_time(), time.monotonic(), resident_mb()))

    ran(cells_of("corpus", count), folder, Execution(cpus=os.cpu_count()), Watch(mark))
    (first, cpu0, at0, mb0), (last, cpu1, at1, mb1) = marks
    cells = last - first
    return {
        "ms": 1000 * (cpu1 - cpu0) / cells,
        "mb": 1000 * (mb1 - mb0) / cells,
        "per_second": cells / (at1 - at0),
    }


def first_trial(began: float, folder: Path) -> dict[str, float]:
    """Seconds from `began` (the command) until a training has started in its trial."""
    watch = Watch()
    ran(cells_of("flow", 1, seconds=0.0), folder, Execution(cpus=os.cpu_count()), watch)
    assert watch.first_start is not None
    return {"seconds": watch.first_start - began}


def busy_share(hosts: int, seconds: float, trials: int, folder: Path) -> dict[str, float]:
    """Worker-seconds inside trials over allotted CPU-seconds, from the first trial's start to the last one's end."""
    watch = Watch()
    with ExitStack() as stack:
        execution = stack.enter_context(three_nodes()) if hosts == 3 else Execution(cpus=os.cpu_count())
        cpus = os.cpu_count() or 1
        ran(cells_of("flow", trials, seconds=seconds), folder, execution, watch)
    assert watch.first_start is not None
    return {"share": sum(watch.seconds) / (cpus * (watch.last_end - watch.first_start)), "cpus": cpus}


@contextmanager
def three_nodes() -> Iterator[Execution]:
    """A head without CPUs and two nodes that share those of this machine, each with processes of its own."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        cpus = os.cpu_count() or 1
        for share in (cpus - cpus // 2, cpus // 2):
            cluster.add_node(num_cpus=share)
        cluster.wait_for_nodes()
        yield Execution(address=cluster.address, shared_ledger=True)
    finally:
        cluster.shutdown()


# Figures


def apart(part: str, *words: object) -> dict[str, float]:
    """One measurement in a fresh process, so that no other leaves memory or imports behind."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, str(HERE / "orchestration.py"), "--part", part, *map(str, words), folder]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(part: str, words: Sequence[str]) -> dict[str, float]:
    """One measurement in this process."""
    folder = Path(words[-1])
    match part:
        case "cells":
            return driver_cost(int(words[0]), folder)
        case "first":
            return first_trial(float(words[0]), folder)
        case _:
            return busy_share(int(words[0]), float(words[1]), int(words[2]), folder)


def say(figure: str, value: float, unit: str, goal: float, ok: bool, **more: object) -> None:
    """One line."""
    line = {"figure": figure, "value": round(value, 4), "unit": unit, "goal": goal, "ok": ok, **more}
    print(json.dumps(line), flush=True)


def main() -> None:
    """All figures; `--quick` runs fewer cells and shorter trials, and says so."""
    if sys.argv[1:2] == ["--part"]:
        import orchestration  # the workers' name of this module, not __main__

        print(json.dumps(orchestration.measured(sys.argv[2], sys.argv[3:])))
        return
    quick = "--quick" in sys.argv
    count, trials, seconds = (400, 4, 2.0) if quick else (10_000, TRIALS, 60.0)
    cost = apart("cells", count)
    about = {"cells": count, "cells_per_second": round(cost["per_second"], 1)}
    say("driver_ms_per_stage", cost["ms"], "ms", 5.0, cost["ms"] < 5.0, **about)
    say("driver_mb_per_1000_stages", cost["mb"], "MB", 0.5, cost["mb"] < 0.5, cells=count)
    starts = sorted(apart("first", time.time())["seconds"] for _ in range(1 if quick else 3))
    start = starts[len(starts) // 2]
    say("seconds_to_first_trial", start, "s", 30.0, start < 30.0)
    for hosts, name in ((1, "busy_share_1_host"), (3, "busy_share_3_hosts")):
        busy = apart("busy", hosts, seconds, trials)
        more = {"trials": trials, "trial_s": seconds, "cpus": busy["cpus"]}
        where = {} if hosts == 1 else {"hosts": "ray.cluster_utils: a head without CPUs, two nodes that share them"}
        say(name, busy["share"], "ratio", 0.9, busy["share"] > 0.9, **more, **where)


if __name__ == "__main__":
    main()
