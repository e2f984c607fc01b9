"""What a run would do, and why, without doing any of it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from orchestrator.graph import Graph
from orchestrator.opening import Study
from orchestrator.reasons import SENTENCES, State
from orchestrator.report.results import States
from orchestrator.search.plan import Search
from orchestrator.search.showing import as_json, missing_data, settings_text, summary
from orchestrator.signature import SHORT
from orchestrator.stages import STAGES
from orchestrator.standing import stand

SHOWN = 60


def plan(study: Study, wants_json: bool, everything: bool, show_config: bool) -> str:
    """The plan as text or JSON. Cells that are cached are counted; all others are named with their reason."""
    graph, states = stand(study.graph, study.ledger)
    if wants_json:
        return json.dumps(_content(study, graph, states), indent=1)
    lines = [f"study {study.experiment.name}: {len(graph)} cells, ledger {study.ledger.storage.root}"]
    if study.search is not None:
        lines += _search_lines(study.search)
    if show_config:
        lines += _config_lines(study)
    lines += _table(graph, states) if len(graph) else []
    lines += [f"note: {sentence}" for sentence in graph.notes]
    lines += _named(graph, states, everything) if study.search is None or len(graph) else []
    return "\n".join(lines)


def _search_lines(search: Search) -> list[str]:
    """What is known of a search; the cells that are planned are those of its trials so far."""
    trials = search.trials()
    lines = [*summary(search, trials), *missing_data(search)]
    for trial in trials:
        if not trial.finished:
            lines.append(f"  unfinished: trial {trial.number}: {settings_text(trial.settings)}")
    return lines


def _content(study: Study, graph: Graph, states: States) -> dict[str, Any]:
    cells = [
        {
            "stage": cell.stage,
            "name": cell.name,
            "signature": cell.signature,
            "state": states[cell.signature][0].value,
            "reason": states[cell.signature][1].value,
            "missing": cell.missing,
            "inputs": list(cell.parents),
        }
        for cell in graph
    ]
    counts = Counter(cell["state"] for cell in cells)
    found = {} if study.search is None else {"search": as_json(study.search)}
    return {
        **found,
        "study": study.experiment.name,
        "ledger": study.ledger.storage.root,
        "notes": list(graph.notes),
        "counts": dict(counts),
        "cells": cells,
    }


def _table(graph: Graph, states: States) -> list[str]:
    lines = [f"{'stage':<18}{'cells':>7}{'cached':>8}{'to do':>8}{'blocked':>9}{'failed':>8}"]
    for stage in STAGES:
        counts = Counter(states[cell.signature][0] for cell in graph if cell.stage == stage)
        if counts:
            row = [counts[state] for state in (State.CACHED, State.TO_DO, State.BLOCKED, State.FAILED)]
            lines.append(f"{stage:<18}{sum(row):>7}{row[0]:>8}{row[1]:>8}{row[2]:>9}{row[3]:>8}")
    return lines


def _named(graph: Graph, states: States, everything: bool) -> list[str]:
    open_cells = [cell for cell in graph if states[cell.signature][0] is not State.CACHED]
    if not open_cells:
        return ["everything is cached: a run would compute nothing"]
    lines = []
    if all(states[cell.signature][0] is not State.TO_DO and not cell.missing for cell in open_cells):
        lines.append("nothing is to do: a run would compute nothing (--retry failed tries what failed again)")
    for cell in open_cells if everything else open_cells[:SHOWN]:
        state, reason, _ = states[cell.signature]
        why = cell.missing or SENTENCES[reason]
        lines.append(f"  {state.value:<8} {cell.signature[:SHORT]}  {cell.name}  ({why})")
    if not everything and len(open_cells) > SHOWN:
        lines.append(f"  ... and {len(open_cells) - SHOWN} more (--all names them, --json has everything)")
    return lines


def _config_lines(study: Study) -> list[str]:
    lines = []
    for key, value in _flat(study.experiment.model_dump(mode="json")):
        origin = next((study.origins[k] for k in (key, *_parents(key)) if k in study.origins), "default")
        lines.append(f"  {key} = {json.dumps(value)}  [{origin}]")
    return lines


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in _flat(item, f"{prefix}.{key}" if prefix else key)]
    return [(prefix, value)]


def _parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]
