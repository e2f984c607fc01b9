"""TRFs and their permutations: how fast, how exact and how small ours are, against mTRFpy on the same job and data.

Run alone: `python benchmarks/trf.py [--quick]`. The last lines are one JSON object per figure.

The job: one subject, 10 pieces of 150 s at 64 Hz, 64 channels, envelope and IC, lags -50 to 350 ms, 7 lambdas, nested
leave-one-piece-out of the full and the reduced model, all in mTRFpy's conventions and double precision where it
matters. Both use one thread and take turns; times are CPU seconds. The peer is `mtrf.stats.nested_crossval`, its
fastest way to do it. A permutation chooses its lambdas like the observed IC does, on both sides; mTRFpy's time for many
permutations, and for many subjects, is that of a few refits times their number. `fixed_lambda_ratio` holds ours against
refits that keep one lambda, which is less work than ours does. `--quick` is a small job whose figures say nothing about
the goals.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import tracemalloc  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import mne  # noqa: E402
import numpy as np  # noqa: E402
from mtrf.model import TRF  # noqa: E402
from mtrf.stats import crossval, nested_crossval  # noqa: E402
from scipy.signal import lfilter  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tasks.contract import Context  # noqa: E402
from tasks.eeg.conventions import mtrf_lags, mtrf_penalty  # noqa: E402
from tasks.eeg.folds import Folds, Heard, make_folds, prepare  # noqa: E402
from tasks.eeg.lags import Lagged, lagged  # noqa: E402
from tasks.eeg.nested import Scores, full_scores, reduced_scores  # noqa: E402
from tasks.eeg.permutation import batches  # noqa: E402
from tasks.eeg.regressors import Regressor  # noqa: E402
from tasks.eeg.residual import Explainer, Split, moved, shifted  # noqa: E402
from tasks.eeg.shift_sums import shift_sums  # noqa: E402
from tasks.eeg.sufficient import Layout, Part, reduced_sums, regressor_sums, response_sums  # noqa: E402
from tasks.eeg.tiles import permuted_r, whole_tiles  # noqa: E402

RATE, WINDOW_S = 64, (-0.05, 0.35)
LAGS = mtrf_lags(*WINDOW_S, RATE)
LAMBDAS = tuple(10.0**power for power in range(-2, 5))
SHIFT_MIN_S, SEED = 2.0, 0
PAIRS = 3
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Job:
    """Envelope (T, 1) and IC (T,) of each piece, EEG (T, C) of each subject and piece."""

    envelope: list[Array]
    ic: list[Array]
    eeg: list[list[Array]]

    @property
    def layout(self) -> Layout:
        parts = [(Part(name, len(values), 1),) for name, values in zip(self.names, self.ic, strict=True)]
        return Layout(tuple(self.names), tuple(parts))

    @property
    def names(self) -> list[str]:
        return [f"{piece:02d}" for piece in range(len(self.ic))]

    def stimuli(self, ic: Sequence[Array]) -> list[Array]:
        return [np.column_stack(pair) for pair in zip(self.envelope, ic, strict=True)]


def made(n_pieces: int, seconds: int, n_channels: int, n_subjects: int) -> Job:
    """Smooth envelope, IC that leans on it, and EEG that follows both weakly under coloured noise."""
    random, n = np.random.default_rng(SEED), seconds * RATE
    envelope, ic = [], []
    for _ in range(n_pieces):
        own = np.abs(lfilter([1.0], [1.0, -0.8], random.normal(size=n)))
        envelope.append(own)
        ic.append(lfilter([1.0], [1.0, -0.5], random.normal(size=n)) + 0.5 * np.gradient(own))
    for series in (envelope, ic):
        together = np.concatenate(series)
        series[:] = [(values - together.mean()) / together.std() for values in series]
    eeg = []
    for _ in range(n_subjects):
        kernels = random.normal(size=(2, 16, n_channels)) * np.hanning(16)[:, None]
        pieces = []
        for own, surprise in zip(envelope, ic, strict=True):
            drive = lagged(own[:, None], np.arange(16)) @ kernels[0] + lagged(surprise[:, None], np.arange(16)) @ (
                0.3 * kernels[1]
            )
            pieces.append(0.1 * drive + lfilter([1.0], [1.0, -0.9], random.normal(size=(n, n_channels)), axis=0))
        together = np.concatenate(pieces)
        eeg.append([(piece - together.mean(axis=0)) / together.std(axis=0) for piece in pieces])
    return Job([values[:, None] for values in envelope], ic, eeg)


@dataclass(frozen=True)
class Prepared:
    """What the permutations of a job share."""

    layout: Layout
    design: dict[str, Lagged]
    folds: Folds
    heard: list[Heard]


def prepared(job: Job) -> Prepared:
    layout = job.layout
    design = {name: Lagged(values, LAGS) for name, values in zip(job.names, job.envelope, strict=True)}
    folds = make_folds(reduced_sums(layout, design), LAMBDAS, mtrf_penalty(layout, RATE))
    heard = [prepare(folds, response_sums(layout, design, [[[part]] for part in own])) for own in job.eeg]
    return Prepared(layout, design, folds, heard)


def observed(job: Job) -> list[tuple[Scores, Scores]]:
    """Full and reduced scores of every subject, from the time series on."""
    ready = prepared(job)
    versions = {name: values[None] for name, values in zip(job.names, job.ic, strict=True)}
    own = [heard.sums for heard in ready.heard]
    sums, crosses = regressor_sums(ready.layout, ready.design, versions, LAGS, own)
    full = full_scores(ready.folds, sums, ready.heard, crosses)
    return [(scores, reduced_scores(ready.folds, heard)) for scores, heard in zip(full, ready.heard, strict=True)]


def split_of(job: Job) -> Split:
    features = dict(zip(job.names, job.envelope, strict=True))
    present = {name: np.ones(len(values), dtype=bool) for name, values in zip(job.names, job.ic, strict=True)}
    return Explainer(features, LAGS.size).split(Regressor(dict(zip(job.names, job.ic, strict=True)), present))


def permuted(job: Job, count: int) -> list[Array]:
    """r (count, pieces, channels) of the full model with the residual of IC shifted, from the time series on."""
    ready, split = prepared(job), split_of(job)
    found: list[list[Array]] = [[] for _ in ready.heard]
    own = [heard.sums for heard in ready.heard]
    n_columns = 2 * LAGS.size + sum(sums.totals.shape[1] for sums in own)
    for numbers in batches(0, count, 8 * LAGS.size * n_columns * len(job.ic)):
        versions = moved(split, SEED, whole_tiles(numbers), LAGS.size, SHIFT_MIN_S, RATE)
        sums = shift_sums(ready.layout, ready.design, versions, LAGS, own)
        for parts, r in zip(found, permuted_r(ready.folds, *sums, ready.heard, Context()), strict=True):
            parts.append(r)
        del sums
    return [np.concatenate(parts)[:count] for parts in found]


def peer_nested(stimuli: Sequence[Array], eeg: Sequence[Array]) -> list[float]:
    """Lambda of each outer fold, by mTRFpy."""
    _, chosen = nested_crossval(TRF(), list(stimuli), list(eeg), RATE, *WINDOW_S, list(LAMBDAS), verbose=False)
    return [float(value) for value in chosen]


def peer_observed(job: Job) -> tuple[list[float], list[float]]:
    """The same for the full and the reduced model of the first subject."""
    return peer_nested(job.stimuli(job.ic), job.eeg[0]), peer_nested(job.envelope, job.eeg[0])


def peer_fixed(stimuli: Sequence[Array], eeg: Sequence[Array]) -> None:
    """One leave-one-out refit at one lambda."""
    crossval(TRF(), list(stimuli), list(eeg), RATE, *WINDOW_S, LAMBDAS[3], verbose=False)


def peer_r(stimuli: Sequence[Array], eeg: Sequence[Array], chosen: Sequence[float]) -> Array:
    """r (pieces, channels) of mTRFpy at given lambdas."""
    rows = []
    for outer, penalty in enumerate(chosen):
        rest = [piece for piece in range(len(eeg)) if piece != outer]
        trf = TRF()
        trf.train([stimuli[i] for i in rest], [eeg[i] for i in rest], RATE, *WINDOW_S, penalty, verbose=False)
        rows.append(np.ravel(trf.predict([stimuli[outer]], [eeg[outer]], average=False)[1]))
    return np.array(rows)


def seconds(work: Callable[..., object], *arguments: Any) -> float:
    """CPU seconds of a call: waiting for a core that others use is left out."""
    began = time.process_time()
    work(*arguments)
    return time.process_time() - began


def peak_bytes(work: Callable[..., object], *arguments: Any) -> int:
    """The most that a call holds at one time beyond its arguments."""
    tracemalloc.start()
    try:
        work(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def shifted_ic(job: Job, count: int) -> list[list[Array]]:
    """The first `count` permuted regressors, piece by piece."""
    versions = shifted(split_of(job), SEED, range(count), LAGS.size, SHIFT_MIN_S, RATE)
    return [[versions[name][row] for name in job.names] for row in range(count)]


def exactness(job: Job) -> tuple[float, int]:
    """Largest |r - r of mTRFpy| of the full, reduced and one permuted model, and folds with another lambda."""
    [(full, reduced), *_] = observed(job)
    [drawn] = shifted_ic(job, 1)
    other = permuted(Job(job.envelope, job.ic, job.eeg[:1]), 1)[0]
    worst, differ = 0.0, 0
    for stimuli, r, chosen in (
        (job.stimuli(job.ic), full.r[0], full.chosen[0, :, 0]),
        (job.envelope, reduced.r[0], reduced.chosen[0, :, 0]),
        (job.stimuli(drawn), other[0], None),
    ):
        theirs = peer_nested(stimuli, job.eeg[0])
        worst = max(worst, float(np.abs(peer_r(stimuli, job.eeg[0], theirs) - r).max()))
        if chosen is not None:
            differ += sum(LAMBDAS[mine] != other for mine, other in zip(chosen.tolist(), theirs, strict=True))
    return worst, differ


def receptive_field_s(job: Job) -> tuple[float, int]:
    """Time of one fit and prediction of MNE's ReceptiveField, and how many of them the nested job has."""
    model = mne.decoding.ReceptiveField(*WINDOW_S, RATE, estimator=1.0, scoring="corrcoef", n_jobs=1)
    x, y = (np.stack(parts, axis=1) for parts in (job.stimuli(job.ic), job.eeg[0]))
    with mne.utils.use_log_level("ERROR"):
        took = seconds(lambda: model.fit(x[:, 1:], y[:, 1:]).score(x[:, :1], y[:, :1]))
    n = len(job.ic)
    return took, 2 * n * ((n - 1) * len(LAMBDAS) + 1)


