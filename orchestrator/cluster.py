"""The only room that knows Ray core: connect, preflight, submit, collect."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.exceptions import RayError

from orchestrator.backends import Refused
from orchestrator.stages import Stage
from orchestrator.worker import Event, WorkOrder, execute, sentence, stop_marker

OBJECT_STORE_BYTES = 200 * 2**20
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
RESOURCES_AGE_S = 2.0
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""Let glibc keep large blocks: trainings on CPUs allocate the same ones at every step, and page faults are slow."""


def set_environment(local: bool) -> None:
    """Settings that Ray reads from the environment of the process that starts it; the user's own win."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    if local:
        # Unset, Ray would write a token into the home folder and demand it everywhere. This one listens on loopback
        # only and ends with the driver; on a cluster the mode is the cluster's.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")  # inherited by the workers; each task sets its stage's number itself
        for name, value in ALLOCATOR.items():
            os.environ.setdefault(name, value)


class Cluster:
    """A connection to Ray: the one at `address` or $RAY_ADDRESS, or else one of our own on this machine."""

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        address = address or os.environ.get("RAY_ADDRESS") or None
        self.is_own = address is None
        set_environment(local=self.is_own)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        own: dict[str, Any] = {
            "num_cpus": cpus or os.cpu_count(),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
        try:
            ray.init(address=address or "local", **(own if self.is_own else {}), **quiet)
        except Exception as error:
            with suppress(Exception):
                ray.shutdown()
            if self.is_own:
                raise Refused(f"Ray can't be started here: {sentence(error)}; --inline does without it") from None
            raise Refused(f"no Ray cluster answers at {address!r}: {type(error).__name__}; is it up?") from None
        self._tasks: dict[Any, tuple[WorkOrder, set[str]]] = {}
        self._capacity = (0.0, 0.0)
        self._capacity_at = -RESOURCES_AGE_S

    def capacity(self) -> tuple[float, float]:
        """CPUs and GPUs of all nodes alive."""
        if time.monotonic() - self._capacity_at >= RESOURCES_AGE_S:
            resources = ray.cluster_resources()
            self._capacity = (resources.get("CPU", 0.0), resources.get("GPU", 0.0))
            self._capacity_at = time.monotonic()
        return self._capacity

    def preflight(self, stages: Iterable[Stage]) -> list[str]:
        """What no node (alive, or of a type that the autoscaler may start) can hold, with the numbers."""
        return refusals(stages, _nodes() + _autoscaled_types())

    def has_other_nodes(self) -> bool:
        """True when tasks may run on another machine than this one."""
        return not self.is_own and (len(_nodes()) > 1 or bool(_autoscaled_types()))

    def submit(self, order: WorkOrder) -> None:
        """Start a task; its events come back one by one through `poll`."""
        stage = order.stage
        remote = _stream_once if stage.gpus else _stream
        events = remote.options(num_cpus=stage.cpus, num_gpus=stage.gpus, name=stage.name).remote(order)
        self._tasks[events] = (order, {spec.signature for spec in order.cells})

    def running(self) -> list[Stage]:
        """The stage of every task that was submitted and has not ended."""
        return [order.stage for order, _ in self._tasks.values()]

    def poll(self) -> list[Event]:
        """Events of all tasks since the last call; a task whose process died loses the cells it had left."""
        found: list[Event] = []
        while self._tasks:
            ready, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
            if not ready:
                break
            for events in ready:
                found += self._next(events)
        return found

    def wait(self, seconds: float) -> None:
        """Return when something happened in a task, or after `seconds`."""
        if self._tasks:
            ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)

    def _next(self, events: Any) -> list[Event]:
        left = self._tasks[events][1]
        try:
            batch: list[Event] = ray.get(next(events))
        except (StopIteration, RayError) as error:
            del self._tasks[events]
            why = next(iter(str(error).strip().splitlines()), "it ended without a result")
            return [Event("lost", signature, sentence=f"{type(error).__name__} {why}") for signature in sorted(left)]
        for event in batch:
            if event.kind not in ("started", "progress"):
                left.discard(event.signature)
        return batch

    def close(self) -> None:
        """Leave Ray; our own ends with all its processes."""
        ray.shutdown()


def _execute_stream(order: WorkOrder) -> Iterator[list[Event]]:
    """The events of `order` as they happen; the computation runs in a thread of its own beside this generator."""
    box: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            execute(order, box.put, stop_marker(order.storage, order.stop_path))
        finally:
            box.put(None)

    threading.Thread(target=work, daemon=True).start()
    last = False
    while not last:
        batch = [box.get()]
        while not box.empty():
            batch.append(box.get())
        last = batch[-1] is None
        yield [event for event in batch if event is not None]


_stream = ray.remote(max_retries=0, num_returns="streaming")(_execute_stream)
_stream_once = ray.remote(max_retries=0, num_returns="streaming", max_calls=1)(_execute_stream)  # frees GPU memory


def _nodes() -> list[dict[str, float]]:
    """Resources of the nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def refusals(stages: Iterable[Stage], nodes: list[dict[str, float]]) -> list[str]:
    """One sentence for each stage that asks for more than the largest node has."""
    return [
        f"stage {stage.name!r} asks for {stage.cpus:g} CPUs and {stage.gpus:g} GPUs in one process, but the nodes "
        f"have {_listed(nodes)}; lower the request or add such a node"
        for stage in stages
        if not any(_holds(node, stage) for node in nodes)
    ]


def _holds(node: dict[str, float], stage: Stage) -> bool:
    return node.get("CPU", 0.0) >= stage.cpus and node.get("GPU", 0.0) >= stage.gpus


def _listed(nodes: list[dict[str, float]]) -> str:
    kinds = {f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes}
    return "; ".join(sorted(kinds)) or "nothing"


def _autoscaled_types() -> list[dict[str, float]]:
    """Resources of the node types of ``ray up``, which leaves its resolved configuration on the head node."""
    path = BOOTSTRAP.expanduser()
    if not path.exists():
        return []
    types = (yaml.safe_load(path.read_text()) or {}).get("available_node_types", {})
    return [kind.get("resources", {}) for kind in types.values() if kind.get("max_workers", 1)]
