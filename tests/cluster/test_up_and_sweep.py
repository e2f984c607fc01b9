"""A person's way from machines with SSH to a finished sweep."""

from __future__ import annotations

import time

import pytest
from judging import judge, left, record, wait_for_quiet
from lab import HOME, ON_A_NODE, SWEEP_AT_MOST_S, Lab

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
TABLES = {"results.csv", "group.csv", "pitch.csv", "reconstruction.csv"}


def test_all_nodes_join(cluster: Lab) -> None:
    assert cluster.nodes() == sorted(machine.address for machine in (cluster.head, *cluster.workers))


@pytest.mark.parametrize("token", ["none", "wrong"])
def test_a_client_without_the_token_is_refused(cluster: Lab, token: str) -> None:
    others = "RAY_AUTH_MODE=disabled" if token == "none" else "RAY_AUTH_TOKEN=" + 64 * "0"
    status = cluster.at_desk("orchestrator status anything", environment=others)
    assert status.returncode == 3, status
    assert status.stderr.count("\n") == 1
    assert "refuses the token" in status.stderr
    join = f"{ON_A_NODE}; export {others}; timeout 60 ray start --address={cluster.head.address}:6379 --num-cpus=1"
    assert cluster.desk.run(join.replace("study", "noise-levels"), seconds=90).returncode != 0
    assert len(cluster.nodes()) == 3


def test_nothing_but_ssh_and_ray_listens_to_others(cluster: Lab) -> None:
    for port in (8265, 5000):
        probe = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{cluster.head.address}/{port}'"
        assert cluster.desk.run(probe).returncode != 0, f"port {port} of the head can be reached from outside"


def test_doctor_finds_nothing(cluster: Lab) -> None:
    words = " ".join(cluster.settings("doctor"))
    done = cluster.at_desk(
        f"orchestrator doctor experiments/sweep.yaml --submit execution.cluster=clusters/lab.yaml {words}"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_sweep_from_the_desk(cluster: Lab) -> None:
    began = time.monotonic()
    job = cluster.submit("whole")
    ended = cluster.wait(job, SWEEP_AT_MOST_S)
    seconds = time.monotonic() - began
    assert ended.exit_code == 0, ended.log[-3000:]
    found = left(cluster, "whole")
    judge(found, None)
    assert not found.repeated
    assert found.tables.keys() == TABLES
    assert {run["kind"] for run in found.runs} == {"study", "training", "evaluation"}
    assert all(run["artefacts"] for run in found.runs if run["kind"] == "study"), "the report is not in MLflow"
    assert cluster.services.count_runs() >= len(found.runs), "the runs are not in PostgreSQL"
    followed = cluster.at_desk(f"orchestrator status {job} --follow")
    assert followed.returncode == 0
    assert "SIMULATED" in ended.log
    wait_for_quiet(cluster)
    record("none: all stages", seconds, "done", {}, cells=len(found.cells))
    again = cluster.wait(cluster.submit("whole"), SWEEP_AT_MOST_S)
    assert f"{len(found.cells)} cells cached, 0 computed" in again.log


def test_only_the_head_knows_the_password_of_the_database(cluster: Lab) -> None:
    for host in cluster.workers:
        found = host.run(f"grep -rlsF {cluster.services.database_secret} {HOME}/.ray {HOME}/study/clusters /tmp/ray")
        assert found.stdout == "", host.name
    log = cluster.head.run(f"grep -rlsF {cluster.services.database_secret} /tmp/ray {HOME}/mlflow.log")
    assert log.stdout == ""
