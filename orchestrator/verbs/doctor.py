"""Look at all that a study needs, here or as a job on the head of a cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from orchestrator.outcome import ALL_DONE, REFUSED
from orchestrator.redaction import redact


def doctor(
    path: str, overrides: Sequence[str], ledger: str | None, address: str | None, submitted: bool, as_json: bool
) -> int:
    """Print findings as they come; returns 0 when all is well, else 3."""
    if submitted:
        return _on_the_head(path, overrides, ledger, address, as_json)
    from orchestrator.doctor import examine

    findings = []
    for finding in examine(path, overrides, ledger, address):
        findings.append(finding)
        if not as_json:
            print(redact(f"{'ok' if finding.ok else 'NOT OK':<8}{finding.check:<11}{finding.sentence}"), flush=True)
    if as_json:
        print(redact(json.dumps([finding.as_dict() for finding in findings], indent=1)))
    bad = sum(not finding.ok for finding in findings)
    if bad and not as_json:
        print(f"{bad} to mend before anything is started", file=sys.stderr)
    return REFUSED if bad else ALL_DONE


def _on_the_head(path: str, overrides: Sequence[str], ledger: str | None, address: str | None, as_json: bool) -> int:
    """The same as a Ray job, whose output is shown here and whose exit code is returned."""
    from orchestrator.verbs.submit import prepare, send

    command = prepare("doctor", path, overrides, ledger, ["--json"] if as_json else [])
    from orchestrator.jobs import Jobs, JobTrouble

    try:
        jobs = Jobs(address)
        job = send(jobs, command, f"orchestrator doctor {path} --submit")
        for chunk in jobs.follow(job):
            print(chunk, end="", flush=True)
        return jobs.wait(job).exit_code
    except JobTrouble as error:
        sys.stderr.write(f"orchestrator: {error}\n")
        return error.code
