"""Jobs on a cluster from elsewhere: where one stands, what it prints, and its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.outcome import REFUSED

if TYPE_CHECKING:
    from orchestrator.jobs import Job, Jobs

SHOWN_LINES = 8
EVERY_S = 3.0
PATIENCE_S = 60.0
"""So long a job is followed whose cluster doesn't answer: a tunnel is opened again in less."""


def status(name: str, address: str | None, follow: bool) -> int:
    """State, exit code and last lines; with `follow` until the job has ended, and then its exit code."""

    def show(jobs: Jobs) -> int:
        job = jobs.find(name)
        print(_state(job), flush=True)
        lines = jobs.logs(name).splitlines()
        print("\n".join(f"  {line}" for line in lines[-SHOWN_LINES:]), flush=True)
        if not follow:
            return 0
        job = _follow(jobs, job, len(lines))
        print(_state(job), flush=True)
        return job.exit_code

    return _with_jobs(address, show)


def logs(name: str, address: str | None, follow: bool) -> int:
    """All that the job printed; with `follow` also what it prints until it has ended."""

    def show(jobs: Jobs) -> int:
        jobs.find(name)
        for chunk in jobs.follow(name) if follow else [jobs.logs(name)]:
            print(chunk, end="", flush=True)
        return 0

    return _with_jobs(address, show)


def stop(name: str, address: str | None) -> int:
    """Stop a job, wait until it has stopped, and say how to go on."""

    def end(jobs: Jobs) -> int:
        before = jobs.find(name)
        if before.ended:
            print(_state(before))
            return 0
        print(f"stopping {name}: checkpoints are being written", flush=True)
        job = jobs.stop(name)
        print(_state(job))
        if not job.ended:
            return 1
        print(f"nothing done is lost. To go on: {job.resume}")
        return 0

    return _with_jobs(address, end)


def _follow(jobs: Jobs, job: Job, seen: int) -> Job:
    """The job once it has ended; until then print what comes after the `seen` lines."""
    from orchestrator.jobs import JobTrouble

    answered = time.monotonic()
    while not job.ended:
        time.sleep(EVERY_S)
        try:
            job, lines = jobs.find(job.name), jobs.logs(job.name).splitlines()
        except JobTrouble as error:
            if error.code != REFUSED or time.monotonic() > answered + PATIENCE_S:
                raise
            continue
        answered = time.monotonic()
        for line in lines[seen:]:
            print(f"  {line}", flush=True)
        seen = max(seen, len(lines))
    return job


def _with_jobs(address: str | None, act: Callable[[Jobs], int]) -> int:
    from orchestrator.jobs import Jobs, JobTrouble

    try:
        return act(Jobs(address))
    except JobTrouble as error:
        sys.stderr.write(f"orchestrator: {error}\n")
        return error.code


def _state(job: Job) -> str:
    text = f"job {job.name}: {job.state.lower()}"
    if job.seconds:
        text += f" after {job.seconds:.0f} s"
    if job.driver_exit_code is not None:
        text += f", the driver ended with exit code {job.driver_exit_code}"
    elif job.state == "FAILED":
        text += f": {next(iter(job.message.strip().splitlines()), 'its driver was lost')}"
    if job.state == "FAILED" and job.exit_code != 2:
        text += f"; to go on: {job.resume}"
    return text
