"""Faults in the midst of training: the study ends with the numbers of an undisturbed one and says what it repeated."""

from __future__ import annotations

import time

import pytest
from faults import FAULTS, Fault
from judging import Left, judge, left, record, wait_for_quiet
from lab import SHORT, SWEEP_AT_MOST_S, Lab

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "_"))
def test_a_fault_costs_only_time(fault: Fault, cluster: Lab, calm: Left) -> None:
    study = "after-" + "-".join(fault.name.lower().replace("-9", "").split())
    began = struck = time.monotonic()
    outcome, repeated = "lost", {}
    try:
        job = cluster.submit(study, *SHORT)
        worker = cluster.wait_for_training(study, "autoencoder", SWEEP_AT_MOST_S)
        struck = time.monotonic()
        fault.strike(cluster, worker)
        assert not fault.ends_the_driver or cluster.job(job)[0] != "succeeded", "the fault came too late"
        if not fault.ends_the_driver:
            ended = cluster.wait(job, SWEEP_AT_MOST_S)
        else:
            ended = cluster.wait(cluster.submit(study, *SHORT), SWEEP_AT_MOST_S)
        assert ended.exit_code == 0, ended.log[-3000:]
        outcome = "ended with wrong results"
        found = left(cluster, study, *SHORT)
        repeated = found.repeated
        judge(found, calm)
        why = {reason for attempts in repeated.values() for reason, _ in attempts}
        assert not fault.reasons or fault.reasons & why, f"the fault did no harm: {repeated}"
        wait_for_quiet(cluster)
        outcome = "same results" if not fault.ends_the_driver else "same results once submitted again"
    finally:
        record(
            fault.name, time.monotonic() - began, outcome, repeated, seconds_after=round(time.monotonic() - struck, 1)
        )
    cluster.wait_until_whole()
