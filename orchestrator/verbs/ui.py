"""MLflow's own pages on the store of a ledger, reachable from this machine only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.opening import local_home, tracking_store
from orchestrator.storage import Storage

HOST = "127.0.0.1"


def ui(ledger: str, tracking_uri: str | None, port: int) -> int:
    """Serve until interrupted; returns the exit code."""
    storage = Storage(ledger)
    uri = tracking_uri or tracking_store(storage)
    store = Path(uri.removeprefix("sqlite:///"))
    if tracking_uri is None and not store.exists():
        sys.stderr.write(f"orchestrator: {store}: no MLflow store there; run a study first, or give --tracking-uri\n")
        return 2
    print(f"MLflow at http://{HOST}:{port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--artifacts-destination", str((local_home(storage) / "mlartifacts").absolute())]
    command += ["--host", HOST, "--port", str(port)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    try:
        return subprocess.run(command, env={**os.environ, **quiet}, check=False).returncode
    except KeyboardInterrupt:
        return 0
