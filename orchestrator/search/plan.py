"""A search as it stands: its space and objective checked, its trials as the ledger has them, the cells of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from orchestrator.experiment import Experiment, Science, UnknownKey
from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger
from orchestrator.manifest import Manifest, resolve_also
from orchestrator.planner import build_variants
from orchestrator.reading import UsageError, explain_science
from orchestrator.reasons import State
from orchestrator.search.config import SearchConfig
from orchestrator.search.objective import Objective, judges, needed, objective_of, with_ancestors
from orchestrator.search.records import Records, Trial, TrialState
from orchestrator.search.space import Dimension, Settings, applied, dimensions, every, identity
from orchestrator.signature import canonical_json
from orchestrator.variant_names import NAMED_KEYS, variant_name

LEVELS = "surprisal.noise_levels"


class NotAllowed(Exception):
    """Settings that the schema refuses when they come together: one sentence."""


@dataclass(frozen=True)
class Planned:
    """One trial's cells: those that judge it, and all that these need."""

    graph: Graph
    judges: tuple[CellSpec, ...]


class Search:
    """The search of one experiment on one ledger.

    Raises
    ------
    UsageError
        In one line, when the space or the objective doesn't fit the experiment.
    """

    def __init__(self, experiment: Experiment, ledger: Ledger, where: str, overrides: Sequence[str] = ()) -> None:
        """`where` is the experiment's file, `overrides` what the command line set over it."""
        assert experiment.search is not None
        self.experiment, self.ledger, self.where, self.overrides = experiment, ledger, where, tuple(overrides)
        self.config: SearchConfig = experiment.search
        self.objective: Objective = objective_of(self.config)
        self.space: tuple[Dimension, ...] = dimensions(self.config, experiment.science, where)
        self._manifest = Manifest(options=ledger.storage.options)
        self.base = self._plan(experiment.science, {})
        if not self.base.judges:
            raise UsageError(
                f"{where}: search.objective: {self.objective.name} is not measured in this study: it needs "
                f"{self.objective.needs}"
            )
        self._check_reach()
        self.sample = self._try({dimension.key: dimension.first for dimension in self.space}) or self.base
        self.records = Records(ledger.storage, self._signature())

    @property
    def exploratory(self) -> bool:
        """It chooses on held-out EEG: whatever is made of it says so."""
        return self.objective.exploratory

    @property
    def signature(self) -> str:
        return self.records.signature

    @property
    def trains_one_stage(self) -> bool:
        return self.config.over != "variants"

    def plan(self, trial: Trial) -> Planned:
        """The cells of a trial, labelled with it; `NotAllowed` when its settings don't fit together."""
        try:
            science = applied(self.experiment.science, trial.settings)
        except (ValidationError, UnknownKey) as error:
            raise NotAllowed(explain_science(error, f"trial {trial.number}")) from None
        return self._plan(science, trial.settings, {"search": self.signature, "trial": str(trial.number)})

    def trials(self) -> list[Trial]:
        """All trials by number. One whose cells are no longer those that judged it (other data) is to do again."""
        return [self._current(trial) for _, trial in sorted(self.records.trials().items())]

    def graph(self, trials: Iterable[Trial], without_pruned: bool = True) -> Graph:
        """All cells of some trials, each once; a training stopped early, or given up, is to do in no other study."""
        cells: dict[str, CellSpec] = {}
        notes: dict[str, None] = {}
        for trial in trials:
            try:
                planned = self.plan(trial)
            except NotAllowed:
                continue
            graph = planned.graph
            if without_pruned and self._is_left(trial, planned):
                graph = with_ancestors(graph, [cell.signature for cell in planned.judges], themselves=False)
            cells = {**graph.cells, **cells}
            notes |= dict.fromkeys(graph.notes)
        return Graph(_parents_first(cells), tuple(notes))

    def _is_left(self, trial: Trial, planned: Planned) -> bool:
        """The trial ended without its training: stopped early, or given up with no failure of the cell."""
        if trial.state is not TrialState.FAILED or not self.trains_one_stage:
            return trial.state is TrialState.PRUNED
        found = self.ledger.survey(planned.judges, full=False)
        return any(state is State.TO_DO for state, _, _ in found.values())

    def is_over(self, trials: Sequence[Trial]) -> bool:
        """All trials are finished, and there are enough of them, or no settings are left to try."""
        if not all(trial.finished for trial in trials):
            return False
        if len(trials) >= self.config.n_trials:
            return True
        there, tried = every(self.space), {identity(trial.settings) for trial in trials}
        return there is not None and all(identity(settings) in tried for settings in there)

    def about(self) -> dict[str, Any]:
        """What was searched, for people who find the folder."""
        return {
            "study": self.experiment.name,
            "search": self.config.model_dump(mode="json", exclude={"n_trials", "concurrent"}),
            "objective": self.objective.name,
            "exploratory": self.exploratory,
        }

    def _plan(self, science: Science, settings: Settings, labels: Mapping[str, str] | None = None) -> Planned:
        smaller = needed(science, self.objective)
        resolve_also(self._manifest, [smaller], self.ledger.storage)
        name = self._name(science, settings)
        try:
            graph = build_variants({name: smaller}, self._manifest)
        except ValueError as error:
            raise UsageError(f"{self.where}: {error}") from None
        found = judges(graph, self.objective)
        kept = with_ancestors(graph, [cell.signature for cell in found])
        cells = {key: replace(cell, labels={**cell.labels, **(labels or {})}) for key, cell in kept.cells.items()}
        return Planned(Graph(cells), tuple(cells[cell.signature] for cell in found))

    def _name(self, science: Science, settings: Settings) -> str:
        """What differs within the search, in a few words; a level is named by the cells at that level."""
        shown = {key: value for key, value in settings.items() if key not in (LEVELS, *NAMED_KEYS)}
        return variant_name(science, {short_key(key, self.config.space): value for key, value in shown.items()})

    def _current(self, trial: Trial) -> Trial:
        if not trial.finished or not trial.cells:
            return trial
        try:
            cells = tuple(cell.signature for cell in self.plan(trial).judges)
        except NotAllowed:
            return trial
        if cells == trial.cells:
            return trial
        return replace(trial, state=TrialState.RUNNING, value=None, intermediate={}, cells=cells, sentence="")

    def _check_reach(self) -> None:
        """Refuse keys that can't matter, and in a search over a stage those that act before it."""
        neighbours = [{}, *({one.key: value} for one in self.space for value in (one.first, one.last))]
        for dimension in self.space:
            pairs = [self._ends(dimension, settings) for settings in neighbours if dimension.key not in settings]
            self._check_upstream(dimension, pairs[0])
            if not any(
                low is not None and high is not None and _signatures(low) != _signatures(high) for low, high in pairs
            ):
                what = self.config.over if self.trains_one_stage else self.objective.name
                raise UsageError(f"{self.where}: search.space: {dimension.key!r} makes no difference to {what}")

    def _ends(self, dimension: Dimension, settings: Settings) -> tuple[Planned | None, Planned | None]:
        low, high = (self._try({**settings, dimension.key: value}) for value in (dimension.first, dimension.last))
        return low, high

    def _try(self, settings: Settings) -> Planned | None:
        try:
            return self._plan(applied(self.experiment.science, settings), settings)
        except (ValidationError, UnknownKey):
            return None

    def _check_upstream(self, dimension: Dimension, ends: tuple[Planned | None, Planned | None]) -> None:
        if not self.trains_one_stage:
            return
        inputs = [dict(planned.judges[0].inputs) for planned in ends if planned is not None]
        if any(found != inputs[0] for found in inputs):
            raise UsageError(
                f"{self.where}: search.space: {dimension.key!r} changes what {self.config.over} is trained on, so its "
                "validation losses can't be compared; search over variants, or over the stage that it belongs to"
            )

    def _signature(self) -> str:
        """Names the search: its settings, the science it starts from, and (by a sample's cells) data and code."""
        science = needed(self.experiment.science, self.objective).signed()
        for dimension in self.space:
            _drop(science, dimension.key.split("."))
        content = {
            "search": self.config.model_dump(mode="json", exclude={"n_trials", "concurrent"}),
            "objective": self.objective.name,
            "science": science,
            "cells": sorted(_signatures(self.sample)),
        }
        return hashlib.blake2b(canonical_json(content).encode(), digest_size=16).hexdigest()


def short_key(key: str, keys: Iterable[str]) -> str:
    """The end of a dotted key that no other of `keys` has."""
    others, parts = [other.split(".") for other in keys if other != key], key.split(".")
    for count in range(1, len(parts)):
        if not any(other[-count:] == parts[-count:] for other in others):
            return ".".join(parts[-count:])
    return key


def _signatures(planned: Planned) -> set[str]:
    return {cell.signature for cell in planned.judges}


def _drop(science: dict[str, Any], parts: list[str]) -> None:
    *above, last = parts
    place: Any = science
    for part in above:
        place = place.get(part) if isinstance(place, dict) else None
    if isinstance(place, dict):
        place.pop(last, None)


def _parents_first(cells: Mapping[str, CellSpec]) -> dict[str, CellSpec]:
    """The same cells in an order in which each comes after its inputs."""
    ordered: dict[str, CellSpec] = {}
    for root in cells:
        stack = [root]
        while stack:
            signature = stack[-1]
            open_parents = [key for key in cells[signature].parents if key in cells and key not in ordered]
            if open_parents and signature not in ordered:
                stack += open_parents
            else:
                ordered[signature] = cells[stack.pop()]
    return ordered
