"""A driver process for tests, ``leaky_driver.py LEDGER STORE [STORE]...``: stages that shout the secrets they know."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import fake_stages
from fake_stages import cell, graph

from orchestrator import tracker
from orchestrator.experiment import ExecutionConfig
from orchestrator.ledger import Ledger
from orchestrator.orders import WorkOrder
from orchestrator.progress import Progress
from orchestrator.reasons import Reason
from orchestrator.storage import Storage
from orchestrator.study import Execution, run_study
from orchestrator.tracker import Tracking
from orchestrator.worker import placed
from tasks.contract import Cell, Context, Result

NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
)
STAGES = {
    **fake_stages.STAGES,
    "raises": replace(fake_stages.STAGES["nap"], name="raises", entry="leaky_driver:raises"),
    "fails": replace(fake_stages.STAGES["nap"], name="fails", entry="leaky_driver:fails"),
}


def everything() -> str:
    """All secrets of this process in one sentence."""
    return f"{os.environ['DATABASE']} refused {' '.join(os.environ[name] for name in NAMES)}"


def raises(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    raise ValueError(everything())


def fails(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    yield Result(cells[0].signature, failure=everything())


def main() -> int:
    root, *stores = sys.argv[1:]
    tracker.DRAIN_S = 2.0  # one of the stores never comes back
    ledger = Ledger(Storage(root))
    source = cell("source", "s")
    planned = graph(cell("base", "b"), source, cell("latents", "l", {"source": source}), cell("raises", "r"))
    planned = graph(*planned, cell("fails", "f"))
    trackings = [Tracking(store, "leaky", ledger, "driver") for store in stores]
    outcome = run_study(planned, ledger, Execution(cpus=1), [*trackings, Progress()], stages=STAGES)
    for tracking in trackings:
        tracking.close()
    order = WorkOrder(ledger.storage, STAGES["nap"], tuple(planned), {source.signature: Reason.NEW}, {}, "driver")
    print(order, ledger, outcome, ExecutionConfig(tracking_uri=os.environ["DATABASE"]), Storage(os.environ["DATABASE"]))
    print(placed(RuntimeError(everything())))
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
