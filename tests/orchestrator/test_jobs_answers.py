"""What the commands of a laptop make of a cluster's answers, good and bad."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus
from typer.testing import CliRunner

from orchestrator import jobs
from orchestrator.cli import app
from orchestrator.verbs import jobs as verbs

ADDRESS = "http://127.0.0.1:9"


class Cluster:
    """Ray's client of a cluster that gives the answers it is told to."""

    def __init__(self, address: str) -> None:
        self.closed = False
        self.states: list[JobStatus | Exception] = [JobStatus.RUNNING]
        self.logs: list[str | Exception] = [""]

    def get_job_info(self, name: str) -> Any:
        return SimpleNamespace(
            status=_next(self.states), start_time=1, end_time=2, message="", driver_exit_code=None, metadata={}
        )

    def get_job_logs(self, name: str) -> Any:
        return _next(self.logs)

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


def _next(answers: list[Any]) -> Any:
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", ADDRESS)  # which `Jobs` sets
    monkeypatch.setattr(jobs, "JobSubmissionClient", Cluster)
    found = jobs.Jobs(ADDRESS)
    monkeypatch.setattr(jobs, "Jobs", lambda address: found)
    monkeypatch.setattr(verbs, "EVERY_S", 0.0)
    return found


def test_following_ends_with_ctrl_c_and_leaves_nothing_open(cluster: Any) -> None:
    printed: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        printed.extend(cluster.follow("j"))
    assert printed == ["one\n"]
    assert cluster._client.closed


def test_logs_that_the_cluster_cannot_give_are_no_empty_logs(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cluster._client.logs = [RuntimeError("Request failed with status code 500: Traceback\nOSError.")]
    assert verbs.logs("j", ADDRESS, follow=False) == 3
    assert capsys.readouterr().err == (
        f"orchestrator: the cluster at {ADDRESS} refuses: Request failed with status code 500: Traceback OSError.\n"
    )
    cluster._client.states = [JobStatus.PENDING]
    assert verbs.logs("j", ADDRESS, follow=False) == 0, "it has printed nothing yet"


def test_a_job_is_followed_over_a_gap_and_no_line_is_lost(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    away = ConnectionError("no route")
    text = "".join(f"line {number}\n" for number in range(40))
    cluster._client.states = [JobStatus.RUNNING, away, away, JobStatus.RUNNING, JobStatus.SUCCEEDED]
    cluster._client.logs = ["line 0\n", text]
    assert verbs.status("j", ADDRESS, follow=True) == 0
    printed = capsys.readouterr()
    assert [line.strip() for line in printed.out.splitlines()[1:-1]] == text.splitlines()
    assert not printed.err


def test_a_cluster_that_stays_away_ends_the_following(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbs, "PATIENCE_S", 0.05)
    cluster._client.states = [JobStatus.RUNNING, ConnectionError("no route")]
    assert verbs.status("j", ADDRESS, follow=True) == 3
    assert capsys.readouterr().err.startswith(f"orchestrator: no Ray cluster answers at {ADDRESS}")


@pytest.mark.parametrize("words", [["status", "j"], ["logs", "j"], ["stop", "j"]], ids=lambda words: words[0])
def test_a_token_that_others_may_read_is_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    result = CliRunner().invoke(app, [*words, "--address", ADDRESS])
    assert (result.exit_code, result.stderr) == (
        3,
        f"orchestrator: {token}: others may read it (mode 0644); chmod 600 {token}\n",
    )
