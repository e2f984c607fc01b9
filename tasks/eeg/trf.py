"""Stage `trf`: how much better IC predicts held-out EEG than the acoustic features do alone.

Forward ridge regression of every EEG channel on lagged features (Crosse et al. 2016, doi 10.3389/fnhum.2016.00604),
leave-one-piece-out, with lambda chosen by a second leave-one-piece-out inside the training pieces. By default the
criterion is the mean r over the subject's channels, and the reduced and the full model choose for themselves;
`tasks.eeg.config.TrfConfig` has the other ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from tasks.contract import Artefact, Cell, Context, Result, Stopped, TaskError
from tasks.eeg.folds import Folds
from tasks.eeg.jobs import Bench, FitConfig, Listening, by_bench, by_layout, by_level
from tasks.eeg.nested import Scores, full_scores, reduced_scores
from tasks.eeg.regressors import Regressor
from tasks.eeg.sufficient import regressor_sums

Floats = npt.NDArray[np.float64]


def delta_r(r_full: Floats, r_reduced: Floats) -> float:
    """Median over channels of the mean over pieces of r_full - r_reduced; both have the shape (pieces, channels)."""
    return float(np.median((r_full - r_reduced).mean(axis=0)))


def fit(bench: Bench, regressor: Regressor, folds: Folds, group: Sequence[Listening]) -> list[tuple[Scores, Scores]]:
    """Reduced and full scores of each subject of one layout."""
    versions = {key: values[None] for key, values in regressor.values.items()}
    layout, heard = group[0].subject.layout, [listening.heard for listening in group]
    sums, crosses = regressor_sums(layout, bench.design, versions, bench.lags, [h.sums for h in heard])
    reduced = [reduced_scores(folds, own, keep_kernel=True) for own in heard]
    given = [scores.chosen for scores in reduced] if folds.choosing.full == "reduced" else None
    full = full_scores(folds, sums, heard, crosses, keep_kernel=True, given=given)
    return list(zip(reduced, full, strict=True))


def edge_share(full: Scores, reduced: Scores, n_lambdas: int, n_own: int = 1) -> float:
    """Share of outer folds in which either model's lambda is the first or the last of several.

    A large share says that the grid is too narrow, and one model may have been held back by it. Of `n_own` lambdas that
    IC has for itself the same is asked.
    """
    at_edge = _at_edge(full.chosen[0] // n_own, n_lambdas) | _at_edge(reduced.chosen[0], n_lambdas)
    return float((at_edge | _at_edge(full.chosen[0] % n_own, n_own)).mean())


def _at_edge(chosen: npt.NDArray[np.int64], n_lambdas: int) -> npt.NDArray[np.bool_]:
    return np.isin(chosen, (0, n_lambdas - 1)) if n_lambdas > 1 else np.zeros(chosen.shape, dtype=np.bool_)


def _named(lambdas: Sequence[float], chosen: npt.NDArray[np.int64]) -> list[Any]:
    """Lambdas by outer fold: one number, or one for each channel."""
    listed = np.asarray(lambdas)[chosen]
    return list(listed[:, 0].tolist() if listed.shape[1] == 1 else listed.tolist())


def _write(bench: Bench, listening: Listening, reduced: Scores, full: Scores) -> dict[str, Any]:
    r_full, r_reduced = full.r[0], reduced.r[0]
    rate, lambdas, of_ic = bench.config.sample_rate_hz, bench.config.trf.lambdas, bench.config.trf.lambda_ic or ()
    n_own, n_channels = max(1, len(of_ic)), r_full.shape[1]
    arrays = {
        "r_full": np.ascontiguousarray(r_full),
        "r_reduced": np.ascontiguousarray(r_reduced),
        "kernel": np.ascontiguousarray(full.kernel[0]),
        "kernel_reduced": np.ascontiguousarray(reduced.kernel[0]).reshape(bench.lags.size, -1, n_channels),
        "lags_s": bench.lags / rate,
    }
    save_file(arrays, listening.cell.out_dir / "trf.safetensors")
    table = {
        "subject": listening.subject.name,
        "pieces": listening.subject.layout.pieces,
        "channels": listening.subject.channels,
        "lambda_full": _named(lambdas, full.chosen[0] // n_own),
        "lambda_reduced": _named(lambdas, reduced.chosen[0]),
    }
    if of_ic:
        table["lambda_ic"] = _named(of_ic, full.chosen[0] % n_own)
    layout, skipped = listening.subject.layout, listening.subject.skipped
    if layout.masked:
        table["masked"] = layout.masked
    (listening.cell.out_dir / "trf.json").write_text(json.dumps(table, sort_keys=True), encoding="utf-8")
    gains = (r_full - r_reduced).mean(axis=0)
    return {
        "delta_r": delta_r(r_full, r_reduced),
        "delta_r_max": float(gains.max()),
        "r_full": float(r_full.mean()),
        "r_reduced": float(r_reduced.mean()),
        "n_pieces": r_full.shape[0],
        "n_channels": n_channels,
        "lambda_edge_share": edge_share(full, reduced, len(lambdas), n_own),
        **({"skipped": list(skipped)} if skipped else {}),
    }


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage `trf`: one (subject, variant, noise level, model) per cell.

    Writes ``trf.safetensors`` ("r_full", "r_reduced" (pieces, channels); "kernel" (lags, channels), weights of IC in
    EEG units per standard deviation, mean over folds; "kernel_reduced" (lags, features, channels), the same of all
    features of the reduced model, in it alone; "lags_s" (lags,)) and ``trf.json`` (pieces, channels, and the lambdas of
    each outer fold). Pieces are in alphabetical order; the r of a piece is that of its repetitions together. Rows that
    bad segments or gaps in IC take are in ``masked`` of trf.json, half-open ranges of samples by piece and recording;
    it is absent where there are none.

    Parameters
    ----------
    cells : sequence of Cell
        Config as `FitConfig`; inputs ``eeg``, ``features``, ``corpus``, ``surprisal`` (of the stimuli), or instead of
        the last ``pitch_surprisal`` where ``model.regressor`` is ``driver``.
    context : Context
        Hears about progress, and says when to stop.

    Yields
    ------
    Result
        Metrics delta_r (median over channels of the mean over pieces), delta_r_max, r_full, r_reduced, n_pieces,
        n_channels, lambda_edge_share (see `edge_share`), skipped where trials or samples are left
        out; or why the cell can't be computed.
    """
    done = 0
    for group in by_bench(cells):
        try:
            bench = Bench(group[0], FitConfig.of_signed(group[0].config))
        except TaskError as error:
            yield from (Result(cell.signature, failure=str(error)) for cell in group)
            continue
        for source, level in by_level(group, bench):
            if context.should_stop():
                raise Stopped
            for result in _level(bench, level, source):
                done += 1
                context.progress(done, len(cells), {})
                yield result


def _level(bench: Bench, cells: Sequence[Cell], source: Artefact) -> Iterator[Result]:
    failed: dict[str, str] = {}
    try:
        regressor = bench.regressor(source)
    except TaskError as error:
        yield from (Result(cell.signature, failure=str(error)) for cell in cells)
        return
    for folds, group in by_layout(bench, regressor, cells, failed):
        for listening, (reduced, full) in zip(group, fit(bench, regressor, folds, group), strict=True):
            yield Result(listening.cell.signature, _write(bench, listening, reduced, full))
    yield from (Result(signature, failure=reason) for signature, reason in failed.items())
