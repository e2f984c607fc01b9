"""The only room that knows Ray Jobs: commands of this project that run on the head of a cluster."""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import secrets
import shlex
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from orchestrator.node_facts import token_trouble
from orchestrator.provenance import RESUME

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
STOP_WAIT_S = 60
"""Ray kills a job that takes longer to stop; a driver saves its checkpoints within half of that."""

POLL_S = 1.0
YOUNG_HEAD_S = 60.0
NOT_YET = "No available agent"
"""A head that has just started answers before it can take jobs."""

LARGEST_BYTES = 100 * 10**6
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
STOPPED_CODE = 143
ON_THE_HEAD = 'PATH="$HOME/study/.venv/bin:$PATH" exec python -m orchestrator'
"""The head's own environment, or where the cluster YAMLs of this project put it."""


class JobTrouble(Exception):
    """What a person can mend, in one line; `code` is the exit code."""

    def __init__(self, sentence: str, code: int = 3) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Job:
    """A job as the cluster tells of it; `resume` is the command that goes on with its work."""

    name: str
    state: str
    message: str
    driver_exit_code: int | None
    seconds: float
    resume: str

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def exit_code(self) -> int:
        """The driver's; a job that was stopped, or lost its head, has none of its own."""
        if self.driver_exit_code is not None:
            return self.driver_exit_code
        return {"SUCCEEDED": 0, "STOPPED": STOPPED_CODE}.get(self.state, 1)


