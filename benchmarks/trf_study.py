"""What a study costs: permutations of TRFs at the width of `acoustic_plus`, and what stacking subjects would gain.

Run alone: `python benchmarks/trf_study.py [--quick]`. The last lines are one JSON object per figure.

A slice is measured, some permutations of one condition for a few subjects: 17 features x 26 lags, 10 pieces of 150 s at
64 Hz, 64 channels, 5 lambdas, one thread, CPU seconds. `study_core_minutes` is the slice's share per permutation (what
all subjects have in common, and what each adds) and the work that a task does once, times the numbers of the study.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, TypeVar  # noqa: E402

import numpy as np  # noqa: E402
from scipy.signal import lfilter  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tasks.contract import Context  # noqa: E402
from tasks.eeg.choosing import Choosing  # noqa: E402
from tasks.eeg.folds import Folds, Heard, make_folds, prepare  # noqa: E402
from tasks.eeg.lags import Lagged, lag_samples  # noqa: E402
from tasks.eeg.nested import reduced_scores  # noqa: E402
from tasks.eeg.regressors import Regressor  # noqa: E402
from tasks.eeg.residual import Explainer, Split, moved  # noqa: E402
from tasks.eeg.shift_sums import shift_sums  # noqa: E402
from tasks.eeg.sufficient import Layout, Part, ResponseSums, reduced_sums, response_sums  # noqa: E402
from tasks.eeg.tiles import TILE, permuted_r  # noqa: E402

T = TypeVar("T")
Array = np.ndarray[Any, Any]
RATE, LAMBDAS = 64, (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LAGS = lag_samples(-0.05, 0.35, RATE)
SUBJECTS, CONDITIONS, PERMUTATIONS, TASKS = 20, 20, 1000, 20
"""Of the study: conditions are noise levels of two variants, and a task has the conditions of one variant and block."""


@dataclass(frozen=True)
class Job:
    """Features, IC and EEG of a few subjects."""

    sound: dict[str, Array]
    ic: dict[str, Array]
    eeg: list[dict[str, Array]]

    @property
    def layout(self) -> Layout:
        return Layout(tuple(self.sound), tuple((Part(name, len(own), 1),) for name, own in self.sound.items()))

    @property
    def design(self) -> dict[str, Lagged]:
        return {name: Lagged(own, LAGS) for name, own in self.sound.items()}

    def responses(self, eeg: list[dict[str, Array]]) -> list[ResponseSums]:
        return [response_sums(self.layout, self.design, [[[part]] for part in own.values()]) for own in eeg]

    @property
    def stacked(self) -> list[dict[str, Array]]:
        """All subjects' channels as if they were one's."""
        return [{name: np.concatenate([own[name] for own in self.eeg], axis=1) for name in self.sound}]

    def split(self) -> Split:
        present = {name: np.ones(len(own), dtype=bool) for name, own in self.ic.items()}
        return Explainer(self.sound, LAGS.size).split(Regressor(self.ic, present))


def made(n_pieces: int, seconds: int, n_features: int, n_channels: int, n_subjects: int) -> Job:
    """Smooth noise: how long it takes depends on sizes alone."""
    random, n = np.random.default_rng(0), seconds * RATE

    def noise(count: int, smooth: float) -> dict[str, Array]:
        draws = (random.normal(size=(n, count)) for _ in range(n_pieces))
        return {f"{i:02d}": lfilter([1.0], [1.0, -smooth], own, axis=0) for i, own in enumerate(draws)}

    ic = {name: own[:, 0] for name, own in noise(1, 0.5).items()}
    return Job(noise(n_features, 0.7), ic, [noise(n_channels, 0.9) for _ in range(n_subjects)])


def timed(work: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """CPU seconds of a call, and what it returns."""
    began = time.process_time()
    found = work(*arguments)
    return time.process_time() - began, found


def permuted(job: Job, folds: Folds, split: Split, heard: list[Heard], count: int) -> None:
    """r of some permutations for each subject."""
    versions = moved(split, 0, range(count), LAGS.size, 2.0, RATE)
    sums = shift_sums(job.layout, job.design, versions, LAGS, [own.sums for own in heard])
    given = [reduced_scores(folds, own).chosen for own in heard] if folds.choosing.full == "reduced" else None
    permuted_r(folds, *sums, heard, Context(), given)


def say(figure: str, value: float, unit: str, **more: object) -> None:
    """One line; these have no goal."""
    line = {"figure": figure, "value": float(f"{value:.4g}"), "unit": unit, "goal": None, "ok": True, **more}
    print(json.dumps(line), flush=True)


def measured(job: Job, choosing: Choosing, count: int, repetitions: int) -> None:
    """Both figures of one way to choose lambda."""
    few = len(job.eeg)
    about = {"features": next(iter(job.sound.values())).shape[1], "lags": int(LAGS.size), "lambdas": len(LAMBDAS)}
    about |= {"channels": next(iter(job.eeg[0].values())).shape[1]}
    kind = {"lambda_full": choosing.full, "precision": choosing.precision}
    explaining, split = timed(job.split)
    summing, sums = timed(reduced_sums, job.layout, job.design)
    folding, folds = timed(make_folds, sums, LAMBDAS, None, choosing)
    reading, responses = timed(job.responses, job.eeg)
    turning, heard = timed(lambda: [prepare(folds, own) for own in responses])
    stacked = [prepare(folds, own) for own in job.responses(job.stacked)]
    times = [
        [timed(permuted, job, folds, split, own, count)[0] for own in (heard[:1], heard, stacked)]
        for _ in range(repetitions)
    ]
    alone, together, as_one = np.median(times, axis=0).tolist()
    added = (together - alone) / (few - 1)
    per_task = explaining + summing + folding + SUBJECTS * (reading + turning) / few
    took = CONDITIONS * PERMUTATIONS / count * (alone + (SUBJECTS - 1) * added) + TASKS * per_task
    say("study_core_minutes", took / 60, "minutes", **about, **kind, subjects=SUBJECTS, conditions=CONDITIONS,
        permutations=PERMUTATIONS, tasks=TASKS, shared_ms_per_permutation=round(1e3 * (alone - added) / count, 2),
        ms_per_permutation_and_subject=round(1e3 * added / count, 2), s_per_task=round(per_task, 2))  # fmt: skip
    say("stacking_gain", together / as_one, "ratio", **about, **kind, subjects=few)


def main() -> None:
    """All figures."""
    quick = "--quick" in sys.argv
    job = made(5, 30, 2, 8, 3) if quick else made(10, 150, 17, 64, 5)
    measured(job, Choosing(), 2 * TILE, 1)
    measured(job, Choosing(full="reduced"), 5 * TILE, 3)
    measured(job, Choosing(full="reduced", precision="float32"), 5 * TILE, 3)


if __name__ == "__main__":
    main()
