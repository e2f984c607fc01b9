"""The only room that knows Optuna: what to try next, from the trials that were."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from orchestrator.search import records
from orchestrator.search.space import Dimension, Settings, every, identity
from orchestrator.signature import canonical_json
from tasks.seeds import derive_seed

ATTEMPTS = 20
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

_STATES = {
    records.TrialState.RUNNING: TrialState.RUNNING,
    records.TrialState.COMPLETE: TrialState.COMPLETE,
    records.TrialState.PRUNED: TrialState.PRUNED,
    records.TrialState.FAILED: TrialState.FAIL,
}


def ask(
    space: Sequence[Dimension],
    sampler: str,
    maximise: bool,
    seed: int,
    number: int,
    known: Iterable[FrozenTrial],
    taken: Collection[str],
) -> dict[str, Any] | None:
    """Settings of trial `number` that none of `taken` has; None when the whole space is tried.

    They depend on the trials that are known and on (`seed`, `number`) alone: a search that goes on in another process
    asks for the same.
    """
    there = every(space)
    untried = None if there is None else [settings for settings in there if identity(settings) not in taken]
    if untried == []:
        return None
    study = optuna.create_study(direction="maximize" if maximise else "minimize")
    study.add_trials(list(known))
    found: dict[str, Any] = {}
    for attempt in range(ATTEMPTS):
        study.sampler = _sampler(sampler, derive_seed("search", seed, number, attempt) % 2**32)
        asked = study.ask(distributions(space))
        found = {one.key: _settled(one, asked.params[one.key]) for one in space}
        if identity(found) not in taken:
            return found
        study.tell(asked, state=TrialState.FAIL)
    return found if untried is None else untried[derive_seed("search", seed, number) % len(untried)]


def frozen(trial: records.Trial, space: Sequence[Dimension]) -> FrozenTrial:
    """A recorded trial as Optuna knows it."""
    state = _STATES[trial.state]
    has_value = state in (TrialState.COMPLETE, TrialState.PRUNED)
    return create_trial(
        state=state,
        value=trial.value if has_value else None,
        params=params(trial.settings, space),
        distributions=distributions(space),
        intermediate_values=dict(trial.intermediate),
    )


def tell(study: optuna.Study, asked: optuna.Trial, trial: records.Trial) -> None:
    """Tell a live study what became of a trial; of one that was stopped early it knows the scores on the way."""
    value = trial.value if trial.state is records.TrialState.COMPLETE else None
    study.tell(asked, value, state=_STATES[trial.state])


def distributions(space: Sequence[Dimension]) -> dict[str, BaseDistribution]:
    """The space in Optuna's words; choices by their canonical JSON, for Optuna takes no lists."""
    return {one.key: _distribution(one) for one in space}


def params(settings: Settings, space: Sequence[Dimension]) -> dict[str, Any]:
    """Settings in Optuna's words."""
    found: dict[str, Any] = {}
    for one in space:
        value = settings[one.key]
        if one.kind == "choice":
            found[one.key] = canonical_json(value)
        else:
            found[one.key] = int(one.number(value)) if one.kind == "int" else one.number(value)
    return found


def _distribution(one: Dimension) -> BaseDistribution:
    if one.kind == "choice":
        return CategoricalDistribution([canonical_json(choice) for choice in one.choices])
    if one.kind == "int":
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(one.low, one.number(one.last), log=one.log, step=one.step)


def _settled(one: Dimension, param: Any) -> Any:
    if one.kind != "choice":
        return one.value(param)
    return next(choice for choice in one.choices if canonical_json(choice) == param)


def _sampler(kind: str, seed: int) -> BaseSampler:
    return RandomSampler(seed) if kind == "random" else TPESampler(seed=seed)
