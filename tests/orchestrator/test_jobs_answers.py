"""What the commands of a laptop make of a cluster's answers, good and bad."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator import jobs

ADDRESS = "http://127.0.0.1:9"


class Cluster:
    """Ray's client of a cluster that gives the answers it is told to."""

    def __init__(self, address: str) -> None:
        self.closed = False

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        try:
            yield "one\n"
            asyncio.get_running_loop().call_soon(self.interrupt)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            self.closed = True

    def interrupt(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", ADDRESS)  # which `Jobs` sets
    monkeypatch.setattr(jobs, "JobSubmissionClient", Cluster)
    return jobs.Jobs(ADDRESS)


def test_following_ends_with_ctrl_c_and_leaves_nothing_open(cluster: Any) -> None:
    printed: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        printed.extend(cluster.follow("j"))
    assert printed == ["one\n"]
    assert cluster._client.closed
