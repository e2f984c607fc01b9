"""Compute what is missing, mirror it to MLflow, report."""

from __future__ import annotations

import shlex
import sys

from orchestrator.opening import Study, survey
from orchestrator.planner_eeg import reduce
from orchestrator.progress import Progress
from orchestrator.report import build
from orchestrator.study import REFUSED, Execution, Outcome, new_driver, run_study
from orchestrator.tracker import Tracking


def run(study: Study, inline: bool, address: str | None, retry_failed: bool) -> int:
    """Run the study to its end; returns the exit code: 0, 1 (failures), 3 (refused), 130 or 143 (stopped)."""
    missing = sorted({cell.missing for cell in study.graph if cell.missing})
    if missing:
        for sentence in missing:
            _say(f"orchestrator: {sentence}")
        _say("orchestrator: nothing was started; put the data there, or point the experiment to them (key=value)")
        return REFUSED
    for note in study.graph.notes:
        _say(f"note: {note}")
    settings = study.experiment.execution
    execution = Execution(
        inline=inline,
        address=address or settings.address,
        cpus=settings.cpus,
        gpus_per_training=settings.gpus_per_training,
        retry_failed=retry_failed,
    )
    driver = new_driver()
    tracking = Tracking(study.tracking_uri, study.experiment.name, study.ledger, driver)
    try:
        outcome = run_study(study.graph, study.ledger, execution, [tracking, Progress()], reduce, driver=driver)
        if not outcome.stopped and not outcome.refused:
            states = survey(study, full=False)
            name = study.experiment.name
            report = build(study.graph, study.ledger, name, study.report_dir, states, study.tracking_uri)
            tracking.report_built(report)
            print(report.text, flush=True)
    finally:
        tracking.close()
    _say_end(outcome)
    return outcome.exit_code


def _say_end(outcome: Outcome) -> None:
    for sentence in outcome.refused:
        _say(f"orchestrator: {sentence}")
    if outcome.stopped:
        _say(f"stopped; nothing done is lost. To go on: {shlex.join(['orchestrator', *sys.argv[1:]])}")
    elif not outcome.refused:
        counts = f"{len(outcome.cached)} cells cached, {len(outcome.done)} computed"
        failed = f", {len(outcome.failed)} failed, {len(outcome.blocked)} not reached" if outcome.failed else ""
        _say(f"{counts}{failed} in {outcome.seconds:.0f} s")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
