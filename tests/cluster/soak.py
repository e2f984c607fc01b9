"""Chaos: random faults, one after the other, against one sweep after the other: `python tests/cluster/soak.py`.

Prints one JSON object a line: each sweep with what happened to it, and last the sum. Faults and their moments come from
the seed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from typing import Any

from faults import FAULTS, Fault
from hosts import why_not
from judging import Left, judge, left, wait_for_quiet
from lab import SHORT, SWEEP_AT_MOST_S, Ended, Lab

CALM_S = (5.0, 30.0)
SUBMISSIONS_AT_MOST = 20


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def until_done(lab: Lab, study: str, chance: random.Random, until: float) -> tuple[list[str], int]:
    """Submit `study` until it ends, with faults while it runs; returns the faults and how often it was submitted."""
    struck: list[str] = []
    for submissions in range(1, SUBMISSIONS_AT_MOST + 1):
        job = lab.submit(study, *SHORT)
        fault = _disturb(lab, job, chance, until, struck)
        if fault is None or not fault.ends_the_driver:
            ended: Ended = lab.wait(job, SWEEP_AT_MOST_S)
            assert ended.exit_code == 0, ended.log[-3000:]
            return struck, submissions
    raise AssertionError(f"{study} was submitted {SUBMISSIONS_AT_MOST} times")


def _disturb(lab: Lab, job: str, chance: random.Random, until: float, struck: list[str]) -> Fault | None:
    """Faults at random moments while the job runs; returns the one that ended its driver, or the last one."""
    fault: Fault | None = None
    while time.monotonic() < until:
        time.sleep(chance.uniform(*CALM_S))
        fault, worker = chance.choice(FAULTS), chance.choice(lab.workers)
        if lab.job(job)[0] not in ("pending", "running"):
            return None
        struck.append(fault.name)
        fault.strike(lab, worker)
        if fault.ends_the_driver:
            return fault
    return fault


def soak(lab: Lab, minutes: float, seed: int) -> int:
    """Sweeps under faults for `minutes`; returns how many were not as the undisturbed one."""
    chance, until = random.Random(seed), time.monotonic() + 60 * minutes
    calm = _sweep(lab, "calm", chance, 0.0, None)
    number, wrong = 0, 0
    while time.monotonic() < until:
        number += 1
        wrong += _sweep(lab, f"soak-{number}", chance, until, calm) is None
    say(soak_minutes=minutes, seed=seed, sweeps=number, not_as_the_undisturbed=wrong, ok=wrong == 0)
    return wrong


def _sweep(lab: Lab, study: str, chance: random.Random, until: float, calm: Left | None) -> Left | None:
    began, found, trouble = time.monotonic(), None, ""
    struck: list[str] = []
    submissions = 0
    try:
        struck, submissions = until_done(lab, study, chance, until)
        lab.wait_until_whole()
        found = left(lab, study, *SHORT)
        judge(found, calm)
        wait_for_quiet(lab)
    except (AssertionError, TimeoutError, RuntimeError) as error:
        trouble = " ".join(str(error).split())[:500]
    say(
        study=study,
        seconds=round(time.monotonic() - began, 1),
        faults=struck,
        submissions=submissions,
        outcome=trouble or "same results",
        repeated=found.repeated if found else {},
    )
    return None if trouble else found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if (reason := why_not()) is not None:
        sys.stderr.write(f"soak: {reason}\n")
        return 3
    lab = Lab()
    try:
        lab.start()
        lab.up()
        return 1 if soak(lab, given.minutes, given.seed) else 0
    finally:
        lab.close()


if __name__ == "__main__":
    sys.exit(main())
