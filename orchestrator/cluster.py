"""The only room that knows Ray core: connect, preflight, submit, collect."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # read on import: whoever lost its Ray must not join any other it finds

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.backends import Refused
from orchestrator.cluster_file import ClusterFile, ClusterFileMistake, bootstrapped, read_cluster_file
from orchestrator.node_facts import token_trouble
from orchestrator.orders import Event, WorkOrder
from orchestrator.stages import Stage
from orchestrator.worker import execute, sentence, stop_marker

OBJECT_STORE_BYTES = 200 * 2**20
NOT_ASKED_FOR = ("memory", "object_store_memory")
RESOURCES_AGE_S = 2.0
NODE_ANSWERS_S = 60.0
ELSEWHERE = "run is for a node of the cluster (--address auto); from elsewhere use: orchestrator submit EXPERIMENT"
TOKEN_REMEDY = "set RAY_AUTH_MODE=token and put its token into ~/.ray/auth_token (or $RAY_AUTH_TOKEN_PATH), chmod 600"
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
    """A connection to Ray: the one at `address` or $RAY_ADDRESS, or else one of our own on this machine.

    `cluster_file` names the YAML whose node types may be started; else it is what ``ray up`` left on the head.
    """

    cluster_file: str | None = None

    def __init__(self, address: str | None = None, cpus: int | None = None, cluster_file: str | None = None) -> None:
        address = address or os.environ.get("RAY_ADDRESS") or None
        self.is_own = address is None
        self.cluster_file = cluster_file
        if address is not None and "://" in address:
            raise Refused(f"--address {address}: {ELSEWHERE}")
        try:
            _ = self.declared
        except ClusterFileMistake as error:
            raise Refused(str(error)) from None
        if not self.is_own and (trouble := token_trouble()):
            raise Refused(trouble)
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
            raise Refused(f"no Ray cluster answers at {address!r}: {_refusal(error)}") from None
        self._tasks: dict[Any, tuple[WorkOrder, set[str]]] = {}
        self._capacity: dict[str, float] = {}
        self._capacity_at = -RESOURCES_AGE_S

    @cached_property
    def declared(self) -> ClusterFile | None:
        """The nodes that there should be, where a YAML says so; a Ray of our own has no others."""
        if self.is_own:
            return None
        return read_cluster_file(self.cluster_file) if self.cluster_file else bootstrapped()

    def capacity(self) -> Mapping[str, float]:
        """Resources of all nodes alive, in sum."""
        if time.monotonic() - self._capacity_at >= RESOURCES_AGE_S:
            self._capacity = ray.cluster_resources()
            self._capacity_at = time.monotonic()
        return self._capacity

    def preflight(self, stages: Iterable[Stage]) -> list[str]:
        """What no node (alive, or of a type that the autoscaler may start) can hold, with the numbers."""
        return refusals(stages, _nodes() + self._to_be_started())

    def potential(self) -> Mapping[str, float]:
        """Resources of all nodes that the autoscaler may start, in sum."""
        return self.declared.potential() if self.declared is not None else {}

    def missing_nodes(self) -> str | None:
        """A sentence when fewer nodes joined than the YAML asks for."""
        joined, declared = len(_nodes()), self.declared
        if declared is None or joined >= declared.at_least:
            return None
        return (
            f"{joined} of {declared.at_least} nodes of {declared.path} joined: look at the others with ray monitor "
            "CLUSTER.yaml, or run ray up again"
        )

    def joined(self) -> int:
        """How many nodes are alive."""
        return len(_nodes())

    def has_token(self) -> bool:
        """True when this cluster asks everybody for its token."""
        return bool(is_token_auth_enabled())

    def needs_token(self) -> bool:
        """True when tasks run on other machines and whoever reaches the head could run code there."""
        return self.has_other_nodes() and not self.has_token()

    def on_every_node(
        self, function: Callable[..., Any], *arguments: Any, seconds: float = NODE_ANSWERS_S
    ) -> dict[str, Any]:
        """What `function` returns on each node alive, by the node's name; an exception where it gave none in time."""
        asked: dict[Any, str] = {}
        for node in (node for node in ray.nodes() if node["Alive"]):
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, max_retries=0, max_calls=1, scheduling_strategy=here)(function)
            asked[task.remote(*arguments)] = _named(node, asked.values())
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
        answers: dict[str, Any] = {}
        for reference, name in asked.items():
            if reference not in ready:
                ray.cancel(reference, force=True)
                answers[name] = TimeoutError(f"no answer in {seconds:g} s")
                continue
            try:
                answers[name] = ray.get(reference)
            except RayError as error:
                answers[name] = getattr(error, "cause", None) or error
        return answers

    def has_other_nodes(self) -> bool:
        """True when tasks may run on another machine than this one."""
        return not self.is_own and (len(_nodes()) > 1 or (self.declared is not None and self.declared.grows))

    def _to_be_started(self) -> list[dict[str, float]]:
        return self.declared.nodes() if self.declared is not None and self.declared.grows else []

    def submit(self, order: WorkOrder) -> None:
        """Start a task; its events come back one by one through `poll`."""
        stage = order.stage
        remote = _stream_once if stage.gpus else _stream
        asked = {"num_cpus": stage.cpus, "num_gpus": stage.gpus, "resources": dict(stage.custom) or None}
        events = remote.options(**asked, name=stage.name).remote(order)
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
    """One sentence for each stage that asks for more than any one node has."""
    asked = list(stages)
    labels = {name for stage in asked for name in stage.custom}
    return [
        f"stage {stage.name!r} asks for {_worded(stage.request, labels & stage.custom.keys())} in one process, but the "
        f"nodes have {_listed(nodes, labels)}; lower the request (execution.resources.{stage.name}) or add such a node"
        for stage in asked
        if not any(_holds(node, stage) for node in nodes)
    ]


def _holds(node: Mapping[str, float], stage: Stage) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in stage.request.items())


def _listed(nodes: list[dict[str, float]], labels: Iterable[str]) -> str:
    kinds = {_worded(node, [name for name in labels if name in node]) for node in nodes}
    return "; ".join(sorted(kinds)) or "nothing"


def _worded(amounts: Mapping[str, float], labels: Iterable[str]) -> str:
    plain = f"{amounts.get('CPU', 0):g} CPUs and {amounts.get('GPU', 0):g} GPUs"
    return ", ".join([plain, *(f"{amounts[name]:g} {name!r}" for name in sorted(labels))])


def _named(node: Mapping[str, Any], taken: Iterable[str]) -> str:
    """A node for people: its host, and its address, or its id where that is not enough."""
    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    return f"{name} {node['NodeID'][:6]}" if name in taken else name


def _refusal(error: Exception) -> str:
    """Why a cluster can't be joined, with the remedy."""
    text = str(error)
    if "authenticat" in text.lower():
        return f"it refuses the token; {TOKEN_REMEDY}"
    return f"{type(error).__name__}; is it up? {ELSEWHERE}"
