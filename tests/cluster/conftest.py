"""Fixtures of the tests on real hosts: one lab, one cluster, one undisturbed study for all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import why_not
from judging import Left, judge, left, record, wait_for_quiet
from lab import SHORT, SWEEP_AT_MOST_S, Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Machines that run, with services; no cluster yet."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    lab = Lab()
    try:
        lab.start()
        yield lab
    finally:
        lab.close()
    assert not list(_remains(str(lab.base))), "the lab left processes or mounts behind"
    assert not lab.base.exists()


def _remains(base: str) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if base in words:
            yield words
    yield from (line for line in Path("/proc/mounts").read_text().splitlines() if base in line)


@pytest.fixture(scope="session")
def cluster(lab: Lab) -> Lab:
    """The lab with its three hosts as one cluster."""
    lab.up()
    record(
        "none: boot, services, make up",
        sum(lab.seconds[name] for name in ("boot", "services", "MLflow")),
        "up",
        {},
        steps={name: round(seconds, 1) for name, seconds in lab.seconds.items()},
    )
    return lab


@pytest.fixture(scope="session")
def calm(cluster: Lab) -> Left:
    """What the short sweep leaves when nothing happens to it."""
    began = time.monotonic()
    ended = cluster.wait(cluster.submit("calm", *SHORT), SWEEP_AT_MOST_S)
    seconds = time.monotonic() - began
    assert ended.exit_code == 0, ended.log[-2000:]
    found = left(cluster, "calm", *SHORT)
    judge(found, None)
    assert not found.repeated
    wait_for_quiet(cluster)
    record("none", seconds, "done", {}, cells=len(found.cells))
    return found
