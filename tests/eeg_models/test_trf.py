"""The fast fits equal the slow ones, and mTRFpy's."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_force import nested
from made_up_world import RATE, World, artefact, finished
from mtrf.model import TRF
from safetensors.numpy import load

from tasks.alignment import note_ic
from tasks.contract import Context, TaskError
from tasks.eeg.choosing import Choosing
from tasks.eeg.conventions import mtrf_lags, mtrf_lambda, mtrf_penalty
from tasks.eeg.folds import make_folds, prepare
from tasks.eeg.jobs import Bench, by_layout
from tasks.eeg.lags import Lagged, lag_samples, lagged, lagged_rows
from tasks.eeg.nested import Scores, full_scores, reduced_scores
from tasks.eeg.sufficient import Layout, Part, reduced_sums, regressor_sums, response_sums
from tasks.eeg.trf import edge_share, run

Array = np.ndarray[Any, Any]


def designs(world: World, level: float) -> tuple[dict[str, Array], dict[str, Array]]:
    lags = lag_samples(0.0, 0.35, RATE)
    reduced = {piece: lagged(values, lags) for piece, values in world.standard_reduced().items()}
    full = {
        piece: np.concatenate([reduced[piece], lagged(values[:, None], lags)], axis=1)
        for piece, values in world.standard_ic(level).items()
    }
    return reduced, full


def follow(world: World, level: float, strength: float) -> Any:
    kernel = np.array([0.0, 0.2, 0.7, 1.0, 0.5, -0.2, -0.5, -0.3, 0.0, 0.1, 0.0, 0.0])
    ic = world.standard_ic(level)
    sound = world.standard_reduced()

    def respond(piece: str) -> Array:
        n = world.n_samples
        driven = strength * np.convolve(ic[piece], kernel)[:n] + 0.5 * np.convolve(sound[piece][:, 3], kernel[::-1])[:n]
        return driven[:, None] * np.array([1.0, -0.6, 0.3])

    return respond


def test_lags_are_rounded_to_the_nearest_sample() -> None:
    assert lag_samples(0.0, 0.35, 32).tolist() == list(range(12))
    assert lag_samples(-0.05, 0.35, 64).tolist() == list(range(-3, 23))
    assert mtrf_lags(-0.05, 0.35, 64).tolist() == list(range(-4, 24))


def test_lagged_copies_are_zero_beyond_the_ends() -> None:
    values = np.array([[1.0], [2.0], [3.0]])
    expected = np.array([[2.0, 1.0, 0.0], [3.0, 2.0, 1.0], [0.0, 3.0, 2.0]])
    assert np.array_equal(lagged(values, np.array([-1, 0, 1])), expected)
    for n_samples in (3, 2, 1):
        assert np.array_equal(lagged_rows(values.T, np.array([-1, 0, 1]), n_samples), expected.T[:, :n_samples])
    assert not lagged_rows(values.T, np.array([5, -5]), 2).any()
    assert not lagged(values, np.array([5])).any()


@pytest.mark.parametrize("window", [(-3, 5), (0, 4), (2, 6), (-7, -2), (0, 1), (-1, 0)])
def test_lagged_copies_made_in_pieces_are_the_same(window: tuple[int, int]) -> None:
    values, lags = np.random.default_rng(2).normal(size=(20, 3)), np.arange(*window)
    whole, lazy = lagged(values, lags), Lagged(values, lags)
    assert lazy.shape == whole.shape
    for rows in (slice(None), slice(0, 7), slice(3, 18), slice(20, 20), slice(0, 40)):
        assert np.array_equal(lazy[rows], whole[rows])


@pytest.mark.parametrize("form", ["onset", "hold"])
def test_nested_scores_equal_explicit_fits(tmp_path: Path, form: str) -> None:
    world = World(n_pieces=4, seconds=12, form=form, lambdas=(1e-4, 1e-2, 1.0))
    eeg = world.eeg("S01", follow(world, 0.3, 0.5))
    [result] = run([world.cell(tmp_path, "trf", eeg, 0.3, world.config())], Context())
    assert result.failure is None
    cell = tmp_path / result.signature
    arrays, table = load((cell / "trf.safetensors").read_bytes()), json.loads((cell / "trf.json").read_text())
    heard = load(eeg.read_bytes("eeg.safetensors"))
    responses = [heard[f"{piece}/0"].astype(np.float64) for piece in world.pieces]
    reduced, full = designs(world, 0.3)
    r_full, lambda_full = nested([full[piece] for piece in world.pieces], responses, world.lambdas)
    r_reduced, lambda_reduced = nested([reduced[piece] for piece in world.pieces], responses, world.lambdas)
    assert table["lambda_full"] == lambda_full
    assert table["lambda_reduced"] == lambda_reduced
    np.testing.assert_allclose(arrays["r_full"], r_full, atol=1e-10)
    np.testing.assert_allclose(arrays["r_reduced"], r_reduced, atol=1e-10)
    assert result.metrics["delta_r"] == pytest.approx(np.median((r_full - r_reduced).mean(axis=0)), abs=1e-10)


def test_equals_mtrfpy_with_its_conventions() -> None:
    random = np.random.default_rng(3)
    lengths, lambdas, window = [300, 340, 280, 320], [1e-2, 1.0, 100.0], (-0.05, 0.35)
    lags = mtrf_lags(*window, RATE)
    sound = [random.normal(size=(n, 2)) + 0.3 for n in lengths]
    ic = [random.normal(size=n) for n in lengths]
    noise = [random.normal(size=(n, 3)) + 1.0 for n in lengths]
    eeg = [
        np.roll(s[:, :1], 3, axis=0) + 0.5 * np.roll(i, 5)[:, None] + e
        for s, i, e in zip(sound, ic, noise, strict=True)
    ]
    names = [str(i) for i in range(4)]
    layout = Layout(tuple(names), tuple((Part(name, n, 1),) for name, n in zip(names, lengths, strict=True)))
    design = {name: lagged(values, lags) for name, values in zip(names, sound, strict=True)}
    response = response_sums(layout, design, [[[part]] for part in eeg])
    folds = make_folds(reduced_sums(layout, design), lambdas, mtrf_penalty(layout, RATE))
    versions = {name: values[None] for name, values in zip(names, ic, strict=True)}
    sums, crosses = regressor_sums(layout, design, versions, lags, [response])
    heard = prepare(folds, response)
    for scores, stimuli in (
        (full_scores(folds, sums, [heard], crosses)[0], [np.column_stack(p) for p in zip(sound, ic, strict=True)]),
        (reduced_scores(folds, heard), sound),
    ):
        for outer in range(4):
            rest = [i for i in range(4) if i != outer]
            trf = TRF()
            with contextlib.redirect_stdout(io.StringIO()):
                trf.train(
                    [stimuli[i].copy() for i in rest],
                    [eeg[i].copy() for i in rest],
                    RATE,
                    *window,
                    lambdas,
                    verbose=False,
                )
                _, r = trf.predict([stimuli[outer].copy()], [eeg[outer].copy()], average=False)
            assert float(trf.regularization) == lambdas[scores.chosen[0, outer, 0]]
            np.testing.assert_allclose(scores.r[0, outer], np.ravel(r), atol=1e-10)


def test_lambda_converts_to_mtrf_units() -> None:
    random = np.random.default_rng(4)
    layout = Layout(("a", "b", "c"), tuple((Part(name, 200, 1),) for name in "abc"))
    design = {name: random.normal(size=(200, 4)) for name in "abc"}
    response = response_sums(layout, design, [[[random.normal(size=(200, 2))]] for _ in range(3)])
    ours = make_folds(reduced_sums(layout, design), [0.3])
    theirs = make_folds(reduced_sums(layout, design), [mtrf_lambda(0.3, 400, 2, RATE)], mtrf_penalty(layout, RATE))
    r = [reduced_scores(folds, prepare(folds, response)).r for folds in (ours, theirs)]
    np.testing.assert_allclose(r[0], r[1], atol=1e-13)


def test_constant_prediction_and_flat_channel_have_r_0() -> None:
    random = np.random.default_rng(5)
    layout = Layout(("a", "b", "c"), tuple((Part(name, 100, 1),) for name in "abc"))
    design = {name: np.zeros((100, 4)) for name in "abc"}
    eeg = [random.normal(size=(100, 2)) * [1.0, 0.0] for _ in range(3)]
    response = response_sums(layout, design, [[[part]] for part in eeg])
    folds = make_folds(reduced_sums(layout, design), [1e-2, 1.0])
    heard = prepare(folds, response)
    assert np.array_equal(reduced_scores(folds, heard).r, np.zeros((1, 3, 2)))
    nothing = {name: np.zeros((1, 100)) for name in "abc"}
    sums, crosses = regressor_sums(layout, design, nothing, np.arange(3), [response])
    assert np.array_equal(full_scores(folds, sums, [heard], crosses)[0].r, np.zeros((1, 3, 2)))


def test_known_kernel_is_recovered(tmp_path: Path) -> None:
    world = World(n_pieces=5, seconds=30)
    kernel = np.array([0.0, 0.2, 0.7, 1.0, 0.5, -0.2, -0.5, -0.3, 0.0, 0.1, 0.0, 0.0])
    eeg = world.eeg("S01", follow(world, 0.3, 1.0), noise=0.2)
    [result] = run([world.cell(tmp_path, "trf", eeg, 0.3, world.config())], Context())
    arrays = load((tmp_path / result.signature / "trf.safetensors").read_bytes())
    assert np.corrcoef(arrays["kernel"][:, 0], kernel)[0, 1] > 0.9
    assert result.metrics["delta_r"] > 0.05
    np.testing.assert_allclose(arrays["lags_s"], np.arange(12) / RATE)


def test_repetitions_of_a_piece_share_a_fold(tmp_path: Path) -> None:
    """Two repetitions per piece are scored like one piece with both trials joined, never against each other."""
    world = World(n_pieces=3, seconds=12)
    eeg = world.eeg("S01", follow(world, 0.3, 0.5), repetitions=2)
    [result] = run([world.cell(tmp_path, "trf", eeg, 0.3, world.config())], Context())
    cell = tmp_path / result.signature
    arrays = load((cell / "trf.safetensors").read_bytes())
    heard = load(eeg.read_bytes("eeg.safetensors"))
    joined = [np.concatenate([heard[f"{p}/0"], heard[f"{p}/1"]]).astype(np.float64) for p in world.pieces]
    _, full = designs(world, 0.3)
    r_full, _ = nested([np.concatenate([full[piece]] * 2) for piece in world.pieces], joined, world.lambdas)
    assert arrays["r_full"].shape[0] == 3
    np.testing.assert_allclose(arrays["r_full"], r_full, atol=1e-10)


def test_a_trial_that_ends_early_knows_what_would_have_followed() -> None:
    """Negative lags reach beyond the end of the EEG, into what the stimulus holds there, in both blocks alike."""
    random = np.random.default_rng(6)
    lags, sound, ic = np.arange(-3, 5), random.normal(size=(80, 2)), random.normal(size=(2, 80))
    layout = Layout(("a",), ((Part("a", 50, 2),),))
    design = {"a": lagged(sound, lags)}
    trials = [random.normal(size=(50, 3)) for _ in range(2)]
    response = response_sums(layout, design, [[trials]])
    sums, [cross] = regressor_sums(layout, design, {"a": ic}, lags, [response])
    lagged_ic = np.concatenate([lagged(row[:, None], lags)[:50] for row in ic], axis=1)
    np.testing.assert_allclose(sums.reduced[0], 2 * lagged_ic.T @ lagged(sound, lags)[:50])
    np.testing.assert_allclose(cross[0], lagged_ic.T @ (trials[0] + trials[1]))
    np.testing.assert_allclose(sums.totals[0], 2 * lagged_ic.sum(axis=0))


def test_the_true_driver_is_fitted_like_ic(tmp_path: Path) -> None:
    """Where listeners follow pitch surprisal it adds what it is worth, and a regressor of the same values the same."""
    world = World(n_pieces=4, seconds=20, lambdas=(1e-2, 1e-1))
    bits = {
        piece: note_ic(series, world.notes[piece], "onset_and_next") for piece, series in world.ic_series(0.3).items()
    }
    text = json.dumps({piece: [None if np.isnan(bit) else bit for bit in own] for piece, own in bits.items()})
    text = text.replace("null", str(np.nanmean(np.concatenate(list(bits.values())))))
    source = artefact("pitch_surprisal", "ps", {"surprisal.json": text.encode()})
    eeg = world.eeg("S01", follow(world, 0.3, 0.7))
    config = {**world.config(), "model": {"reduced": "acoustic_plus", "regressor": "driver"}}
    cell = world.cell(tmp_path / "driver", "trf", eeg, 0.3, config)
    inputs = {role: found for role, found in cell.inputs.items() if role != "surprisal"}
    [result] = run([replace(cell, inputs={**inputs, "pitch_surprisal": source})], Context())
    assert result.failure is None, result.failure
    [by_ic] = run([world.cell(tmp_path / "ic", "trf", eeg, 0.3, world.config())], Context())
    [by_other] = run([world.cell(tmp_path / "other", "trf", eeg, 0.9, world.config())], Context())
    assert result.metrics.keys() == by_ic.metrics.keys()
    assert result.metrics["delta_r"] == pytest.approx(by_ic.metrics["delta_r"], rel=0.05)
    assert result.metrics["delta_r"] > by_other.metrics["delta_r"] + 0.03


def test_lambdas_at_an_end_of_the_grid_are_counted() -> None:
    def scores(chosen: list[int]) -> Scores:
        return Scores(np.zeros((1, 4, 1)), np.array([chosen])[..., None], np.zeros((1, 0, 1)))

    assert edge_share(scores([1, 1, 2, 1]), scores([1, 1, 1, 1]), 4) == 0.0
    assert edge_share(scores([0, 1, 3, 1]), scores([0, 1, 1, 1]), 4) == 0.5
    assert edge_share(scores([1, 1, 1, 1]), scores([3, 1, 1, 1]), 4) == 0.25
    assert edge_share(scores([0, 0, 0, 0]), scores([0, 0, 0, 0]), 1) == 0.0


def test_lambda_edge_share_follows_from_the_table(tmp_path: Path) -> None:
    world = World(n_pieces=4, seconds=12, lambdas=(1e-3, 3e-2, 3e-1, 3.0))
    eeg = world.eeg("S01", follow(world, 0.3, 0.3), noise=2.0)
    [result] = run([world.cell(tmp_path, "trf", eeg, 0.3, world.config())], Context())
    table = json.loads((tmp_path / result.signature / "trf.json").read_text())
    pairs = zip(table["lambda_full"], table["lambda_reduced"], strict=True)
    shares = [bool({1e-3, 3.0} & set(pair)) for pair in pairs]
    assert result.metrics["lambda_edge_share"] == np.mean(shares)


def test_grouping_changes_no_bit(tmp_path: Path) -> None:
    world = World(n_pieces=4, seconds=12)
    subjects = [world.eeg(f"S{number:02d}", n_channels=3 + number) for number in range(3)]
    shorter = world.eeg("S09", pieces=world.pieces[:3])
    cells = [
        world.cell(tmp_path / "together", "trf", eeg, level, world.config())
        for eeg in (*subjects, shorter)
        for level in (0.0, 0.5)
    ]
    together = {result.signature: result for result in run(cells, Context())}
    for eeg, level in ((subjects[1], 0.5), (shorter, 0.0)):
        alone = world.cell(tmp_path / "alone", "trf", eeg, level, world.config())
        [result] = run([alone], Context())
        assert result.metrics == together[alone.signature].metrics
        for name in ("trf.safetensors", "trf.json"):
            assert (alone.out_dir / name).read_bytes() == (tmp_path / "together" / alone.signature / name).read_bytes()


def test_too_few_pieces_are_refused_with_the_reason(tmp_path: Path) -> None:
    world = World(n_pieces=4, seconds=12)
    eeg, whole = world.eeg("S01", pieces=world.pieces[:2]), world.eeg("S02")
    results = list(run([world.cell(tmp_path, "trf", e, 0.0, world.config()) for e in (eeg, whole)], Context()))
    by_signature = {result.signature: result for result in results}
    failure = by_signature["trf-eeg-S01-0.0-None-onset"].failure
    assert failure is not None
    assert "S01" in failure
    assert "2 piece" in failure
    assert "at least 3" in failure
    assert by_signature["trf-eeg-S02-0.0-None-onset"].failure is None
    sums = reduced_sums(Layout(("a",), ((Part("a", 50, 1),),)), {"a": np.ones((50, 2))})
    with pytest.raises(TaskError, match="at least 2"):
        make_folds(sums, [1.0])


def test_one_lambda_needs_two_pieces_only(tmp_path: Path) -> None:
    world = World(n_pieces=2, seconds=12, lambdas=(1e-2,))
    [result] = run([world.cell(tmp_path, "trf", world.eeg("S01"), 0.0, world.config())], Context())
    assert result.failure is None
    assert result.metrics["n_pieces"] == 2


@pytest.mark.parametrize("form", ["onset", "hold"])
def test_constant_ic_is_a_failure_that_names_it(tmp_path: Path, form: str) -> None:
    world = World(n_pieces=3, seconds=12, form=form)
    cell = world.cell(tmp_path, "trf", world.eeg("S01"), 0.0, world.config())
    flat = {piece: np.where(np.isnan(values), np.nan, 58.8) for piece, values in world.ic(0.0).items()}
    cell = type(cell)(
        cell.signature,
        cell.stage,
        cell.config,
        {**cell.inputs, "surprisal": world.surprisal_artefact(0.0, flat)},
        cell.out_dir,
    )
    [result] = run([cell], Context())
    assert result.failure is not None
    assert "IC is constant (58.8 nats" in result.failure


def test_onset_regressor_without_notes_is_refused(tmp_path: Path) -> None:
    world = World(n_pieces=3, seconds=12)
    cell = world.cell(tmp_path, "trf", world.eeg("S01"), 0.0, world.config())
    world.notes = {piece: [] for piece in world.pieces}
    cell = world.cell(tmp_path, "trf", world.eeg("S01"), 0.0, world.config())
    [result] = run([cell], Context())
    assert result.failure is not None
    assert "regressor: hold" in result.failure


def test_finished_cell_can_be_read_back(tmp_path: Path) -> None:
    world = World(n_pieces=3, seconds=12)
    cell = world.cell(tmp_path, "trf", world.eeg("S01"), 0.0, world.config())
    [result] = run([cell], Context())
    table = json.loads(finished(cell, result).read_bytes("trf.json"))
    assert table["pieces"] == world.pieces
    assert table["channels"] == ["ch0", "ch1", "ch2"]


def test_a_channel_that_chooses_its_own_lambda_is_a_listener_alone() -> None:
    random = np.random.default_rng(5)
    names, lags = [str(i) for i in range(4)], np.arange(4)
    layout = Layout(tuple(names), tuple((Part(name, 200, 1),) for name in names))
    sound = {name: random.normal(size=(200, 2)) for name in names}
    ic = {name: random.normal(size=(1, 200)) for name in names}
    design = {name: lagged(values, lags) for name, values in sound.items()}
    eeg = [random.normal(size=(200, 3)) + [[4.0, 1.0, 0.0]] * sound[name][:, :1] for name in names]

    def scores(channels: slice, per_channel: bool) -> tuple[Scores, Scores]:
        lambdas, choosing = [1e-3, 1e-1, 10.0, 1e3], Choosing(per_channel=per_channel)
        folds = make_folds(reduced_sums(layout, design), lambdas, choosing=choosing)
        response = response_sums(layout, design, [[[part[:, channels]]] for part in eeg])
        heard = prepare(folds, response)
        sums, crosses = regressor_sums(layout, design, ic, lags, [response])
        full = full_scores(folds, sums, [heard], crosses, keep_kernel=True)[0]
        return full, reduced_scores(folds, heard, keep_kernel=True)

    together = scores(slice(0, 3), per_channel=True)
    assert any(len(set(chosen)) > 1 for chosen in together[0].chosen[0])
    for channel in range(3):
        for one, alone in zip(together, scores(slice(channel, channel + 1), per_channel=False), strict=True):
            assert np.array_equal(one.chosen[:, :, channel], alone.chosen[:, :, 0])
            np.testing.assert_allclose(one.r[:, :, channel], alone.r[:, :, 0], atol=1e-12)
            np.testing.assert_allclose(one.kernel[:, :, channel], alone.kernel[:, :, 0], atol=1e-12)


def test_trials_are_forgotten_once_they_are_summed(tmp_path: Path) -> None:
    """What is kept of a subject is its sums: a task with many subjects would else hold all of their trials."""
    world = World()
    cell = world.cell(tmp_path, "trf", world.eeg("S01"), 0.3, world.config())
    bench = Bench(cell, world.fit_config())
    regressor = bench.regressor(cell.input("surprisal"))
    [(_, [listening])] = by_layout(bench, regressor, [cell], {})
    assert (listening.subject.trials, bench.subject(cell.input("eeg"), regressor).trials) == ((), ())
    assert listening.heard.sums.squares.min() > 0
