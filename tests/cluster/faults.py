"""What can happen to a study on a cluster, and how people put it right."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hosts import Machine
from lab import Lab

PAUSE_S = 15.0


@dataclass(frozen=True)
class Fault:
    """`strike` does harm to the lab, at the worker where a training is at work, and leaves the lab whole again.

    A study whose driver it ends has to be submitted again. Cells are repeated for one of `reasons`, or it did no harm.
    """

    name: str
    strike: Callable[[Lab, Machine], None]
    ends_the_driver: bool = False
    reasons: frozenset[str] = frozenset()


def _kill_a_host(lab: Lab, worker: Machine) -> None:
    worker.kill()
    time.sleep(PAUSE_S)
    worker.start()


def _cut_the_network(lab: Lab, worker: Machine) -> None:
    worker.cut()
    time.sleep(3 * PAUSE_S)
    worker.restore()


def _kill_the_driver(lab: Lab, worker: Machine) -> None:
    lab.kill_driver()


def _kill_the_head(lab: Lab, worker: Machine) -> None:
    lab.head.kill()
    time.sleep(PAUSE_S)
    lab.head.start()
    lab.up()


def _restart_mlflow(lab: Lab, worker: Machine) -> None:
    lab.stop_mlflow()
    time.sleep(PAUSE_S)
    lab.start_mlflow()


def _restart_s3(lab: Lab, worker: Machine) -> None:
    lab.services.stop_s3("KILL")
    time.sleep(PAUSE_S)
    lab.services.start_s3()


def _fill_the_scratch_disk(lab: Lab, worker: Machine) -> None:
    worker.fill_scratch()
    time.sleep(2 * PAUSE_S)
    worker.free_scratch()


LOST = frozenset({"lost_process", "not_begun"})
FAULTS = (
    Fault("kill -9 a host", _kill_a_host, reasons=LOST),
    Fault("cut its network", _cut_the_network, reasons=LOST),
    Fault("kill the driver", _kill_the_driver, ends_the_driver=True, reasons=frozenset({"interrupted"})),
    Fault("kill the head", _kill_the_head, ends_the_driver=True, reasons=frozenset({"interrupted"})),
    Fault("restart MLflow", _restart_mlflow),
    Fault("restart S3", _restart_s3),
    Fault("fill the scratch disk", _fill_the_scratch_disk, reasons=frozenset({"no_space", "not_begun"})),
)
