"""Jobs on a real Ray cluster of one node, on loopback and with a token: its head is killed and comes back."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from test_study_ray import descendants, still_there

from orchestrator.ledger import Ledger
from orchestrator.storage import Storage

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.2"  # Ray takes 127.0.0.1 for a name of this machine's outer address
QUIET = ["sweep=[]", "surprisal.noise_levels=[0.0, 0.4]", "eeg.permutations={n: 20, block: 20}"]


class Head:
    """``ray start --head`` as a cluster's YAML has it, and the commands of a laptop beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = folder / "token"
        self.token.write_text(os.urandom(32).hex())
        self.token.chmod(0o600)
        self.ports = [free_port() for _ in range(2)]
        self.address = f"http://127.0.0.1:{self.ports[1]}"
        self.process: subprocess.Popen[bytes] | None = None
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ORCHESTRATOR_"))}
        self.environment = {
            **clean,
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_API_SERVER_ADDRESS": self.address,
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def start(self) -> None:
        words = ["ray", "start", "--head", "--block", f"--node-ip-address={HOST}", f"--port={self.ports[0]}"]
        words += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.ports[1]}", "--num-cpus=2"]
        words += [f"--temp-dir={self.folder / 'r'}", "--object-store-memory=100000000"]
        with (self.folder / "head.log").open("ab") as log:
            self.process = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)
        for _ in range(120):
            with suppress(urllib.error.HTTPError, OSError):
                urllib.request.urlopen(f"{self.address}/api/version", timeout=2)
            if self.says("status", "none").returncode == 2:
                return
            assert self.process.poll() is None, (self.folder / "head.log").read_text()
            time.sleep(0.5)
        raise AssertionError((self.folder / "head.log").read_text())

    def kill(self) -> None:
        """As a power cut would: all its processes at once."""
        assert self.process is not None
        below = descendants(self.process.pid)
        os.kill(self.process.pid, signal.SIGKILL)
        for pid, _ in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert not still_there(below)

    def says(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What a command of a person at a laptop prints."""
        command = [sys.executable, "-m", "orchestrator", *words]
        path = {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command,
            env={**self.environment, **path, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def until(self, job: str, pattern: str) -> str:
        """What the job printed, once that has `pattern` in it."""
        for _ in range(240):
            text = self.says("logs", job).stdout
            if re.search(pattern, text):
                return text
            time.sleep(0.5)
        raise AssertionError(text)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    there = Head(Path(tmp_path_factory.mktemp("h")))
    there.start()
    yield there
    there.kill()


def test_a_job_that_died_with_its_head_is_resumed_by_submitting_it_again(head: Head, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    study = [str(ROOT / "experiments/demo.yaml"), *QUIET, "--ledger", f"file://{ledger}"]

    checked = head.says("doctor", *study, "--submit")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for word in ("asked for by the cluster", "1 joined", "Ray: 2.60.0 on all nodes", "no other user can read its file"):
        assert word in checked.stdout
    assert not checked.stderr

    submitted = head.says("submit", *study)
    assert submitted.returncode == 0, submitted.stderr
    job, *hints = submitted.stdout.splitlines()
    assert re.fullmatch(r"demo-\d{8}T\d{4}-[0-9a-f]{4}", job)
    assert all(
        f"orchestrator {verb} {job}" in line for verb, line in zip(("status", "logs", "stop"), hints, strict=True)
    )
    head.until(job, r"tunes: 0 of 1, 1 running")
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    refused = head.says("status", job, RAY_AUTH_TOKEN_PATH=str(wrong))
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert "refuses the token: set RAY_AUTH_MODE=token" in refused.stderr
    mistyped = head.says("status", job[:-1])
    assert (mistyped.returncode, mistyped.stderr.count("\n")) == (2, 1)
    assert f"did you mean {job}?" in mistyped.stderr

    head.kill()
    head.start()
    gone = head.says("status", job)
    assert gone.returncode == 2
    assert "a job that died with its head is resumed by submitting it again" in gone.stderr
    resumed = head.says("submit", *study)
    assert resumed.returncode == 0, resumed.stderr
    job = resumed.stdout.splitlines()[0]
    text = head.until(job, r"tunes: 0 of 1, 1 running")
    assert "again: tunes" in text
    stopped = head.says("stop", job)
    assert stopped.returncode == 0, stopped.stderr
    assert f"job {job}: stopped after" in stopped.stdout
    resume = f"orchestrator submit {ROOT / 'experiments/demo.yaml'} "
    assert f"To go on: {resume}" in stopped.stdout
    followed = head.says("status", job, "--follow")
    assert followed.returncode == 143, "the exit code is the job's"
    assert f"stopped; nothing done is lost. To go on: {resume}" in followed.stdout
    assert not Ledger(Storage(str(ledger))).alive_drivers(60.0)
    secret = head.token.read_text()
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert everything
    assert not any(secret.encode() in path.read_bytes() for path in everything)
