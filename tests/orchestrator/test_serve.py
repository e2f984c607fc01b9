"""MLflow's server for drivers: settings from the environment or a private file, and its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_study_ray import descendants, still_there
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.reading import UsageError
from orchestrator.verbs.serve import _until_stopped, read_env_file, server_environment

SECRET = "postgresql://mlflow:s3cr3t-w0rd@127.0.0.1/mlflow"


def test_settings_come_from_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.env"
    path.write_text(f"# the store\nMLFLOW_BACKEND_STORE_URI='{SECRET}'\n\nA_B=c=d\n")
    path.chmod(0o640)
    with pytest.raises(UsageError, match=r"mode 0640.*chmod 600"):
        read_env_file(path)
    path.chmod(0o600)
    assert read_env_file(path) == {"MLFLOW_BACKEND_STORE_URI": SECRET, "A_B": "c=d"}
    path.write_text(SECRET)
    with pytest.raises(UsageError, match="line 1") as caught:
        read_env_file(path)
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(UsageError, match="FileNotFoundError"):
        read_env_file(tmp_path / "none")


def test_a_store_and_a_place_for_artefacts_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, ["ui", "--serve"])
    assert result.exit_code == 2
    assert "MLFLOW_BACKEND_STORE_URI is not set" in result.stderr
    with pytest.raises(UsageError, match="MLFLOW_ARTIFACTS_DESTINATION"):
        server_environment({"MLFLOW_BACKEND_STORE_URI": SECRET})


def test_the_one_endpoint_reaches_mlflows_s3_client() -> None:
    given = {"MLFLOW_BACKEND_STORE_URI": SECRET, "MLFLOW_ARTIFACTS_DESTINATION": "s3://b/p"}
    there = server_environment({**given, "AWS_ENDPOINT_URL": "http://a", "ORCHESTRATOR_S3_ENDPOINT_URL": "http://o"})
    assert there["MLFLOW_S3_ENDPOINT_URL"] == "http://o"
    assert there["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert server_environment({**given, "AWS_ENDPOINT_URL": "http://a"})["MLFLOW_S3_ENDPOINT_URL"] == "http://a"
    assert "MLFLOW_S3_ENDPOINT_URL" not in server_environment(given)


@pytest.mark.processes
def test_a_server_has_its_time_to_end(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    script = (
        "import os, pathlib, signal, sys, time\n"
        f"end = lambda *_: (time.sleep(2.5), pathlib.Path({str(ended)!r}).touch(), os._exit(0))\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)\n"
    )
    assert _until_stopped([sys.executable, "-c", script], os.environ) == 0
    assert ended.exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`ui --serve` on sqlite and a folder, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artefacts"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    words = [sys.executable, "-m", "orchestrator", "ui", "--serve", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(words, env={**os.environ, **settings}, stdout=log, stderr=log)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(1)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.processes
def test_drivers_write_through_it_and_sigterm_ends_all_of_it(
    server: tuple[subprocess.Popen[bytes], str], tmp_path: Path
) -> None:
    from orchestrator.tracking import probe

    process, uri = server
    probe(uri)
    probe(uri)  # what the first one deleted is not in its way
    assert not [path for path in (tmp_path / "artefacts").rglob("*") if path.is_file()]
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid, _ in descendants(process.pid)]
    assert commands
    assert not any(b"sqlite" in command for command in commands)
    below = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not still_there(below)
