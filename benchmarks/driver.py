"""What the driver spends on a cell: planning, surveying and publishing, without the science.

Run alone: `python benchmarks/driver.py [--quick]`. The last lines are one JSON object per figure.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.graph import CellSpec
from orchestrator.ledger import Ledger
from orchestrator.manifest import Manifest
from orchestrator.planner import build
from orchestrator.reading import load_experiment
from orchestrator.reasons import Reason
from orchestrator.storage import Storage

DEMO = str(Path(__file__).parents[1] / "experiments/demo.yaml")


def planning(levels: int) -> float:
    """Milliseconds per cell of drawing the demo's graph with `levels` noise levels."""
    listed = ", ".join(repr(round(index / levels, 4)) for index in range(levels))
    experiment = load_experiment(DEMO, [f"surprisal.noise_levels=[{listed}]", "eeg.canaries=null"]).experiment
    started = time.perf_counter()
    graph = build(experiment, Manifest())
    return 1000 * (time.perf_counter() - started) / len(graph)


def publishing(count: int) -> tuple[float, float]:
    """Milliseconds per cell of beginning and publishing it, and of surveying it, in a local ledger."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Storage(folder))
        cells = [CellSpec("latents", f"cell {index}", {"index": index}, {}, f"{index:032x}") for index in range(count)]
        started = time.perf_counter()
        for cell in cells:
            attempt = ledger.begin(cell, Reason.NEW, "benchmark")
            (attempt.out_dir / "content.json").write_text("{}")
            ledger.publish(attempt, attempt.out_dir, {"value": 1.0}, 0.0)
        published = 1000 * (time.perf_counter() - started) / count
        started = time.perf_counter()
        ledger.survey(cells, full=True)
        return published, 1000 * (time.perf_counter() - started) / count


def main() -> None:
    """Medians of five."""
    quick = "--quick" in sys.argv
    repeats, count = 5, 200 if quick else 1000
    plans = [planning(10 if quick else 40) for _ in range(repeats)]
    pairs = [publishing(count) for _ in range(repeats)]
    figures = {
        "plan_ms_per_cell": (statistics.median(plans), 1.0),
        "publish_ms_per_cell": (statistics.median(pair[0] for pair in pairs), 20.0),
        "survey_ms_per_cell": (statistics.median(pair[1] for pair in pairs), 2.0),
    }
    for name, (value, goal) in figures.items():
        print(json.dumps({"figure": name, "value": round(value, 4), "unit": "ms", "goal": goal, "ok": value <= goal}))


if __name__ == "__main__":
    main()
