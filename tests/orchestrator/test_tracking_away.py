"""A real MLflow server that goes away and comes back while studies run."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_stages import STAGES, cell, graph
from shaky_proxy import ShakyProxy

from orchestrator import tracker
from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger
from orchestrator.reasons import Reason
from orchestrator.storage import Storage
from orchestrator.study import Execution, Outcome, run_study
from orchestrator.tracker import Tracking

pytestmark = pytest.mark.processes
LIGHT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Server:
    """`mlflow server` on loopback, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **LIGHT}, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def wait(self) -> None:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self._folder / "server.log").read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow"))
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[ShakyProxy]:
    """A way to the server that can be cut."""
    proxy = ShakyProxy(server.uri)
    yield proxy
    proxy.cut()


class At:
    """Does something when a training has come to a step."""

    def __init__(self, moments: dict[tuple[str, int], Callable[[], None]]) -> None:
        self._moments = moments

    def cell_progress(self, spec: CellSpec, step: int, total: int, metrics: Any) -> None:
        self._moments.pop((spec.name, step), lambda: None)()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def flows(study: str, n: int, **options: Any) -> Graph:
    return graph(*(cell("flow", f"{study} {index}", **options) for index in range(n)))


def drive(
    uri: str, study: str, plan: Graph, ledger: Ledger, moments: dict[tuple[str, int], Callable[[], None]] | None = None
) -> tuple[Outcome, list[str]]:
    """A whole study in this process, mirrored; the outcome and what was said of MLflow."""
    said: list[str] = []
    tracking = Tracking(uri, study, ledger, f"driver-{time.monotonic_ns()}", said.append)
    outcome = run_study(plan, ledger, Execution(inline=True), [tracking, At(moments or {})], stages=STAGES)
    tracking.close()
    return outcome, said


def runs_of(server: Server, study: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(study)
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def wait_for(state: Callable[[], Any]) -> None:
    """Until `state` is true of the server, however busy the machine is."""
    for _ in range(600):
        if state():
            return
        time.sleep(0.1)
    raise AssertionError("not within a minute")


def losses(server: Server, run: Any) -> list[tuple[int, float]]:
    """The points of a training's curve that the server holds, in order of steps."""
    from mlflow import MlflowClient

    points = MlflowClient(server.uri).get_metric_history(run.info.run_id, "loss")
    return sorted((point.step, point.value) for point in points)


def wait_until_still(server: Server, study: str) -> None:
    """Until the server has done with requests whose connection broke: what they wrote may come late."""
    seen: list[Any] = []

    def still() -> bool:
        time.sleep(1)
        seen.append([losses(server, run) for run in runs_of(server, study)])
        return len(seen) > 1 and seen[-1] == seen[-2]

    wait_for(still)


def assert_whole(server: Server, study: str, plan: Graph, steps: int) -> None:
    """One run for each training and one for the study, all ended, with every point of every curve."""
    runs = runs_of(server, study)
    assert sorted(run.info.run_name for run in runs) == sorted([study, *(spec.name for spec in plan)])
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if run.info.run_name != study:
            assert losses(server, run) == [(step, 1.0 / step) for step in range(1, steps + 1)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Storage(str(tmp_path / "ledger")))


def test_a_server_that_is_restarted_mid_run_has_everything_once(server: Server, ledger: Ledger) -> None:
    plan = flows("restarted", 3, steps=40, step_s=0.1)
    moments = {("restarted 0", 20): server.kill, ("restarted 2", 1): server.start}
    outcome, said = drive(server.uri, "restarted", plan, ledger, moments)
    assert outcome.exit_code == 0
    assert_whole(server, "restarted", plan, 40)
    assert len(said) == 2, said
    assert "is away" in said[0]
    assert "is back" in said[1]


def test_a_study_that_starts_while_the_server_is_away_is_mirrored_when_it_is_back(
    server: Server, proxy: ShakyProxy, ledger: Ledger
) -> None:
    proxy.cut()
    plan = flows("early", 2, steps=20, step_s=0.2)
    outcome, said = drive(proxy.url, "early", plan, ledger, {("early 1", 15): proxy.mend})
    assert outcome.exit_code == 0
    assert_whole(server, "early", plan, 20)
    assert len(said) == 2, said


def test_connections_that_break_at_any_request_leave_nothing_double(
    server: Server, proxy: ShakyProxy, ledger: Ledger
) -> None:
    """Whether a request or its answer is lost, it is sent again."""
    plan = flows("broken", 3, steps=30, step_s=0.05)

    def flap() -> None:
        proxy.cut()
        proxy.mend()

    moments = {(f"broken {n}", step): flap for n in range(3) for step in range(2, 30, 3)}
    outcome, _ = drive(proxy.url, "broken", plan, ledger, moments)
    assert outcome.exit_code == 0
    assert_whole(server, "broken", plan, 30)


def test_what_is_missing_at_the_end_is_said_and_the_next_run_sends_it(
    server: Server, proxy: ShakyProxy, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "DRAIN_S", 1.0)
    plan = flows("late", 2, steps=20, step_s=0.1)
    cut_at: list[float] = []

    def cut() -> None:
        wait_for(lambda: len(runs_of(server, "late")) == 2)
        proxy.cut()
        cut_at.append(time.monotonic())

    outcome, said = drive(proxy.url, "late", plan, ledger, {("late 0", 18): cut})
    assert outcome.exit_code == 0
    assert time.monotonic() - cut_at[0] < 25
    assert re.search(r"does not have (2 trainings|1 training)\. The ledger", said[-1]), said
    assert "the same command sends it" in said[-1]
    assert "RUNNING" in {run.info.status for run in runs_of(server, "late")}
    wait_until_still(server, "late")
    proxy.mend()
    monkeypatch.undo()
    outcome, said = drive(proxy.url, "late", plan, ledger)
    assert (outcome.done, said) == ([], [])
    assert_whole(server, "late", plan, 20)


def test_runs_of_a_dead_driver_are_closed_by_a_run_that_finds_everything_cached(server: Server, ledger: Ledger) -> None:
    plan = flows("dead", 1, steps=3)
    drive(server.uri, "dead", plan, ledger)
    dead = Tracking(server.uri, "dead", ledger, "dead-driver", [].append)
    other = cell("flow", "dead other", steps=3)
    dead.study_started(plan, {})
    dead.cell_started(other, Reason.NEW)
    assert dead._writer.drain(60)  # and it dies here
    assert {run.info.status for run in runs_of(server, "dead")} == {"FINISHED", "RUNNING"}
    outcome, _ = drive(server.uri, "dead", plan, ledger)
    assert outcome.done == []
    found = {run.info.run_name: run.info.status for run in runs_of(server, "dead")}
    assert found == {"dead": "FINISHED", "dead 0": "FINISHED", "dead other": "KILLED"}
