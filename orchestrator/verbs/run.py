"""Compute what is missing, mirror it to MLflow, report."""

from __future__ import annotations

import os
import shlex
import sys

from orchestrator.opening import Study, check_writable
from orchestrator.planner_eeg_group import reduce
from orchestrator.progress import Progress
from orchestrator.provenance import RESUME
from orchestrator.reading import check_exploratory
from orchestrator.redaction import redact
from orchestrator.report.results import some
from orchestrator.search.plan import Search
from orchestrator.search.showing import summary
from orchestrator.study import REFUSED, WITH_FAILURES, Execution, Outcome, new_driver, run_study
from orchestrator.tracker import Tracking
from orchestrator.verbs.report import caution, report_of
from orchestrator.worker import placed

INTERRUPTED = 130
MOST_EXCLUSIONS = 20
BEAT_AT_MOST_S = 60.0


def run(study: Study, inline: bool, address: str | None, retry_failed: bool, exploratory: bool = False) -> int:
    """Run the study to its end; returns the exit code: 0, 1 (failures), 3 (refused), 130 or 143 (stopped)."""
    check_exploratory(study.experiment, exploratory)
    missing = sorted({cell.missing for cell in study.scope if cell.missing})
    if missing:
        for sentence in missing:
            _say(f"orchestrator: {sentence}")
        _say("orchestrator: nothing was started; put the data there, or point the experiment to them (key=value)")
        return REFUSED
    for note in study.graph.notes:
        _say(f"note: {note}")
    settings = study.experiment.execution
    if not study.ledger.storage.is_local:
        check_writable(study.ledger)
    study.ledger.storage.be_patient()
    execution = Execution(
        inline=inline,
        address=address or settings.address,
        cpus=settings.cpus,
        gpus_per_training=settings.gpus_per_training,
        resources=settings.resources,
        cluster=settings.cluster,
        retry_failed=retry_failed,
        shared_ledger=settings.ledger.startswith("file://"),
    )
    driver = new_driver()
    tracking = Tracking(study.tracking_uri, study.experiment.name, study.ledger, driver, tags=_tags(study))
    try:
        code = _compute_and_report(study, execution, tracking, driver)
    except KeyboardInterrupt:
        code = _interrupted()
    except Exception as error:
        _say(f"orchestrator: {placed(error)}")
        _say_how_to_go_on()
        code = WITH_FAILURES
    try:
        tracking.close()
    except KeyboardInterrupt:
        return code if code == INTERRUPTED else _interrupted()
    return code


def _tags(study: Study) -> dict[str, str]:
    """What every MLflow run of the study says of itself."""
    tags = {"search": study.search.signature} if study.search is not None else {}
    return {**tags, "EXPLORATORY": "true"} if caution(study) else tags


def _search(search: Search, execution: Execution, tracking: Tracking, driver: str) -> Outcome:
    from orchestrator.search.run import SearchRun

    for line in summary(search, search.trials()):
        _say(line)
    running = SearchRun(search, execution, lambda: [tracking, Progress()], driver, [tracking], _say)
    outcome = running.run()
    scores = {trial.number: trial.value for trial in running.trials.values() if trial.value is not None}
    if scores and not outcome.refused:
        tracking.trials_scored(search.objective.name, scores)
    return outcome


def _interrupted() -> int:
    """Say how to go on after a Ctrl-C; returns the exit code."""
    _say_how_to_go_on("stopped; nothing done is lost. ")
    return INTERRUPTED


def _compute_and_report(study: Study, execution: Execution, tracking: Tracking, driver: str) -> int:
    others = study.ledger.alive_drivers(BEAT_AT_MOST_S) - {driver}
    if others:
        _say(f"note: {some(sorted(others))} also at work on this ledger: cells in their hands are left to them")
    if study.search is not None:
        outcome = _search(study.search, execution, tracking, driver)
    else:
        outcome = run_study(study.graph, study.ledger, execution, [tracking, Progress()], reduce, driver=driver)
    if outcome.stopped:
        _say_how_to_go_on("stopped; nothing done is lost. ")
    elif outcome.aborted:
        _say_how_to_go_on()
    elif not outcome.refused:
        report = report_of(study)
        tracking.report_built(report)
        print(report.text, flush=True)
        _say_end(outcome)
    return outcome.exit_code


def _say_end(outcome: Outcome) -> None:
    excluded = [f"left out: {sentence} ({some(names)})" for sentence, names in outcome.excluded.items()]
    for line in excluded[:MOST_EXCLUSIONS]:
        _say(line)
    if len(excluded) > MOST_EXCLUSIONS:
        _say(f"and {len(excluded) - MOST_EXCLUSIONS} more; the report names them all")
    if outcome.computed_twice:
        count = len(outcome.computed_twice)
        cells = "1 cell was" if count == 1 else f"{count} cells were"
        _say(f"{cells} also computed by another driver (claimed within one heartbeat); the first results stand")
    counts = f"{len(outcome.cached)} cells cached, {len(outcome.done)} computed"
    failed = f", {len(outcome.failed)} failed, {len(outcome.blocked)} not reached" if outcome.failed else ""
    parts = f", {len(excluded)} parts of the data left out" if excluded else ""
    _say(f"{counts}{failed}{parts} in {outcome.seconds:.0f} s")


def _say_how_to_go_on(after: str = "") -> None:
    _say(f"{after}To go on: {os.environ.get(RESUME) or shlex.join(sys.argv)}")


def _say(line: str) -> None:
    print(redact(line), file=sys.stderr, flush=True)
