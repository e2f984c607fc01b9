"""Stage `permutations`: the null distribution of delta_r, by default by shifting what acoustics leave over of IC.

IC is regressed on the lagged reduced features. Only the residual is shifted in time, within its piece and around its
ends, and the fit is added back: the shifted regressor stays as collinear with the reduced model as IC itself, which a
plain shift or a permutation across pieces would destroy (Freedman & Lane 1983; Anderson & Robinson 2001 on permuting
with nuisance variables). Everything after that, the choice of lambda included, is done as for IC itself.

For IC at note onsets there is a second null, the shuffle of values among a piece's onsets; `tasks.eeg.nulls` has it,
and the popular ones that are diagnostics alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors.numpy import save_file

from tasks.contract import Artefact, Cell, Context, Result, TaskError
from tasks.eeg import masks, nulls
from tasks.eeg.config import Null
from tasks.eeg.draws import Source
from tasks.eeg.folds import Folds
from tasks.eeg.jobs import Bench, FitConfig, Listening, by_bench, by_layout, by_level
from tasks.eeg.nested import reduced_scores
from tasks.eeg.regressors import Regressor
from tasks.eeg.residual import Explainer, OnsetExplainer, check_left
from tasks.eeg.shift_sums import shift_sums
from tasks.eeg.sufficient import regressor_sums
from tasks.eeg.tiles import TILE, permuted_r, whole_tiles

Floats = npt.NDArray[np.float64]
Explainers = dict[tuple[Any, ...], Explainer | OnsetExplainer]
"""By the recordings that IC is known of and, where only onsets with IC count, its gaps."""

BATCH = 50
BATCH_BYTES = 256 * 2**20
"""Permutations are computed in batches of at most `BATCH`, whose sums stay below this size (one tile's may not)."""


class PermutationConfig(FitConfig):
    """The config of a `permutations` cell: permutations `first` to ``first + count - 1``."""

    first: int = Field(ge=0)
    count: int = Field(ge=1)
    shift_min_s: float = Field(gt=0)
    seed: int
    null: Null = Field("residual_shift", json_schema_extra={"neutral": "residual_shift"})


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
    bench: Bench, config: PermutationConfig, draw: Source, folds: Folds, group: Sequence[Listening], context: Context
) -> list[Floats]:
    """delta_r of every permutation, mean over pieces, shape (count, channels), for each subject of one layout."""
    layout, heard = group[0].subject.layout, [listening.heard for listening in group]
    n_lags, alone = bench.lags.size, [reduced_scores(folds, own) for own in heard]
    reduced = [scores.r[0].mean(axis=0) for scores in alone]
    given = [scores.chosen for scores in alone] if folds.choosing.full == "reduced" else None
    n_columns = folds.sums.totals.shape[1] + n_lags + sum(own.sums.totals.shape[1] for own in heard)
    found: list[list[Floats]] = [[] for _ in group]
    for numbers in batches(config.first, config.count, 8 * n_lags * n_columns * len(layout.pieces)):
        whole, responses = whole_tiles(numbers), [own.sums for own in heard]
        if draw.shifts:
            sums = shift_sums(layout, bench.design, draw.moved(whole), bench.lags, responses)
        else:
            sums = regressor_sums(layout, bench.design, draw(whole), bench.lags, responses)
        wanted = slice(numbers.start - whole.start, numbers.stop - whole.start)
        for place, r in enumerate(permuted_r(folds, *sums, heard, context, given)):
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
        Metrics count, delta_r_null_mean (over permutations and channels), residual_correlation_s (of
        ``residual_shift``, see `correlation_time_s`), in_place_share where gaps in IC leave some of it unshifted (see
        `stretches`); or why the cell can't be computed.
    """
    done = 0
    for group in by_bench(cells):
        config = PermutationConfig.of_signed(group[0].config)
        fit = FitConfig.model_validate({name: getattr(config, name) for name in FitConfig.model_fields})
        try:
            bench = Bench(group[0], fit)
        except TaskError as error:
            yield from (Result(cell.signature, failure=str(error)) for cell in group)
            continue
        explainers: Explainers = {}
        for source, level in by_level(group, bench):
            for result in _level(bench, config, explainers, level, source, context):
                done += 1
                context.progress(done, len(cells), {})
                yield result


def _source(bench: Bench, config: PermutationConfig, explainers: Explainers, regressor: Regressor) -> Source:
    """What the permutations of one level are drawn from; the reduced features are prepared once for all levels."""
    split, counts, n_lags = None, {}, bench.lags.size
    usable: tuple[Any, ...] = tuple(regressor.values)
    if config.null == "onset_values":
        if config.model.regressor == "hold":
            raise TaskError("permutations.null: onset_values needs regressor onset; with hold choose residual_shift")
        counts = {
            key: nulls.onset_counts(bench.recordings[key].notes or (), config.sample_rate_hz, values.size)
            for key, values in regressor.values.items()
        }
        for key, spans in regressor.missing.items():
            counts[key][masks.indices(spans)] = 0
        nulls.check_onsets(counts)
        usable += tuple(sorted(regressor.missing.items()))
    if config.null in nulls.CALIBRATED:
        if usable not in explainers:
            reduced = {key: bench.reduced[key] for key in regressor.values}
            if counts:
                explainers[usable] = OnsetExplainer(reduced, counts, n_lags, bench.n_beside)
            else:
                explainers[usable] = Explainer(reduced, n_lags)
        split = explainers[usable].split(regressor)
        check_left(split, regressor)
    return Source(config.null, regressor, split, counts, config.seed, config.shift_min_s, n_lags, config.sample_rate_hz)


def _level(
    bench: Bench,
    config: PermutationConfig,
    explainers: Explainers,
    cells: Sequence[Cell],
    source: Artefact,
    context: Context,
) -> Iterator[Result]:
    failed: dict[str, str] = {}
    try:
        regressor = bench.regressor(source)
        draw = _source(bench, config, explainers, regressor)
        seconds = draw.check()
    except TaskError as error:
        yield from (Result(cell.signature, failure=str(error)) for cell in cells)
        return
    for folds, group in by_layout(bench, regressor, cells, failed):
        for listening, null in zip(group, null_delta_r(bench, config, draw, folds, group, context), strict=True):
            save_file({"delta_r": np.ascontiguousarray(null)}, listening.cell.out_dir / "null.safetensors")
            metrics = {"count": len(null), "delta_r_null_mean": float(null.mean()), "residual_correlation_s": seconds}
            if draw.in_place_share:
                metrics["in_place_share"] = draw.in_place_share
            yield Result(listening.cell.signature, metrics)
    yield from (Result(signature, failure=reason) for signature, reason in failed.items())
