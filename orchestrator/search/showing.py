"""A search in words and tables: its trials, the best first, and the command that runs the best."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.search.plan import Search, short_key
from orchestrator.search.records import Trial, TrialState
from orchestrator.search.space import Settings
from orchestrator.signature import SHORT

EXPLORATORY = "EXPLORATORY: settings are chosen on held-out EEG; no p-value of what is chosen so may be relied upon"
MOST_NAME = 59
LATER = {TrialState.PRUNED: 1, TrialState.RUNNING: 2, TrialState.FAILED: 3}


def best(search: Search, trials: Iterable[Trial]) -> Trial | None:
    """The complete trial with the best score; of equal ones the first."""
    scored_ones = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    return min(scored_ones, key=lambda trial: _rank(search, trial), default=None)


def ranked(search: Search, trials: Iterable[Trial]) -> list[Trial]:
    """Complete trials, the best first; then those stopped early, unfinished, failed."""
    return sorted(trials, key=lambda trial: _rank(search, trial))


def _rank(search: Search, trial: Trial) -> tuple[int, float, int]:
    value = trial.value if trial.value is not None else 0.0
    return LATER.get(trial.state, 0), -value if search.objective.maximise else value, trial.number


def scored(search: Search, trial: Trial) -> str:
    return f"{search.objective.name} {trial.value:.4g}" if trial.value is not None else str(trial.state)


def settings_text(settings: Settings) -> str:
    return ", ".join(f"{key}={plain(value)}" for key, value in settings.items())


def plain(value: Any) -> str:
    """A value as YAML would take it back."""
    return value if isinstance(value, str) else json.dumps(value)


def command(search: Search, trial: Trial) -> str:
    """What to type to run the study with a trial's settings."""
    given = [word for word in search.overrides if not word.startswith(("search.", "search=", "name="))]
    words = [f"{key}={plain(value)}" for key, value in trial.settings.items()]
    name = f"name={search.experiment.name[:MOST_NAME]}-best"
    return shlex.join(["orchestrator", "run", search.where, *given, "search=null", name, *words])


def table(search: Search, trials: Sequence[Trial]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows, the best first."""
    keys = [dimension.key for dimension in search.space]
    header = ("trial", *(short_key(key, keys) for key in keys), search.objective.name, "state")
    rows = []
    for trial in ranked(search, trials):
        value = "–" if trial.value is None else f"{trial.value:.4g}"
        rows.append((str(trial.number), *(plain(trial.settings.get(key)) for key in keys), value, str(trial.state)))
    return header, rows


def csv_rows(search: Search, trials: Sequence[Trial]) -> tuple[tuple[str, ...], list[Mapping[str, Any]]]:
    """Columns and rows for programs, the best first."""
    keys = tuple(dimension.key for dimension in search.space)
    rows: list[Mapping[str, Any]] = [
        {
            **{key: plain(trial.settings.get(key)) for key in keys},
            "trial": trial.number,
            "value": trial.value,
            "state": str(trial.state),
            "objective": search.objective.name,
            "why": trial.sentence,
            "cells": ";".join(trial.cells),
        }
        for trial in ranked(search, trials)
    ]
    return ("trial", *keys, "objective", "value", "state", "why", "cells"), rows


def summary(search: Search, trials: Sequence[Trial]) -> list[str]:
    """What is known and what is to do, in a few lines."""
    counts = Counter(trial.state for trial in trials)
    left = max(search.config.n_trials - len(trials), 0)
    shown = [f"{counts[state]} {state}" for state in TrialState if counts[state]]
    over = "" if not search.trains_one_stage else f" over {search.config.over}"
    lines = [
        f"search {search.signature[:SHORT]}{over} by {search.objective.title}: "
        f"{', '.join([*shown, f'{left} to do'] if left or not shown else shown)}"
    ]
    if search.exploratory:
        lines.insert(0, EXPLORATORY)
    leader = best(search, trials)
    if leader is not None:
        lines.append(f"best so far: trial {leader.number}, {scored(search, leader)}: {settings_text(leader.settings)}")
    elif not trials:
        lines.append(f"a trial needs about {len(search.sample.graph)} cells; what trials share is computed once")
    return lines


def missing_data(search: Search) -> list[str]:
    """What every trial waits for."""
    return [f"blocked: {sentence}" for sentence in sorted({c.missing for c in search.base.graph if c.missing})]


def as_json(search: Search) -> dict[str, Any]:
    """A search and its trials for programs, the best first."""
    trials = search.trials()
    _, rows = csv_rows(search, trials)
    settings = {trial.number: dict(trial.settings) for trial in trials}
    about = {**search.about(), "signature": search.signature, "n_trials": search.config.n_trials}
    return {**about, "trials": [{**row, "settings": settings[row["trial"]]} for row in rows]}
