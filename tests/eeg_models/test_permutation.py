"""The residual shift: what moves, what stays, and that each permutation is fitted like the real thing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_force import nested
from made_up_world import RATE, World
from safetensors.numpy import load

from tasks.contract import Context, Stopped, TaskError
from tasks.eeg.jobs import Bench
from tasks.eeg.lags import lag_samples, lagged
from tasks.eeg.permutation import batches, run
from tasks.eeg.regressors import Regressor, ic_regressor
from tasks.eeg.residual import Explainer, Split, check_reach, correlation_time_s, shifted
from tasks.eeg.stretches import shift_range
from tasks.eeg.tiles import TILE
from tasks.seeds import numpy_stream

Array = np.ndarray[Any, Any]
N_LAGS = 12


def split_of(world: World, level: float = 0.3) -> tuple[Regressor, Split]:
    lengths = dict.fromkeys(world.pieces, world.n_samples)
    regressor = ic_regressor(world.ic_series(level), lengths, world.notes, world.form, RATE)
    return regressor, Explainer(world.standard_reduced(), N_LAGS).split(regressor)


def test_residual_is_unrelated_to_every_lag_between_features_and_ic() -> None:
    world = World(leak=3.0, form="hold")
    regressor, split = split_of(world)
    lags = np.arange(1 - N_LAGS, N_LAGS)
    design = np.concatenate([lagged(values, lags) for values in world.standard_reduced().values()])
    residual = np.concatenate([split.residual[piece] for piece in world.pieces])
    ic = np.concatenate([regressor.values[piece] for piece in world.pieces])
    centred = (design - design.mean(axis=0)) / design.std(axis=0)
    assert np.abs(centred.T @ residual).max() / len(ic) < 1e-4
    assert np.abs(centred.T @ ic).max() / len(ic) > 0.2
    fit = np.concatenate([split.fit[piece] for piece in world.pieces])
    np.testing.assert_allclose(fit + residual, ic, atol=1e-12)


@pytest.mark.parametrize("form", ["onset", "hold"])
def test_only_the_residual_moves_and_only_where_ic_is(form: str) -> None:
    world = World(form=form)
    _, split = split_of(world)
    versions = shifted(split, 7, [3, 4], N_LAGS, 2.0, RATE)
    for piece in world.pieces:
        where = np.flatnonzero(split.present[piece])
        smallest, n_shifts = shift_range(where.size, N_LAGS, 2.0, RATE, piece)
        for row, number in enumerate([3, 4]):
            shift = smallest + int(n_shifts * numpy_stream(7, "shift", number, piece).random())
            moved = versions[piece][row] - split.fit[piece]
            np.testing.assert_allclose(moved[where], np.roll(split.residual[piece][where], shift), atol=1e-12)
            assert not versions[piece][row][~split.present[piece]].any()


def test_shifts_are_uniform_and_far_from_0() -> None:
    smallest, n_shifts = shift_range(400, N_LAGS, 2.0, RATE, "p")
    assert (smallest, n_shifts) == (64, 400 - 128 + 1)
    assert smallest + n_shifts - 1 == 400 - 64
    assert shift_range(400, 100, 2.0, RATE, "p")[0] == 100, "never within the lag window"
    mark = np.zeros(400)
    mark[0] = 1.0
    split = Split({"p": np.zeros(400)}, {"p": mark}, {"p": np.ones(400, dtype=bool)})
    shifts = shifted(split, 0, range(2000), N_LAGS, 2.0, RATE)["p"].argmax(axis=1)
    assert shifts.min() >= 64
    assert shifts.max() <= 400 - 64
    counts, _ = np.histogram(shifts, bins=10, range=(64, 337))
    assert counts.min() > 140
    assert counts.max() < 260


def test_shifts_are_the_same_for_every_level(tmp_path: Path) -> None:
    """A level that has IC in the first frame too, as some definitions might, is shifted like one that lacks it."""
    world = World(form="hold")
    levels = [world.ic(0.3), {piece: np.nan_to_num(values, nan=90.0) for piece, values in world.ic(0.6).items()}]
    bench = Bench(world.cell(tmp_path, "permutations", world.eeg("S01"), 0.3, world.null_config(1)), world.fit_config())
    for piece in world.pieces:
        regressors = [bench.regressor(world.surprisal_artefact(0.3, values)) for values in levels]
        counts = {int(regressor.present[piece].sum()) for regressor in regressors}
        assert len(counts) == 1


@pytest.mark.parametrize("form", ["onset", "hold"])
def test_ic_that_isnt_finite_in_many_frames_is_refused(tmp_path: Path, form: str) -> None:
    world = World(form=form)
    cell = world.cell(tmp_path, "permutations", world.eeg("S01"), 0.6, world.null_config(2))
    values = world.ic(0.6)
    values["piece2"][40:66] = np.inf
    gap = {**cell.inputs, "surprisal": world.surprisal_artefact(0.6, values)}
    [result] = run([replace(cell, inputs=gap)], Context())
    assert result.failure is not None
    assert "piece2: IC at noise level 0.6 isn't finite in 26 of 257 frames" in result.failure
    assert "3.72 s); allowed is a share of 0.1" in result.failure


def test_shifts_within_reach_of_the_residual_are_refused(tmp_path: Path) -> None:
    check_reach(2.0, N_LAGS, 1.6, RATE)
    with pytest.raises(TaskError, match=r"2 s is too short.* over 1\.70 s .* 0\.38 s; allowed is 2\.08 s"):
        check_reach(2.0, N_LAGS, 1.7, RATE)
    world = World(form="hold")
    config = {**world.null_config(2), "shift_min_s": 0.1}
    [result] = run([world.cell(tmp_path, "permutations", world.eeg("S01"), 0.3, config)], Context())
    assert result.failure is not None
    assert "permutations.shift_min_s: 0.1 s is too short" in result.failure


def test_short_pieces_are_refused_with_the_reason() -> None:
    with pytest.raises(TaskError, match=r"short: 7\.1 s of IC offer 99 distinct shifts of at least 2\.00 s"):
        shift_range(226, N_LAGS, 2.0, RATE, "short")
    assert shift_range(227, N_LAGS, 2.0, RATE, "long enough")[1] == 100


def test_short_pieces_fail_the_cell_not_the_task(tmp_path: Path) -> None:
    world = World(seconds=7)
    [result] = run([world.cell(tmp_path, "permutations", world.eeg("S01"), 0.3, world.null_config(2))], Context())
    assert result.failure is not None
    assert "piece0" in result.failure


@pytest.mark.parametrize(("form", "repetitions"), [("onset", 1), ("hold", 2)])
def test_permuted_cells_equal_explicit_refits(tmp_path: Path, form: str, repetitions: int) -> None:
    world = World(n_pieces=4, seconds=12, form=form, lambdas=(1e-4, 1e-2, 1.0))
    eeg = world.eeg("S01", repetitions=repetitions)
    cell = world.cell(tmp_path, "permutations", eeg, 0.3, world.null_config(3, first=5))
    [result] = run([cell], Context())
    null = load((cell.out_dir / "null.safetensors").read_bytes())["delta_r"]
    assert null.shape == (3, 3)
    assert result.metrics["count"] == 3
    assert result.metrics["delta_r_null_mean"] == float(null.mean())
    heard, lags = load(eeg.read_bytes("eeg.safetensors")), lag_samples(0.0, 0.35, RATE)
    responses = [
        np.concatenate([heard[f"{piece}/{i}"].astype(np.float64) for i in range(repetitions)]) for piece in world.pieces
    ]
    reduced = {piece: lagged(values, lags) for piece, values in world.standard_reduced().items()}

    def r(designs: dict[str, Array]) -> Array:
        return nested([np.concatenate([designs[p]] * repetitions) for p in world.pieces], responses, world.lambdas)[0]

    versions = shifted(split_of(world)[1], 7, [5, 6, 7], N_LAGS, 2.0, RATE)
    for row in range(3):
        full = {
            piece: np.concatenate([reduced[piece], lagged(versions[piece][row][:, None], lags)], axis=1)
            for piece in world.pieces
        }
        np.testing.assert_allclose(null[row], (r(full) - r(reduced)).mean(axis=0), atol=1e-10)


def test_grouping_changes_no_bit(tmp_path: Path) -> None:
    world = World(n_pieces=4, seconds=12)
    eegs = [world.eeg(f"S{n:02d}", n_channels=4) for n in range(6)] + [world.eeg("S09", pieces=world.pieces[1:])]
    config = world.null_config(4)
    cells = [
        world.cell(tmp_path / "together", "permutations", eeg, level, config) for level in (0.0, 0.5) for eeg in eegs
    ]
    together = {result.signature: result for result in run(cells, Context())}
    assert len(together) == len(cells)
    for eeg, level in ((eegs[0], 0.0), (eegs[4], 0.5), (eegs[6], 0.5)):
        cell = world.cell(tmp_path / "alone", "permutations", eeg, level, config)
        [result] = run([cell], Context())
        other = tmp_path / "together" / cell.signature / "null.safetensors"
        assert (cell.out_dir / "null.safetensors").read_bytes() == other.read_bytes()
        assert result.metrics == together[cell.signature].metrics


def test_a_permutation_is_the_same_in_any_block(tmp_path: Path) -> None:
    world = World(n_pieces=3, seconds=12)
    nulls = []
    for first, count in ((0, 28), (2, 2), (23, 5)):
        cell = world.cell(tmp_path, "permutations", world.eeg("S01"), 0.3, world.null_config(count, first))
        list(run([cell], Context()))
        nulls.append(load((cell.out_dir / "null.safetensors").read_bytes())["delta_r"])
    assert np.array_equal(nulls[0][2:4], nulls[1])
    assert np.array_equal(nulls[0][23:], nulls[2])


def test_correlation_time_by_hand() -> None:
    pulse = np.zeros(100)
    pulse[50:54] = 1.0
    split = Split({"p": np.zeros(100)}, {"p": pulse}, {"p": np.ones(100, dtype=bool)})
    assert correlation_time_s(split, RATE) == 4 / RATE, "3/4, 1/2, 1/4, 0"


def test_a_stop_is_heeded_between_batches(tmp_path: Path) -> None:
    world = World(n_pieces=3, seconds=12)
    cell = world.cell(tmp_path, "permutations", world.eeg("S01"), 0.3, world.null_config(2))
    with pytest.raises(Stopped):
        list(run([cell], Context(should_stop=lambda: True)))


def test_batches_cover_a_block_once() -> None:
    assert [number for batch in batches(210, 250, 10**6) for number in batch] == list(range(210, 460))
    assert [batch.stop for batch in batches(210, 250, 10**6)] == [250, 300, 350, 400, 450, 460]
    assert [len(batch) for batch in batches(0, 70, 6 * 2**20)] == [40, 30], "whole tiles"
    assert {len(batch) for batch in batches(0, 100, 2**26)} == {TILE}