def say(figure: str, value: float, unit: str, goal: float | None, ok: bool, **more: object) -> None:
    """One line."""
    line = {"figure": figure, "value": float(f"{value:.4g}"), "unit": unit, "goal": goal, "ok": ok, **more}
    print(json.dumps(line), flush=True)


def rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def main() -> None:
    """All figures."""
    quick = "--quick" in sys.argv
    n_pieces, length_s, n_channels, n_subjects, count = (4, 40, 8, 3, 20) if quick else (10, 150, 64, 20, 1000)
    pairs = 1 if quick else PAIRS
    job = made(n_pieces, length_s, n_channels, n_subjects)
    one = Job(job.envelope, job.ic, job.eeg[:1])
    about: dict[str, Any] = {"pieces": n_pieces, "seconds": length_s, "channels": n_channels, "lags": int(LAGS.size)}
    about |= {"lambdas": len(LAMBDAS), "pairs": pairs, "quick": quick}

    observed(one)
    ours, theirs = [], []
    for _ in range(pairs):
        theirs.append(seconds(peer_observed, one))
        ours.append(float(np.median([seconds(observed, one) for _ in range(3)])))
    ratio = float(np.median(np.divide(theirs, ours)))
    say("speedup_observed", ratio, "ratio", 150, ratio >= 150, **about, ours_s=rounded(ours), peer_s=rounded(theirs))

    drawn = shifted_ic(job, pairs)
    refit, fixed, many = [], [], []
    for versions in drawn:
        refit.append(seconds(peer_nested, job.stimuli(versions), job.eeg[0]))
        fixed.append(seconds(peer_fixed, job.stimuli(versions), job.eeg[0]))
        many.append(seconds(permuted, one, count))
    extrapolated: dict[str, Any] = {"permutations": count, "peer_extrapolated": True}
    ratio = float(np.median(np.multiply(refit, count) / many))
    fixed_ratio = float(np.median(np.multiply(fixed, count) / many))
    more = {"peer_refits": len(refit), "peer_refit_s": rounded(refit), "peer_fixed_lambda_refit_s": rounded(fixed)}
    more["fixed_lambda_ratio"] = round(fixed_ratio, 1)
    say("speedup_1000_permutations", ratio, "ratio", 200, ratio >= 200, **about, **extrapolated, **more,
        ours_s=rounded(many))  # fmt: skip

    few = count // 10
    stacked = [seconds(observed, job) + seconds(permuted, job, few) for _ in range(1 if quick else 2)]
    peer = n_subjects * (np.median(theirs) + few * np.median(refit))
    ratio = float(np.median(peer / np.array(stacked)))
    extrapolated["permutations"] = few
    fixed_ratio = float(np.median(n_subjects * (np.median(theirs) + few * np.median(fixed)) / np.array(stacked)))
    say("speedup_20_subjects", ratio, "ratio", 400, ratio >= 400, **about, **extrapolated, subjects=n_subjects,
        fixed_lambda_ratio=round(fixed_ratio, 1), ours_s=rounded(stacked), peer_s=float(f"{peer:.4g}"))  # fmt: skip

    worst, differ = exactness(one)
    ok = worst <= 1e-10 and differ == 0
    say("max_abs_diff_r", worst, "r", 1e-10, ok, **about, folds_with_another_lambda=differ)

    peaks = {"ours_mib": peak_bytes(permuted, one, min(count, 100)), "observed_mib": peak_bytes(observed, one)}
    peaks["peer_mib"] = peak_bytes(peer_nested, job.stimuli(drawn[0]), job.eeg[0])
    ratio = max(peaks["ours_mib"], peaks["observed_mib"]) / peaks["peer_mib"]
    say("peak_memory_ratio", ratio, "ratio", 1, ratio < 1, **about, permutations=min(count, 100),
        **{name: round(size / 2**20, 1) for name, size in peaks.items()})  # fmt: skip

    took, fits = receptive_field_s(job)
    ratio = took * fits / float(np.median(ours))
    say("speedup_receptive_field", ratio, "ratio", None, True, **about, peer="mne.decoding.ReceptiveField",
        conventions="its own", peer_fit_s=float(f"{took:.4g}"), peer_fits=fits, peer_extrapolated=True)  # fmt: skip


if __name__ == "__main__":
    main()
