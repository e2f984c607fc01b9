"""Where a study stands."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable

from orchestrator.opening import Study
from orchestrator.reasons import SENTENCES, State
from orchestrator.report.tables import aligned
from orchestrator.search.plan import Search
from orchestrator.search.records import TrialState
from orchestrator.search.showing import as_json, missing_data, summary, table
from orchestrator.signature import SHORT
from orchestrator.stages import STAGES
from orchestrator.standing import stand

HEARTBEAT_S = 60.0
FOLLOW_EVERY_S = 5.0
QUIET_LOOKS = 6
"""A search has no driver at work between its rounds: after so many looks without one, nobody works on it."""


def status(study: Study, wants_json: bool) -> str:
    """Counts per stage, the failures with their sentences, and who is working on it."""
    graph, states = stand(study.graph, study.ledger)
    per_stage = {
        stage: Counter(states[cell.signature][0].value for cell in graph if cell.stage == stage) for stage in STAGES
    }
    per_stage = {stage: counts for stage, counts in per_stage.items() if counts}
    failures = [
        {"name": cell.name, "signature": cell.signature, "failure": found.failure}
        for cell in graph
        for state, _, found in [states[cell.signature]]
        if state is State.FAILED and found is not None
    ]
    drivers = study.ledger.alive_drivers(HEARTBEAT_S)
    if wants_json:
        content = {
            **({} if study.search is None else {"search": as_json(study.search)}),
            "study": study.experiment.name,
            "stages": {stage: dict(counts) for stage, counts in per_stage.items()},
            "failures": failures,
            "drivers": sorted(drivers),
        }
        return json.dumps(content, indent=1)
    lines = [f"study {study.experiment.name}, ledger {study.ledger.storage.root}"]
    if study.search is not None:
        lines += _search_lines(study.search)
    for stage, counts in per_stage.items():
        shown = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        lines.append(f"  {stage:<18} {shown}")
    lines += [f"  failed {str(item['signature'])[:SHORT]}  {item['name']}: {item['failure']}" for item in failures]
    blocked = Counter(states[cell.signature][1] for cell in graph if states[cell.signature][0] is State.BLOCKED)
    lines += [f"  blocked: {count} cells ({SENTENCES[reason]})" for reason, count in blocked.items()]
    lines.append(f"drivers at work: {', '.join(sorted(drivers)) or 'none'}")
    return "\n".join(lines)


def follow(study: Study, show: Callable[[str], None]) -> int:
    """Show where the study stands whenever that changes, until all is settled or nobody works on it."""
    shown, quiet = "", 0
    while True:
        study = study.now()
        text = status(study, wants_json=False)
        if text != shown:
            show(text)
            shown = text
        _, states = stand(study.graph, study.ledger)
        kinds = Counter(state for state, _, _ in states.values())
        over, failed = _search_end(study.search)
        quiet = 0 if study.ledger.alive_drivers(HEARTBEAT_S) else quiet + 1
        whole = not kinds[State.TO_DO] and over
        if whole or quiet >= (1 if study.search is None else QUIET_LOOKS):
            return 0 if over and not failed and set(kinds) == {State.CACHED} else 1
        time.sleep(FOLLOW_EVERY_S)


def _search_end(search: Search | None) -> tuple[bool, bool]:
    """Whether a search, if there is one, has no trial left to do; whether one failed."""
    if search is None:
        return True, False
    trials = search.trials()
    return search.is_over(trials), any(trial.state is TrialState.FAILED for trial in trials)


def _search_lines(search: Search) -> list[str]:
    trials = search.trials()
    header, rows = table(search, trials)
    shown = [f"  {line}" for line in aligned(header, rows)] if rows else []
    return [*summary(search, trials), *missing_data(search), *shown]
