"""The nulls beside the residual shift: what each keeps and breaks, exact refits, and which of them may claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from brute_force import nested
from made_up_world import RATE, World
from pydantic import ValidationError
from safetensors.numpy import load
from test_group import Study, made_up

from orchestrator.report.headline import headline
from orchestrator.report.methods import methods
from orchestrator.report.results import Condition, Group, Results
from tasks.contract import Context, TaskError
from tasks.eeg import nulls
from tasks.eeg.config import EegConfig, Null, PermutationsConfig
from tasks.eeg.draws import Source
from tasks.eeg.lags import lag_samples, lagged
from tasks.eeg.permutation import PermutationConfig, run
from tasks.eeg.regressors import Regressor, ic_regressor
from tasks.eeg.residual import Explainer, OnsetExplainer
from tasks.seeds import numpy_stream

Array = np.ndarray[Any, Any]
N_LAGS = 12
NAMES: tuple[Null, ...] = get_args(Null)
DIAGNOSTICS = tuple(name for name in NAMES if name not in nulls.CALIBRATED)


def source(world: World, null: Null) -> tuple[Regressor, Source]:
    lengths = dict.fromkeys(world.pieces, world.n_samples)
    regressor = ic_regressor(world.ic_series(0.3), lengths, world.notes, world.form, RATE)
    split = None
    counts = {key: nulls.onset_counts(world.notes[key], RATE, world.n_samples) for key in world.pieces}
    if null == "residual_shift":
        split = Explainer(world.standard_reduced(), N_LAGS).split(regressor)
    elif null == "onset_values":
        split = OnsetExplainer(world.standard_reduced(), counts, N_LAGS).split(regressor)
    return regressor, Source(null, regressor, split, counts, 7, 2.0, N_LAGS, RATE)


@pytest.mark.parametrize("null", NAMES)
def test_permuted_cells_equal_explicit_refits(tmp_path: Path, null: Null) -> None:
    world = World(n_pieces=4, seconds=12, leak=1.0, lambdas=(1e-4, 1e-2, 1.0))
    eeg = world.eeg("S01", n_channels=2)
    cell = world.cell(tmp_path, "permutations", eeg, 0.3, {**world.null_config(2, first=5), "null": null})
    [result] = run([cell], Context())
    assert result.failure is None
    assert (result.metrics["residual_correlation_s"] is None) == (null != "residual_shift")
    found = load((cell.out_dir / "null.safetensors").read_bytes())["delta_r"]
    heard, lags = load(eeg.read_bytes("eeg.safetensors")), lag_samples(0.0, 0.35, RATE)
    responses = [heard[f"{piece}/0"].astype(np.float64) for piece in world.pieces]
    reduced = {piece: lagged(values, lags) for piece, values in world.standard_reduced().items()}
    versions = source(world, null)[1]([5, 6])
    r_reduced = nested([reduced[piece] for piece in world.pieces], responses, world.lambdas)[0]
    for row in range(2):
        full = [
            np.concatenate([reduced[piece], lagged(versions[piece][row][:, None], lags)], axis=1)
            for piece in world.pieces
        ]
        r_full = nested(full, responses, world.lambdas)[0]
        np.testing.assert_allclose(found[row], (r_full - r_reduced).mean(axis=0), atol=1e-10)
    assert np.abs(found[0] - found[1]).max() > 1e-6


@pytest.mark.parametrize(
    ("null", "form"), [*((name, "onset") for name in NAMES), *((name, "hold") for name in NAMES if "onset" not in name)]
)
def test_a_permutation_has_its_own_seed(null: Null, form: str) -> None:
    world = World(form=form)
    regressor, draw = source(world, null)
    together, alone = draw([3, 4, 900]), draw([900])
    for piece in world.pieces:
        np.testing.assert_array_equal(together[piece][2], alone[piece][0])
        assert not together[piece][:, ~regressor.present[piece]].any()
        assert np.abs(together[piece][0] - together[piece][1]).max() > 0.1
        assert np.abs(together[piece][0] - regressor.values[piece]).max() > 0.1


def test_the_default_is_the_residual_shift_and_isnt_signed() -> None:
    assert PermutationsConfig().null == "residual_shift"
    assert "null" not in PermutationsConfig().signed()
    world = World()
    assert PermutationConfig.model_validate(world.null_config(2)).null == "residual_shift"


def test_values_trade_places_among_onsets_and_keep_what_acoustics_explain() -> None:
    world = World(leak=3.0)
    regressor, draw = source(world, "onset_values")
    assert draw.split is not None
    versions, loudness, ic, permuted = draw([1]), [], [], []
    for piece in world.pieces:
        where = np.flatnonzero(draw.counts[piece])
        away = np.setdiff1d(np.arange(world.n_samples), where)
        np.testing.assert_array_equal(versions[piece][0, away], regressor.values[piece][away])
        moved = versions[piece][0, where] - draw.split.fit[piece][where]
        np.testing.assert_allclose(np.sort(moved), np.sort(draw.split.residual[piece][where]), atol=1e-12)
        loudness.append(world.features[f"{piece}/spectrogram"].mean(axis=1)[where])
        ic.append(regressor.values[piece][where])
        permuted.append(versions[piece][0, where])
    heard = np.concatenate(loudness)
    before, after = (np.corrcoef(heard, np.concatenate(parts))[0, 1] for parts in (ic, permuted))
    assert before > 0.4
    assert after > 0.8 * before, "what follows loudness goes on following it"


def test_onset_regression_equals_least_squares_among_onsets() -> None:
    random = numpy_stream("onset regression")
    counts = {key: (random.random(400) < 0.3).astype(np.int64) for key in "ab"}
    reduced = {key: random.normal(size=(400, 1)) for key in "ab"}
    values = {key: counts[key] * random.normal(size=400) - 0.1 for key in "ab"}
    regressor = Regressor(values, {key: np.ones(400, dtype=bool) for key in "ab"})
    split = OnsetExplainer(reduced, counts, 3).split(regressor)
    rows = np.concatenate([lagged(reduced[key], np.arange(-2, 3))[counts[key] > 0] for key in "ab"])
    design = np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
    heights = np.concatenate([values[key][counts[key] > 0] for key in "ab"])
    expected = design @ np.linalg.lstsq(design, heights)[0]
    found = np.concatenate([split.fit[key][counts[key] > 0] for key in "ab"])
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert not any(split.residual[key][counts[key] == 0].any() for key in "ab")
    wide = OnsetExplainer({key: random.normal(size=(400, 60)) for key in "ab"}, counts, 3).split(regressor)
    left = np.concatenate([wide.residual[key][counts[key] > 0] for key in "ab"])
    assert left.var() > 0.6 * heights.var(), "no more components than a quarter of the onsets"


def test_every_order_of_onsets_is_as_likely() -> None:
    nothing, values = np.zeros(8), np.arange(8.0)
    counts = np.array([1, 0, 1, 1, 0, 2, 0, 2])
    drawn = nulls.among_onsets({"p": nothing}, {"p": values}, {"p": counts}, 0, range(600))["p"]
    np.testing.assert_array_equal(drawn[:, counts == 0], np.tile(values[counts == 0], (600, 1)))
    orders = {tuple(row) for row in drawn[:, counts == 1]}
    assert len(orders) == 6
    assert {tuple(row) for row in drawn[:, counts == 2]} == {(5.0, 7.0), (7.0, 5.0)}, "chords among themselves"
    for place in np.flatnonzero(counts == 1):
        assert 150 < (drawn[:, place] == 0).sum() < 250


def test_popular_nulls_do_what_their_names_say() -> None:
    random = numpy_stream("popular nulls")
    values = {"a": random.normal(size=300), "b": random.normal(size=200)}
    present = {"a": np.arange(300) >= 4, "b": np.arange(200) >= 4}
    order = {key: values[key][present[key]] for key in values}
    for row in nulls.across_pieces(values, present, 0, range(20))["b"]:
        assert any(np.array_equal(row[4:], order[key][:196]) for key in order)
    swapped = nulls.across_pieces(values, present, 0, range(20))["a"]
    assert any(np.array_equal(row[4:], np.resize(order["b"], 296)) for row in swapped)
    shuffled = nulls.sample_shuffle(values, present, 0, [0])["a"][0]
    np.testing.assert_array_equal(np.sort(shuffled[4:]), np.sort(order["a"]))
    for key in values:
        scrambled = nulls.phase_scramble(values, present, 0, [0])[key][0][4:]
        np.testing.assert_allclose(np.abs(np.fft.rfft(scrambled)), np.abs(np.fft.rfft(order[key])), atol=1e-9)
        assert abs(np.corrcoef(scrambled, order[key])[0, 1]) < 0.3


def test_a_plain_shift_moves_everything_by_the_residuals_shift() -> None:
    world = World(form="hold")
    regressor, draw = source(world, "circular_shift")
    residual = source(world, "residual_shift")[1]
    assert residual.split is not None
    for piece in world.pieces:
        where = np.flatnonzero(regressor.present[piece])
        ic, moved = regressor.values[piece][where], draw([2])[piece][0, where]
        [shift] = [n for n in range(where.size) if np.array_equal(np.roll(ic, n), moved)]
        rest = residual([2])[piece][0, where] - residual.split.fit[piece][where]
        np.testing.assert_allclose(rest, np.roll(residual.split.residual[piece][where], shift), atol=1e-12)


def test_onset_values_without_onsets_are_refused(tmp_path: Path) -> None:
    held = {"reduced": "acoustic_plus", "regressor": "hold", "tested": True}
    asked = {"simulation": {}, "permutations": {"null": "onset_values"}}
    with pytest.raises(ValidationError, match="onset_values shuffles IC among note onsets, and the tested model"):
        EegConfig.model_validate({**asked, "trf": {"models": [held]}})
    assert EegConfig.model_validate(asked).permutations.null == "onset_values"
    world = World(form="hold")
    config = {**world.null_config(2), "null": "onset_values"}
    [result] = run([world.cell(tmp_path, "permutations", world.eeg("S01"), 0.3, config)], Context())
    assert result.failure is not None
    assert "onset_values needs regressor onset; with hold choose residual_shift" in result.failure
    with pytest.raises(TaskError, match=r"p: 3 note onsets, and permutations.null onset_values needs 10"):
        nulls.check_onsets({"p": np.array([0, 1, 1, 2])})


@pytest.mark.parametrize("null", NAMES)
def test_only_calibrated_nulls_claim(tmp_path: Path, null: Null) -> None:
    study = Study(*made_up(8, 0.02))
    for block in study.permutations:
        block.config["null"] = null  # type: ignore[index]
    result, content = study.run(tmp_path)
    assert content["null"] == null
    assert content["calibrated"] == (null in nulls.CALIBRATED)
    assert any(condition["p"] <= 0.05 for condition in content["conditions"]), "the numbers are there to be compared"
    claimed = [condition for condition in content["conditions"] if condition["claimed"]]
    assert bool(claimed) == (null in nulls.CALIBRATED)
    if null in DIAGNOSTICS:
        assert result.metrics["n_claimed"] == 0
        assert content["verdict"].startswith(f"Nothing is claimed: permutations.null {null} is not calibrated")
        assert not any(condition["significant_channels"] for condition in content["conditions"])


def test_blocks_of_two_nulls_are_refused(tmp_path: Path) -> None:
    study = Study(*made_up(8, 0.02))
    study.permutations[0].config["null"] = "circular_shift"  # type: ignore[index]
    result, _ = study.run(tmp_path)
    assert result.failure is not None
    assert "blocks of one null distribution are needed, not of circular_shift, residual_shift" in result.failure


@pytest.mark.parametrize("null", NAMES)
def test_reports_name_the_null(null: Null) -> None:
    calibrated = null in nulls.CALIBRATED
    condition = Condition(variant="v", noise_level=0.4, delta_r_mean=0.01, p=0.01, claimed=calibrated)
    group = Group(
        model="acoustic_plus/onset",
        tested=True,
        n_subjects=8,
        n_permutations=99,
        conditions=(condition,),
        null=null,
        calibrated=calibrated,
    )
    results = Results("demo", ("v",), arms={}, groups=(group,))
    said = " ".join(methods(results))
    assert f"{nulls.WORDS[null]} (99 permutations)" in said
    assert ("not calibrated" in said) == (not calibrated)
    assert ("is not calibrated" in headline(results)[0]) == (not calibrated)
    assert headline(results)[0].startswith("IC adds" if calibrated else "No noise level of any variant is claimed")