class Jobs:
    """The jobs of the cluster whose dashboard listens at `address`."""

    def __init__(self, address: str | None = None) -> None:
        self.address = address or _default_address()
        for chatty in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        if not self.address.startswith(("http://", "https://")):
            raise JobTrouble(
                f"--address {self.address}: the dashboard's URL is needed, such as {DEFAULT_ADDRESS} (through ray "
                "dashboard CLUSTER.yaml or an SSH tunnel)",
                2,
            )
        if trouble := token_trouble():
            raise JobTrouble(trouble)
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address  # which Ray puts before the address it is given
        self._client: JobSubmissionClient = self._ask(JobSubmissionClient, self.address)

    def submit(self, name: str, words: Sequence[str], folder: Path, commit: str, resume: str) -> str:
        """Start ``orchestrator WORDS`` on the head with the code in `folder`; returns the job's name at once."""
        job = f"{name}-{time.strftime('%Y%m%dT%H%M', time.gmtime())}-{secrets.token_hex(2)}"
        env = {"ORCHESTRATOR_COMMIT": commit, RESUME: resume, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
        until = time.monotonic() + YOUNG_HEAD_S
        while True:
            try:
                self._client.submit_job(
                    entrypoint=f"{ON_THE_HEAD} {shlex.join(words)}",
                    submission_id=job,
                    runtime_env={"working_dir": str(folder), "env_vars": dict(env)},
                    metadata={"resume": resume},
                )
                return job
            except Exception as error:
                if NOT_YET not in str(error) or time.monotonic() > until:
                    raise JobTrouble(self._reason(error)) from None
                time.sleep(POLL_S)

    def find(self, name: str) -> Job:
        """The job of that name; the nearest names where there is none."""
        try:
            found: JobDetails = self._client.get_job_info(name)
        except RuntimeError as error:
            if "404" not in str(error) and "does not exist" not in str(error):
                raise JobTrouble(self._reason(error)) from None
            raise JobTrouble(self._no_such(name), 2) from None
        except Exception as error:
            raise JobTrouble(self._reason(error)) from None
        began, ended = found.start_time or 0, found.end_time or 1000 * time.time()
        return Job(
            name=name,
            state=found.status.value,
            message=found.message or "",
            driver_exit_code=found.driver_exit_code,
            seconds=max(0.0, (ended - began) / 1000 if began else 0.0),
            resume=(found.metadata or {}).get("resume", "orchestrator submit EXPERIMENT"),
        )

    def logs(self, name: str) -> str:
        """All that the job printed so far; nothing before it runs."""
        try:
            return str(self._client.get_job_logs(name))
        except Exception as error:
            if isinstance(error, RuntimeError) and self.find(name).state == "PENDING":
                return ""
            raise JobTrouble(self._reason(error)) from None

    def follow(self, name: str) -> Iterator[str]:
        """What the job prints, until it has ended."""
        loop = asyncio.new_event_loop()
        lines = self._client.tail_job_logs(name)
        try:
            while True:
                yield loop.run_until_complete(anext(lines))
        except StopAsyncIteration:
            return
        except Exception as error:
            raise JobTrouble(self._reason(error)) from None
        finally:
            loop.run_until_complete(_run_out(lines))
            loop.close()

    def wait(self, name: str, seconds: float | None = None) -> Job:
        """The job once it has ended, or after `seconds`."""
        until = None if seconds is None else time.monotonic() + seconds
        while not (job := self.find(name)).ended and (until is None or time.monotonic() < until):
            time.sleep(POLL_S)
        return job

    def stop(self, name: str) -> Job:
        """Stop it and wait until it has: its driver may take `STOP_WAIT_S` to save checkpoints."""
        if not self.find(name).ended:
            self._ask(self._client.stop_job, name)
        return self.wait(name, STOP_WAIT_S + 30)

    def _ask(self, function: Any, *words: Any, **named: Any) -> Any:
        try:
            return function(*words, **named)
        except JobTrouble:
            raise
        except Exception as error:
            raise JobTrouble(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        if isinstance(error, AuthenticationError) or "authenticat" in str(error).lower():
            return (
                f"the cluster at {self.address} refuses the token: set RAY_AUTH_MODE=token and put the cluster's token "
                "into ~/.ray/auth_token (or where RAY_AUTH_TOKEN_PATH says), chmod 600"
            )
        if isinstance(error, OSError) or "connect" in str(error).lower():
            return (
                f"no Ray cluster answers at {self.address}: open the tunnel (ray dashboard CLUSTER.yaml), or give "
                "--address"
            )
        return f"the cluster at {self.address} refuses: {' '.join(str(error).split())[:300]}"

    def _no_such(self, name: str) -> str:
        known = [job.submission_id for job in self._ask(self._client.list_jobs) if job.submission_id]
        near = difflib.get_close_matches(name, known, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(known)[-5:]) or 'no jobs'}"
        again = "a job that died with its head is resumed by submitting it again"
        return f"{name}: no such job at {self.address}; {hint} ({again})"


async def _run_out(lines: AsyncGenerator[str, None]) -> None:
    """End what Ctrl-C left waiting for the next line, and then the lines, which can't be closed before."""
    waiting = asyncio.all_tasks() - {asyncio.current_task()}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await lines.aclose()


def sent_files(folder: Path) -> dict[Path, int]:
    """The files that travel with a job and their sizes: what .gitignore and .rayignore leave."""
    found: dict[Path, int] = {}

    def take(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(folder)] = path.stat().st_size

    left_out = [_get_excludes(folder, get_runtime_env_default_excludes())]
    _dir_travel(folder, left_out, take, include_gitignore=True, logger=logging.getLogger("unheard"))
    return found


def unfit(folder: Path, needed: Mapping[str, Path]) -> str | None:
    """Why the folder can't travel: it is too large, or a needed file is left behind."""
    sent = sent_files(folder)
    for name, path in needed.items():
        if not path.is_relative_to(folder):
            return f"{name}: it lies outside {folder}, the folder that travels to the cluster; move it there"
        if path.relative_to(folder) not in sent:
            return f"{name}: .gitignore or .rayignore keeps it from travelling to the cluster; take it out there"
    total = sum(sent.values())
    if total <= LARGEST_BYTES:
        return None
    largest = sorted(sent, key=lambda path: sent[path], reverse=True)[:3]
    named = ", ".join(f"{path} ({sent[path] / 1e6:.0f} MB)" for path in largest)
    return (
        f"{folder}: {total / 1e6:.0f} MB would travel to the cluster, at most {LARGEST_BYTES / 1e6:.0f} MB may; name "
        f"what isn't code in .rayignore, above all {named}"
    )


def _default_address() -> str:
    for variable in ("RAY_API_SERVER_ADDRESS", "RAY_DASHBOARD_ADDRESS"):
        if os.environ.get(variable):
            return os.environ[variable]
    return DEFAULT_ADDRESS
