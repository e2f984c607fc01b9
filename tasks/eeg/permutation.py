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

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors.numpy import save_file

from tasks.contract import Artefact, Cell, Context, Result, Stopped, TaskError
from tasks.eeg import nulls
from tasks.eeg.config import Null
from tasks.eeg.draws import Source
from tasks.eeg.folds import Folds
from tasks.eeg.jobs import Bench, FitConfig, Listening, by_bench, by_layout, by_level
from tasks.eeg.nested import full_scores, reduced_scores
from tasks.eeg.regressors import Regressor
from tasks.eeg.residual import Explainer, OnsetExplainer
from tasks.eeg.sufficient import regressor_sums

Floats = npt.NDArray[np.float64]
Explainers = dict[tuple[str, ...], Explainer | OnsetExplainer]
"""By the recordings that IC is known of."""

BATCH = 100
BATCH_BYTES = 96 * 2**20
"""Permutations are computed in batches of at most `BATCH`, whose lagged copies of one piece stay below this size."""


class PermutationConfig(FitConfig):
    """The config of a `permutations` cell: permutations `first` to ``first + count - 1``."""

    first: int = Field(ge=0)
    count: int = Field(ge=1)
    shift_min_s: float = Field(gt=0)
    seed: int
    null: Null = Field("residual_shift", json_schema_extra={"neutral": "residual_shift"})


def batches(first: int, count: int, n_lags: int, longest: int) -> Iterator[range]:
    """Consecutive runs of permutations that are computed together; a function of the cell alone."""
    size = int(np.clip(BATCH_BYTES // (8 * n_lags * longest), 1, BATCH))
    for start in range(first, first + count, size):
        yield range(start, min(start + size, first + count))


def null_delta_r(
    bench: Bench, config: PermutationConfig, draw: Source, folds: Folds, group: Sequence[Listening], context: Context
) -> list[Floats]:
    """delta_r of every permutation, mean over pieces, shape (count, channels), for each subject of one layout."""
    layout, heard = group[0].subject.layout, [listening.heard for listening in group]
    longest = max(part.n_samples for parts in layout.parts for part in parts)
    alone = config.lambda_per == "channel"
    reduced = [reduced_scores(folds, own, alone).r[0].mean(axis=0) for own in heard]
    found: list[list[Floats]] = [[] for _ in group]
    for numbers in batches(config.first, config.count, bench.lags.size, longest):
        if context.should_stop():
            raise Stopped
        versions = draw(numbers)
        sums, crosses = regressor_sums(layout, bench.design, versions, bench.lags, [h.sums for h in heard])
        for place, scores in enumerate(full_scores(folds, sums, heard, crosses, per_channel=alone)):
            found[place].append(scores.r.mean(axis=1) - reduced[place])
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
        ``residual_shift``, see `correlation_time_s`); or why the cell can't be computed.
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
        explainers: Explainers = {}
        for source, level in by_level(group, bench):
            for result in _level(bench, config, explainers, level, source, context):
                done += 1
                context.progress(done, len(cells), {})
                yield result


def _source(bench: Bench, config: PermutationConfig, explainers: Explainers, regressor: Regressor) -> Source:
    """What the permutations of one level are drawn from; the reduced features are prepared once for all levels."""
    split, counts, usable, n_lags = None, {}, tuple(regressor.values), bench.lags.size
    if config.null == "onset_values":
        if config.model.regressor == "hold":
            raise TaskError("permutations.null: onset_values needs regressor onset; with hold choose residual_shift")
        counts = {
            key: nulls.onset_counts(bench.recordings[key].notes or (), config.sample_rate_hz, values.size)
            for key, values in regressor.values.items()
        }
        nulls.check_onsets(counts)
    if config.null in nulls.CALIBRATED:
        if usable not in explainers:
            reduced = {key: bench.reduced[key] for key in usable}
            explainers[usable] = OnsetExplainer(reduced, counts, n_lags) if counts else Explainer(reduced, n_lags)
        split = explainers[usable].split(regressor)
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
            yield Result(listening.cell.signature, metrics)
    yield from (Result(signature, failure=reason) for signature, reason in failed.items())
