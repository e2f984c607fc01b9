"""MLflow's server for the drivers of a cluster: a database and artefacts behind it, loopback in front."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from orchestrator.reading import UsageError
from orchestrator.redaction import redact
from orchestrator.remote import ENDPOINT_VARIABLES

HOST = "127.0.0.1"
STORE, ARTIFACTS = "MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"
SMALL = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
END_S = 10.0


def serve(env_file: str | None, artifacts_destination: str | None, port: int) -> int:
    """Serve until SIGTERM or Ctrl-C, which end all its processes; returns the exit code."""
    given = {**os.environ, **(read_env_file(Path(env_file)) if env_file else {})}
    if artifacts_destination:
        given[ARTIFACTS] = artifacts_destination
    environment = server_environment(given)
    print(f"MLflow at http://{HOST}:{port}, {_described(environment)}", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    return _until_stopped(command, environment)


def server_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of MLflow's server, which takes store and artefacts from there: `ps` shows no environment."""
    for name, example in ((STORE, "postgresql://USER:PASSWORD@HOST/DATABASE"), (ARTIFACTS, "s3://bucket/prefix")):
        if not given.get(name):
            raise UsageError(f"ui --serve: {name} is not set; put {name}={example} into a file (0600) for --env-file")
    endpoint = next((given[name] for name in ENDPOINT_VARIABLES if given.get(name)), None)
    s3 = {"MLFLOW_S3_ENDPOINT_URL": endpoint} if endpoint else {}
    return {**s3, **SMALL, **given}


def read_env_file(path: Path) -> dict[str, str]:
    """Settings as NAME=VALUE, one a line; `UsageError` where others could read them."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--env-file {path}: {type(error).__name__}; give a file of lines NAME=VALUE") from None
    if mode & 0o077:
        raise UsageError(f"--env-file {path}: others may read it (mode {mode:04o}); chmod 600 {path}")
    settings: dict[str, str] = {}
    for number, line in enumerate((line.strip() for line in lines), 1):
        name, equals, value = line.partition("=")
        if line and not line.startswith("#"):
            if not equals or not name.isidentifier():
                raise UsageError(f"--env-file {path}: line {number} is not of the form NAME=VALUE")
            settings[name] = value.strip().strip("'\"")
    return settings


def _described(environment: Mapping[str, str]) -> str:
    store = environment[STORE].partition(":")[0]
    endpoint = environment.get("MLFLOW_S3_ENDPOINT_URL", "")
    behind = f" at {endpoint}" if endpoint and environment[ARTIFACTS].startswith("s3") else ""
    return redact(f"runs in {store}, artefacts in {environment[ARTIFACTS]}{behind}")


def _until_stopped(command: list[str], environment: Mapping[str, str]) -> int:
    """Run the server in a process group of its own, which a signal to this process ends as a whole."""
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline: float | None = None

    def end(signum: int, frame: FrameType | None) -> None:
        nonlocal deadline
        deadline = deadline or time.monotonic() + END_S
        _signal_group(server, signal.SIGTERM)

    before = {signum: signal.signal(signum, end) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        while True:
            try:
                code = server.wait(1.0)
                break
            except subprocess.TimeoutExpired:
                if deadline is not None and time.monotonic() > deadline:
                    _signal_group(server, signal.SIGKILL)
    finally:
        _signal_group(server, signal.SIGKILL)  # what is left of its workers
        for signum, handler in before.items():
            signal.signal(signum, handler)
    return code if deadline is None else 0


def _signal_group(server: subprocess.Popen[bytes], signum: int) -> None:
    try:
        os.killpg(server.pid, signum)
    except (ProcessLookupError, PermissionError):
        return
