"""Nodes of a real Ray that vanish with all that runs on them, and come back later."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_driver import nodes
from fake_stages import STAGES, cell, graph
from test_study_inline import start_driver
from test_study_ray import stat

from orchestrator.ledger import Ledger
from orchestrator.reasons import Reason
from orchestrator.storage import Storage
from orchestrator.study import Execution, run_study

pytestmark = pytest.mark.processes

os.environ.setdefault("RAY_raylet_start_wait_time_s", "40")  # read when ray is imported
GONE_S = 5.0
NODE = {"num_cpus": 4, "object_store_memory": 100 * 2**20}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that computes nothing; its nodes have the paths that the fake stages are found by."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    import orchestrator.cluster  # noqa: F401  (before ray: it keeps this process from joining others)

    from ray.cluster_utils import Cluster  # isort: skip

    there = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    yield there
    there.shutdown()


def test_all_nodes_lost_at_once_are_waited_for_and_cost_nothing_done(cluster: Any, tmp_path: Path) -> None:
    """Two trainings and two naps are at work when the only node goes; another one comes some seconds later."""
    node = add_node(cluster)
    driver = start_driver(tmp_path, "nodes", "--started", f"--address={cluster.address}")
    try:
        read_until(driver, {"b0 3", "b1 3", "started n0", "started n1"})
        cluster.remove_node(node, allow_graceful=False)
        used, began = cpu_seconds(driver.pid), time.monotonic()
        time.sleep(GONE_S)
        busy = (cpu_seconds(driver.pid) - used) / (time.monotonic() - began)
        assert driver.poll() is None
        (tmp_path / "go").touch()
        add_node(cluster)
        out, err = driver.communicate(timeout=150)
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == 0, out + err
    assert busy < 0.7, "no busy loop while nothing can run"
    ledger = Ledger(Storage(str(tmp_path / "ledger")))
    for spec in nodes(tmp_path):
        history = ledger.history(spec.stage, spec.signature)
        assert [record.outcome for record in history] == ["interrupted", "done"]
        assert history[-1].reason is Reason.LOST_PROCESS
        status = ledger.status(spec.stage, spec.signature)
        assert status is not None
        assert status.metrics.get("began_at", 3) >= 3, "a training goes on from its checkpoint"


def add_node(cluster: Any, tries: int = 3) -> Any:
    """Start a node as an autoscaler would: again when it dies at its start, as Ray's do on a machine that is busy."""
    for left in reversed(range(tries)):
        try:
            return cluster.add_node(**NODE)
        except Exception:
            if not left:
                raise
    raise AssertionError


def read_until(driver: subprocess.Popen[str], wanted: set[str]) -> None:
    """Read what a driver prints until all lines in `wanted` were there."""
    seen: set[str] = set()
    assert driver.stdout is not None
    for line in driver.stdout:
        seen.add(line.strip())
        if wanted <= seen:
            return
    raise AssertionError(f"it ended before {wanted - seen}")


def cpu_seconds(pid: int) -> float:
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_tune_that_ends_by_itself_loses_its_trials_and_a_new_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    from orchestrator import training

    broken = iter([True])
    fit = training.Tuner.fit

    def end(self: Any) -> Any:
        if next(broken, False):
            time.sleep(1.0)
            raise RuntimeError("the controller is gone")
        return fit(self)

    monkeypatch.setattr(training.Tuner, "fit", end)
    ledger = Ledger(Storage(str(tmp_path / "ledger")))
    spec = cell("base", "b", steps=3)
    outcome = run_study(graph(spec), ledger, Execution(cpus=1), stages=STAGES)
    assert (outcome.exit_code, outcome.aborted, outcome.done) == (0, None, [spec.signature])
    assert [record.reason for record in ledger.history("base", spec.signature)] == [Reason.NOT_BEGUN]


def test_whoever_lost_its_ray_joins_no_other() -> None:
    """By the setting: a call that tried it would join whatever cluster runs on this machine."""
    code = "import orchestrator.cluster; from ray._private import auto_init_hook as h; print(h.enable_auto_connect)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == "False"


def test_explain_says_why_a_cell_was_computed_again(tmp_path: Path) -> None:
    from orchestrator.verbs.explain import _line, _outcome

    ledger, spec = Ledger(Storage(str(tmp_path / "ledger"))), cell("nap", "n")
    ledger.begin(spec, Reason.NEW, "driver")  # kill -9
    attempt = ledger.begin(spec, Reason.LOST_PROCESS, "driver")
    ledger.publish(attempt, attempt.out_dir, {}, 0.1)
    step = {"depth": 0, "signature": spec.signature, "name": "n", "config": {}}
    shown = _line({**step, **_outcome(ledger, "nap", spec.signature)})
    assert "new -> interrupted" in shown
    assert "lost_process -> done" in shown
