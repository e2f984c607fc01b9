"""Where a training is at work that has a checkpoint: `python at_work.py URL ENDPOINT STAGE SECONDS` prints the host."""

from __future__ import annotations

import json
import sys
import time

from orchestrator.storage import Storage


def host_of(storage: Storage, stage: str, signature: str) -> str | None:
    """Where a training is at work that would go on from a checkpoint; None when there is none."""
    cell = f"{stage}/{signature}"
    steps = storage.names(f"{cell}/checkpoints")
    if storage.exists(f"{cell}/status.json") or not any(
        storage.exists(f"{cell}/checkpoints/{step}/complete.json") for step in steps
    ):
        return None
    last = max(storage.names(f"{cell}/attempts"))
    return str(json.loads(storage.read(f"{cell}/attempts/{last}/attempt.json"))["host"])


def main(url: str, endpoint: str, stage: str, seconds: str) -> int:
    storage, until = Storage(url, {"endpoint_url": endpoint}), time.monotonic() + float(seconds)
    while time.monotonic() < until:
        for signature in storage.names(stage):
            host = host_of(storage, stage, signature)
            if host is not None:
                print(host)
                return 0
        time.sleep(0.3)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
