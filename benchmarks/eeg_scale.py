"""How long a large study's EEG takes, from the command to the report, beside the estimate for mTRFpy.

Run alone: `python benchmarks/eeg_scale.py [KEY=VALUE]...`. It runs experiments/eeg_scale.yaml through Ray on two cores,
in a ledger of its own that it removes, and ends with one JSON object. KEY=VALUE make the study smaller or larger, as
they do for `orchestrator run`; the goal is that of the study as it is.

CPU time is that of all processes below the command, looked at every two seconds. mTRFpy's time is that of one model of
one listener, measured here on numbers of the same shape, times the number of models that the study has: repetitions
averaged, one BLAS thread, nested leave-one-piece-out with the study's lambdas (`mtrf.stats.nested_crossval`), and, as
the least that is done in its place, a cross-validation with one fixed lambda.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from mtrf.model import TRF  # noqa: E402
from mtrf.stats import crossval, nested_crossval  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestrator.opening import Study, open_study  # noqa: E402
from tasks.eeg.regressors import REDUCED_FEATURES  # noqa: E402

YAML = str(ROOT / "experiments/eeg_scale.yaml")
GOAL_MIN, CPUS, LOOK_EVERY_S = 30.0, 2, 2.0
N_CHANNELS = 64
COLUMNS = {"spectrogram": 8, "derivative": 8, "onsets": 1, "envelope": 1}
Array = np.ndarray[Any, Any]


def cpu_seconds(root: int, known: dict[tuple[int, str], float]) -> None:
    """Note the CPU time so far of `root` and all processes below it, by pid and start."""
    parents: dict[int, list[int]] = {}
    times: dict[int, tuple[str, float]] = {}
    tick = os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(entry.name))
        times[int(entry.name)] = (fields[19], (int(fields[11]) + int(fields[12])) / tick)
    left = [root]
    while left:
        pid = left.pop()
        left += parents.get(pid, [])
        if pid in times:
            known[pid, times[pid][0]] = times[pid][1]


def walk(ledger: str, overrides: Sequence[str]) -> tuple[float, float, int]:
    """Wall and CPU seconds of the study, and its exit code."""
    words = [
        sys.executable,
        "-m",
        "orchestrator",
        "run",
        YAML,
        *overrides,
        "--ledger",
        ledger,
        f"execution.cpus={CPUS}",
    ]
    began, known = time.monotonic(), dict[tuple[int, str], float]()
    with subprocess.Popen(words, cwd=ROOT, stdout=sys.stderr) as process:
        while process.poll() is None:
            cpu_seconds(process.pid, known)
            time.sleep(LOOK_EVERY_S)
    return time.monotonic() - began, sum(known.values()), process.returncode


def lengths_s(study: Study) -> list[float]:
    """Durations of the stimuli."""
    (cell,) = (cell for cell in study.graph if cell.name == "corpus stimuli")
    listed = json.loads(study.ledger.artefact("corpus", cell.signature, None).read_bytes("corpus.json"))["recordings"]
    return [entry["n_samples"] / entry["sample_rate_hz"] for entry in listed]


def models(study: Study) -> tuple[int, int]:
    """How many full models the listeners have, permuted ones among them, and how many reduced ones."""
    full, listeners = 0, set()
    for cell in study.graph:
        if cell.stage in ("trf", "permutations") and not cell.labels["subject"].startswith("canary-"):
            full += int(cell.config.get("count", 1))
            listeners.add(cell.labels["subject"])
    return full, len(listeners)


def peer(study: Study, seconds: Sequence[float]) -> dict[str, Any]:
    """CPU seconds of mTRFpy for one full and one reduced model of one listener, lambda chosen and lambda fixed."""
    eeg = study.experiment.science.eeg
    assert eeg is not None
    rate, trf, random = eeg.preprocessing.sample_rate_hz, eeg.trf, np.random.default_rng(0)
    tested = next(model for model in trf.models if model.tested)
    n_reduced = sum(COLUMNS[name] for name in REDUCED_FEATURES[tested.reduced])
    pieces = [random.normal(size=(round(length * rate), n_reduced + 1 + N_CHANNELS)) for length in seconds]
    responses = [piece[:, n_reduced + 1 :] for piece in pieces]
    window, found = (rate, trf.lag_min_s, trf.lag_max_s), {}
    for name, width in (("full", n_reduced + 1), ("reduced", n_reduced)):
        stimuli: list[Array] = [piece[:, :width] for piece in pieces]
        for kind, work, lambdas in (
            ("chosen", nested_crossval, list(trf.lambdas)),
            ("fixed", crossval, trf.lambdas[0]),
        ):
            began = time.process_time()
            work(TRF(), stimuli, responses, *window, lambdas, verbose=False)
            found[f"{name}_{kind}_s"] = float(f"{time.process_time() - began:.4g}")
    return found


def main() -> int:
    """One line; the exit code is the study's."""
    overrides = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="eeg_scale") as folder:
        wall_s, cpu_s, code = walk(f"{folder}/ledger", overrides)
        study = open_study(YAML, overrides, f"{folder}/ledger")
        if code not in (0, 1):
            return code
        seconds = lengths_s(study)
    full, reduced = models(study)
    one = peer(study, seconds)
    estimate = {kind: full * one[f"full_{kind}_s"] + reduced * one[f"reduced_{kind}_s"] for kind in ("chosen", "fixed")}
    whole = not overrides
    line = {
        "figure": "eeg_scale",
        "value": round(wall_s / 60, 2),
        "unit": "min",
        "goal": GOAL_MIN if whole else None,
        "ok": code == 0 and (not whole or wall_s / 60 <= GOAL_MIN),
        "cpus": CPUS,
        "cpu_min": round(cpu_s / 60, 2),
        "exit_code": code,
        "cells": len(study.graph),
        "full_models": full,
        "listeners": reduced,
        "music_s": round(sum(seconds)),
        "overrides": overrides,
        "mtrf_one_model": one,
        "mtrf_estimate_h": {kind: float(f"{value / 3600:.4g}") for kind, value in estimate.items()},
        "speedup_cpu": {kind: float(f"{value / cpu_s:.4g}") for kind, value in estimate.items()},
    }
    print(json.dumps(line), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
