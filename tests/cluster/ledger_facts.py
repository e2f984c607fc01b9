"""All cells of a ledger and the attempts at each, as JSON: `python ledger_facts.py URL ENDPOINT`."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from orchestrator.ledger import Ledger
from orchestrator.stages import STAGES
from orchestrator.storage import Storage


def main(url: str, endpoint: str) -> None:
    ledger = Ledger(Storage(url, {"endpoint_url": endpoint}))

    def facts(cell: tuple[str, str]) -> tuple[str, dict[str, Any]]:
        stage, signature = cell
        status = ledger.status(stage, signature)
        attempts = [[record.reason.value, record.outcome] for record in ledger.history(stage, signature)]
        name = ledger.config(stage, signature)["name"]
        state = status.state if status else "open"
        failure = status.failure if status else None
        return signature, {"stage": stage, "name": name, "state": state, "failure": failure, "attempts": attempts}

    cells = [(stage, signature) for stage in STAGES for signature in ledger.signatures(stage)]
    with ThreadPoolExecutor(8) as pool:
        found = dict(pool.map(facts, cells))
    print(json.dumps({"cells": found, "drivers": ledger.storage.names("drivers")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
