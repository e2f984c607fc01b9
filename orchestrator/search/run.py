"""Runs a search: ask for settings, run them through the ordinary driver, write down their scores, ask again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace

from orchestrator.backends import RayBackend, Refused
from orchestrator.graph import CellSpec, Graph
from orchestrator.observers import Observer
from orchestrator.outcome import Outcome
from orchestrator.planner_eeg_group import reduce
from orchestrator.search import sampler
from orchestrator.search.objective import score, with_ancestors
from orchestrator.search.plan import NotAllowed, Planned, Search
from orchestrator.search.records import Trial, TrialState
from orchestrator.search.showing import best, scored, settings_text
from orchestrator.search.space import identity
from orchestrator.signals import StopFlag, stop_on_signals
from orchestrator.stages import STAGES, Stage
from orchestrator.study import Execution, open_cluster, run_study

Say = Callable[[str], None]
HOPELESS = 4
NO_PRUNING = "note: --inline runs every trial of this search to its end; stopping poor ones early (ASHA) needs Ray"


class SearchRun:
    """One driver's work on a search, until `n_trials` trials are finished or the space is tried to its end."""

    def __init__(
        self,
        search: Search,
        execution: Execution,
        observers: Callable[[], Sequence[Observer]],
        driver: str,
        trackers: Sequence[Observer],
        say: Say,
        stages: Mapping[str, Stage] = STAGES,
    ) -> None:
        """`observers` gives those of one round, a study of its own to them; `trackers` are told of trials alone."""
        self.search, self.execution, self.driver = search, execution, driver
        self.observers, self.trackers, self.say, self.stages = observers, trackers, say, stages
        self.trials = {trial.number: trial for trial in search.trials()}
        self.retried: set[int] = set()
        self._done: dict[str, None] = {}
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """Do all trials there are to do, then look at the whole search as one study; its outcome is the search's."""
        with stop_on_signals() as flag:
            self._retry()
            ended = None
            if self._pending() or self.ask() is not None:
                self.search.records.describe(self.search.about())
                ended = self._ask_and_run(flag)
            return self._outcome(ended or self._whole())

    def ask(self) -> Trial | None:
        """The next trial; None when there are enough, or the space is tried to its end."""
        self.learn()
        config, known = self.search.config, [self.trials[number] for number in sorted(self.trials)]
        if len(known) >= config.n_trials or self._hopeless():
            return None
        number = next(number for number in range(len(known) + 1) if number not in self.trials)
        settings = sampler.ask(
            self.search.space,
            config.sampler,
            self.search.objective.maximise,
            config.seed,
            number,
            [sampler.frozen(trial, self.search.space) for trial in known],
            {identity(trial.settings) for trial in known},
        )
        return None if settings is None else Trial(number, settings, exploratory=self.search.exploratory)

    def take(self) -> Trial | None:
        """The next trial, written down; one that another driver finished meanwhile is passed over."""
        while (asked := self.ask()) is not None:
            trial = self.search.records.place(asked)
            self.trials[trial.number] = trial
            if not trial.finished:
                return trial
        return None

    def learn(self) -> None:
        """Take over what other drivers wrote down meanwhile."""
        for number, trial in self.search.records.trials().items():
            mine = self.trials.get(number)
            if mine is None or (trial.finished and not mine.finished and trial.cells == mine.cells):
                self.trials[number] = trial

    def put(self, trial: Trial) -> None:
        """Write a trial down."""
        self.trials[trial.number] = trial
        self.search.records.put(trial)

    def finish(self, trial: Trial) -> None:
        """Write a finished trial down, and say how it went."""
        self.put(trial)
        leader = best(self.search, self.trials.values())
        so_far = f"; best so far: {scored(self.search, leader)}, trial {leader.number}" if leader is not None else ""
        what = scored(self.search, trial) if trial.value is not None else trial.sentence
        self.say(f"trial {trial.number} {trial.state}: {settings_text(trial.settings)}: {what}{so_far}")

    def computed(self, signature: str) -> None:
        """A cell was computed outside of a round."""
        self._done[signature] = None

    def plan(self, trial: Trial) -> Planned | None:
        """The cells of a trial, which is failed where its settings don't fit together."""
        try:
            planned = self.search.plan(trial)
        except NotAllowed as error:
            self.finish(trial.failed(str(error)))
            return None
        cells = tuple(cell.signature for cell in planned.judges)
        if self.trials[trial.number].cells != cells:
            self.put(replace(trial, cells=cells))
        return planned

    # Rounds

    def _ask_and_run(self, flag: StopFlag) -> Outcome | None:
        """All rounds; an outcome that ended them before their time."""
        try:
            with self._backend() as backend:
                flag.listen()  # Ray has put a SIGTERM handler of its own in place
                if self.search.trains_one_stage and backend is not None:
                    return self._train(backend)
                if self.search.trains_one_stage:
                    self.say(NO_PRUNING)
                while not flag.is_set() and (trials := self._next_round()) and not flag.is_set():
                    ended = self._round(trials, backend)
                    if ended is not None:
                        return ended
                return Outcome(signum=flag.signum) if flag.is_set() else None
        except Refused as error:
            return Outcome(refused=[str(error)])

    def _backend(self) -> AbstractContextManager[RayBackend | None]:
        if self.execution.inline:
            return nullcontext(None)
        return closing(open_cluster(self.search.ledger, self.execution, 4 * self.search.config.concurrent))

    def _train(self, backend: RayBackend) -> Outcome | None:
        """What the stage reads, by the ordinary driver; then its trials, by Ray Tune."""
        from orchestrator.search.stage import train_trials

        base = self.search.base
        parents = with_ancestors(base.graph, [cell.signature for cell in base.judges], themselves=False)
        ended = self._study(parents, backend, self.execution.retry_failed)
        if ended.exit_code:
            return ended
        return train_trials(self, backend)

    def _pending(self) -> list[Trial]:
        return [trial for _, trial in sorted(self.trials.items()) if not trial.finished]

    def _hopeless(self) -> bool:
        """The first trials all failed: so will others."""
        trials = self.trials.values()
        return len(trials) >= HOPELESS and all(trial.state is TrialState.FAILED for trial in trials)

    def _next_round(self) -> list[Trial]:
        """Trials that were asked for and not finished come first; only then others are asked for."""
        trials = self._pending()[: self.search.config.concurrent]
        if trials:
            return trials
        while len(trials) < self.search.config.concurrent and (taken := self.take()) is not None:
            trials.append(taken)
        return trials

    def _round(self, trials: Sequence[Trial], backend: RayBackend | None) -> Outcome | None:
        planned = {trial.number: self.plan(trial) for trial in trials}
        for trial in trials:
            if planned[trial.number] is not None:
                self.say(f"trial {trial.number}: {settings_text(trial.settings)}")
        retry = any(trial.number in self.retried for trial in trials)
        outcome = self._study(self.search.graph([self.trials[trial.number] for trial in trials]), backend, retry)
        if outcome.stopped or outcome.refused or outcome.aborted:
            return outcome
        for number, plan in planned.items():
            if plan is not None:
                self._judge(self.trials[number], plan, outcome)
        return None

    def _judge(self, trial: Trial, planned: Planned, outcome: Outcome) -> None:
        """Score a trial; a listener whose EEG failed is missing in all trials alike."""
        lost = {**outcome.failed, **outcome.blocked}
        cells = [cell for cell in planned.judges if cell.inputs.get("eeg") not in outcome.failed]
        why = next((f"{cell.name}: {lost[cell.signature]}" for cell in cells if cell.signature in lost), None)
        found: float | str = why or "no listener is left" if why or not cells else self._score(cells)
        self.finish(trial.completed(found) if isinstance(found, float) else trial.failed(found))

    def _score(self, cells: Sequence[CellSpec]) -> float | str:
        return score(self.search.objective, cells, self.search.ledger.survey(cells, full=False))

    def _study(self, graph: Graph, backend: RayBackend | None, retry: bool = False) -> Outcome:
        ledger, execution = self.search.ledger, replace(self.execution, retry_failed=retry)
        outcome = run_study(
            graph, ledger, execution, self.observers(), reduce, self.stages, driver=self.driver, backend=backend
        )
        self._done |= dict.fromkeys(outcome.done)
        return outcome

    def _retry(self) -> None:
        """Put failed trials back among those to do, when that was asked for."""
        for trial in list(self.trials.values()) if self.execution.retry_failed else ():
            if trial.state is TrialState.FAILED:
                self.retried.add(trial.number)
                self.put(replace(trial, state=TrialState.RUNNING, sentence=""))

    def _whole(self) -> Outcome:
        """The search as one study of what its trials left: cached, unless files were lost.

        Trials that another driver has in hand are its own to finish.
        """
        self.learn()
        return self._study(self.search.graph(trial for trial in self.trials.values() if trial.finished), None)

    def _outcome(self, outcome: Outcome) -> Outcome:
        done = [*self._done, *(signature for signature in outcome.done if signature not in self._done)]
        failed = {
            f"trial {trial.number}": trial.sentence
            for trial in self.trials.values()
            if trial.state is TrialState.FAILED and not outcome.failed
        }
        return replace(
            outcome,
            done=done,
            cached=[signature for signature in outcome.cached if signature not in self._done],
            failed={**outcome.failed, **failed},
            seconds=time.monotonic() - self._began,
        )
