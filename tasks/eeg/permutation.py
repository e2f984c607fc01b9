"""Stage `permutations`: the null distribution of delta_r by shifting what acoustics leave over of IC.

IC is regressed on the lagged reduced features. Only the residual is shifted in time, within its piece and around its
ends, and the fit is added back: the shifted regressor stays as collinear with the reduced model as IC itself, which a
plain shift or a permutation across pieces would destroy (Freedman & Lane 1983; Anderson & Robinson 2001 on permuting
with nuisance variables). Everything after that, the choice of lambda included, is done as for IC itself.

For IC at note onsets a second null, the shuffle of values among a piece's onsets, would ask whether it matters which
note is surprising rather than when. It is not built yet: `onset` has the residual shift alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors.numpy import save_file
from scipy.linalg import cho_factor, cho_solve

from tasks.contract import Artefact, Cell, Context, Result, TaskError
from tasks.eeg.folds import Folds
from tasks.eeg.jobs import Bench, FitConfig, Listening, by_bench, by_layout, by_level
from tasks.eeg.lags import lagged
from tasks.eeg.nested import reduced_scores
from tasks.eeg.regressors import Flags, Regressor
from tasks.eeg.shift_sums import Shifted, shift_sums
from tasks.eeg.tiles import TILE, permuted_r, whole_tiles
from tasks.seeds import numpy_stream

Floats = npt.NDArray[np.float64]

FIT_RIDGE = 1e-6
"""Ridge of the regression of IC on the reduced features, relative to the number of samples: for stability alone."""

MIN_SHIFTS = 100
"""Fewer distinct shifts than this in a piece make too coarse a null distribution."""

BATCH = 50
BATCH_BYTES = 256 * 2**20
"""Permutations are computed in batches of at most `BATCH`, whose sums stay below this size (one tile's may not)."""


class PermutationConfig(FitConfig):
    """The config of a `permutations` cell: permutations `first` to ``first + count - 1``."""

    first: int = Field(ge=0)
    count: int = Field(ge=1)
    shift_min_s: float = Field(gt=0)
    seed: int


@dataclass(frozen=True)
class Split:
    """A regressor as the part that the reduced features explain and the residual, per recording, shape (T,)."""

    fit: Mapping[str, Floats]
    residual: Mapping[str, Floats]
    present: Mapping[str, Flags]


class Explainer:
    """Regression on the lagged reduced features, all stimuli pooled.

    Lags reach from -(L - 1) to L - 1 samples around the window's: those are all the lags that can lie between a lagged
    copy of IC and a lagged feature in the full model, so every such correlation survives the shift.
    """

    def __init__(self, reduced: Mapping[str, Floats], n_lags: int) -> None:
        self._reduced = reduced
        self._lags = np.arange(-(n_lags - 1), n_lags)
        columns = next(iter(reduced.values())).shape[1] * self._lags.size
        products, self._totals, self._n = np.zeros((columns, columns)), np.zeros(columns), 0
        for values in reduced.values():
            design = lagged(values, self._lags)
            products += design.T @ design
            self._totals += design.sum(axis=0)
            self._n += len(design)
        products -= np.outer(self._totals, self._totals) / self._n
        self._factor = cho_factor(products + FIT_RIDGE * self._n * np.eye(columns))

    def split(self, regressor: Regressor) -> Split:
        """Fit and residual of `regressor`, whose recordings are those of the reduced features."""
        cross, total = np.zeros_like(self._totals), 0.0
        for key, values in self._reduced.items():
            cross += lagged(values, self._lags).T @ regressor.values[key]
            total += regressor.values[key].sum()
        weights = cho_solve(self._factor, cross - self._totals * (total / self._n))
        bias = (total - self._totals @ weights) / self._n
        fit = {key: lagged(values, self._lags) @ weights + bias for key, values in self._reduced.items()}
        return Split(fit, {key: regressor.values[key] - fit[key] for key in fit}, regressor.present)


def shift_range(n_present: int, n_lags: int, shift_min_s: float, sample_rate_hz: float, piece: str) -> tuple[int, int]:
    """Smallest shift and number of distinct shifts of a piece with IC at `n_present` samples.

    Shifts keep at least ``max(shift_min_s, lag window)`` from 0 both ways around.

    Raises
    ------
    TaskError
        If fewer than 100 are left.
    """
    smallest = max(int(np.ceil(shift_min_s * sample_rate_hz)), n_lags)
    n_shifts = n_present - 2 * smallest + 1
    if n_shifts < MIN_SHIFTS:
        raise TaskError(
            f"{piece}: {n_present / sample_rate_hz:.1f} s of IC offer {max(n_shifts, 0)} distinct shifts of at least "
            f"{smallest / sample_rate_hz:.2f} s, and {MIN_SHIFTS} are needed; use longer pieces or a smaller "
            "permutations.shift_min_s"
        )
    return smallest, n_shifts


def shifted(
    split: Split, seed: int, numbers: Sequence[int], n_lags: int, shift_min_s: float, rate: float
) -> dict[str, Floats]:
    """Permuted regressors: the residual shifted around the samples that have IC, plus the fit; 0 elsewhere.

    The shift of permutation k in a recording is drawn from (seed, k, recording) and scaled to where the recording has
    IC, which no noise level changes (see `whole_ic`): the same for all subjects, channels, variants and noise levels.

    Parameters
    ----------
    split : Split
    seed : int
    numbers : sequence of int
        The permutations k that are wanted.
    n_lags : int
        Of the TRF.
    shift_min_s, rate : float
        Smallest shift in seconds, samples per second.

    Returns
    -------
    dict of str to ndarray, shape (len(numbers), T)
    """
    return {key: own.series() for key, own in moved(split, seed, numbers, n_lags, shift_min_s, rate).items()}


def moved(
    split: Split, seed: int, numbers: Sequence[int], n_lags: int, shift_min_s: float, rate: float
) -> dict[str, Shifted]:
    """The same as `shifted`, not yet as series.

    Raises
    ------
    TaskError
        If a recording has gaps in its IC.
    """
    versions = {}
    for key, residual in split.residual.items():
        where = np.flatnonzero(split.present[key])
        smallest, n_shifts = shift_range(where.size, n_lags, shift_min_s, rate, key)
        if where[-1] - where[0] >= where.size:
            raise TaskError(f"{key}: IC has gaps, and a shift within a piece needs one without; leave the piece out")
        draws = [numpy_stream(seed, "shift", number, key).random() for number in numbers]
        shifts = np.array([smallest + int(n_shifts * draw) for draw in draws], dtype=np.int64)
        fit = np.where(split.present[key], split.fit[key], 0.0)
        versions[key] = Shifted(fit, residual[where], int(where[0]), shifts)
    return versions


def correlation_time_s(split: Split, sample_rate_hz: float) -> float:
    """First lag at which the residual's autocorrelation, all pieces pooled, falls to .1.

    Shifts must exceed the lag window by at least this much: see `check_reach`.
    """
    series = [split.residual[key][split.present[key]] for key in split.residual]
    power = sum(float(values @ values) for values in series)
    for lag in range(1, max(values.size for values in series)):
        if sum(float(values[:-lag] @ values[lag:]) for values in series if values.size > lag) <= 0.1 * power:
            return lag / sample_rate_hz
    return max(values.size for values in series) / sample_rate_hz


def check_reach(shift_min_s: float, n_lags: int, correlation_s: float, sample_rate_hz: float) -> None:
    """Refuse shifts that leave a shifted residual correlated with itself at some lag of the TRF.

    It is a check and no change of the smallest shift, so that shifts stay the same for all noise levels and variants.

    Raises
    ------
    TaskError
        If the smallest shift is below the lag window plus `correlation_s`.
    """
    window = n_lags / sample_rate_hz
    if max(shift_min_s, window) < window + correlation_s:
        raise TaskError(
            f"permutations.shift_min_s: {shift_min_s:g} s is too short, because what acoustics leave over of IC is "
            f"correlated with itself over {correlation_s:.2f} s and the lag window has {window:.2f} s; allowed is "
            f"{window + correlation_s:.2f} s or more"
        )


def batches(first: int, count: int, bytes_each: int) -> Iterator[range]:
    """Consecutive runs of permutations whose sums are computed together.

    They end at multiples of their size, which is one of `TILE`.
    """
    size = int(np.clip(BATCH_BYTES // bytes_each // TILE * TILE, TILE, BATCH))
    start = first
    while start < first + count:
        stop = min(start - start % size + size, first + count)
        yield range(start, stop)
        start = stop


def null_delta_r(
    bench: Bench, config: PermutationConfig, split: Split, folds: Folds, group: Sequence[Listening], context: Context
) -> list[Floats]:
    """delta_r of every permutation, mean over pieces, shape (count, channels), for each subject of one layout."""
    layout, heard = group[0].subject.layout, [listening.heard for listening in group]
    n_lags, alone = bench.lags.size, config.lambda_per == "channel"
    reduced = [reduced_scores(folds, own, alone).r[0].mean(axis=0) for own in heard]
    n_columns = folds.sums.totals.shape[1] + n_lags + sum(own.sums.totals.shape[1] for own in heard)
    found: list[list[Floats]] = [[] for _ in group]
    for numbers in batches(config.first, config.count, 8 * n_lags * n_columns * len(layout.pieces)):
        whole = whole_tiles(numbers)
        versions = moved(split, config.seed, whole, n_lags, config.shift_min_s, config.sample_rate_hz)
        sums = shift_sums(layout, bench.design, versions, bench.lags, [own.sums for own in heard])
        wanted = slice(numbers.start - whole.start, numbers.stop - whole.start)
        for place, r in enumerate(permuted_r(folds, *sums, heard, alone, context)):
            found[place].append(r[wanted].mean(axis=1) - reduced[place])
        del sums
    return [np.concatenate(parts) for parts in found]


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage `permutations`: one block of permutations of one `trf` cell.

    Writes ``null.safetensors`` ("delta_r" (count, channels) float64: r_full of the permuted regressor minus r_reduced,
    mean over pieces).

    Parameters
    ----------
    cells : sequence of Cell
        Config as `PermutationConfig`; inputs as of `trf`. Cells of one block that share stimuli are fastest together.
    context : Context
        Hears about progress, and says when to stop.

    Yields
    ------
    Result
        Metrics count, delta_r_null_mean (over permutations and channels), residual_correlation_s (see
        `correlation_time_s`); or why the cell can't be computed.
    """
    done = 0
    for group in by_bench(cells):
        config = PermutationConfig.model_validate(group[0].config)
        fit = FitConfig(trf=config.trf, model=config.model, sample_rate_hz=config.sample_rate_hz)
        try:
            bench = Bench(group[0], fit)
        except TaskError as error:
            yield from (Result(cell.signature, failure=str(error)) for cell in group)
            continue
        explainers: dict[tuple[str, ...], Explainer] = {}
        for source, level in by_level(group, bench):
            for result in _level(bench, config, explainers, level, source, context):
                done += 1
                context.progress(done, len(cells), {})
                yield result


def _level(
    bench: Bench,
    config: PermutationConfig,
    explainers: dict[tuple[str, ...], Explainer],
    cells: Sequence[Cell],
    source: Artefact,
    context: Context,
) -> Iterator[Result]:
    failed: dict[str, str] = {}
    try:
        regressor = bench.regressor(source)
        usable = tuple(regressor.values)
        if usable not in explainers:
            explainers[usable] = Explainer({key: bench.reduced[key] for key in usable}, bench.lags.size)
        split = explainers[usable].split(regressor)
        for key, present in split.present.items():
            shift_range(int(present.sum()), bench.lags.size, config.shift_min_s, config.sample_rate_hz, key)
        seconds = correlation_time_s(split, config.sample_rate_hz)
        check_reach(config.shift_min_s, bench.lags.size, seconds, config.sample_rate_hz)
    except TaskError as error:
        yield from (Result(cell.signature, failure=str(error)) for cell in cells)
        return
    for folds, group in by_layout(bench, regressor, cells, failed):
        for listening, null in zip(group, null_delta_r(bench, config, split, folds, group, context), strict=True):
            save_file({"delta_r": np.ascontiguousarray(null)}, listening.cell.out_dir / "null.safetensors")
            metrics = {"count": len(null), "delta_r_null_mean": float(null.mean()), "residual_correlation_s": seconds}
            yield Result(listening.cell.signature, metrics)
    yield from (Result(signature, failure=reason) for signature, reason in failed.items())
