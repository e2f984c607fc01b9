"""Masked rows are left out of every sum exactly, shifts stay between gaps, and what is skipped is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_force import nested
from made_up_world import FRAME_S, RATE, World, artefact
from safetensors.numpy import load, save

from tasks.contract import Artefact, Cell, Context, TaskError
from tasks.eeg import masks, nulls
from tasks.eeg.draws import Source
from tasks.eeg.lags import lag_samples, lagged
from tasks.eeg.permutation import run as permute
from tasks.eeg.regressors import Regressor, ic_regressor, whole_ic
from tasks.eeg.residual import Explainer, OnsetExplainer, Split, correlation_time_s, moved, shifted
from tasks.eeg.shift_sums import Shifted, Stretches, shift_sums
from tasks.eeg.stretches import stretches
from tasks.eeg.sufficient import Layout, Part, reduced_sums, regressor_sums, response_sums
from tasks.eeg.trf import run as fit
from tasks.seeds import numpy_stream

Array = np.ndarray[Any, Any]
N_LAGS = 12
MASKS = {"piece1/0": [[40, 90], [380, 384]], "piece1/1": [[200, 201]], "piece2/0": [[0, 33]]}


def test_spans_hold_what_their_flags_do() -> None:
    random = np.random.default_rng(3)
    for lags in (np.arange(0, 4), np.arange(-3, 2), np.arange(-5, -2), np.arange(2, 3)):
        flags = random.random(60) < 0.15
        spans = masks.of_flags(flags)
        assert masks.indices(spans).tolist() == np.flatnonzero(flags).tolist()
        assert masks.count(spans) == flags.sum()
        rows = lagged(flags[:, None].astype(float), lags).any(axis=1)
        assert masks.touched(spans, lags, 60) == masks.of_flags(rows)
    assert masks.merged([[5, 9], [-3, 2], [8, 12], [2, 3], [70, 80], [58, 90], [4, 4]], 60) == (
        (0, 3),
        (5, 12),
        (58, 60),
    )
    assert masks.of_seconds([(1.0, 2.0), (3.01, 3.02), (9.9, 12.0)], 32, 320) == ((32, 64), (96, 97), (316, 320))
    assert masks.of_seconds([(0.1 + 0.2, 0.5)], 10, 8) == ((3, 5),), "rounding masks no sample beside"


def split_with_gaps(lengths: Mapping[str, int], gaps: Mapping[str, masks.Spans], first: int) -> Split:
    random = np.random.default_rng(5)
    present = {key: np.arange(n) >= first for key, n in lengths.items()}
    for key, spans in gaps.items():
        present[key][masks.indices(spans)] = False
    fit, residual = ({key: random.normal(size=n) for key, n in lengths.items()} for _ in range(2))
    return Split(fit, residual, present)


@pytest.mark.parametrize("window", [(0, 8), (-4, 5), (-9, -3), (3, 7)])
@pytest.mark.parametrize("gaps", [{}, {"a": ((180, 182), (195, 196)), "b": ((150, 171),)}], ids=["whole", "gaps"])
def test_masked_rows_are_in_no_sum(window: tuple[int, int], gaps: Mapping[str, masks.Spans]) -> None:
    lags, lengths = np.arange(*window), {"a": 400, "b": 350}
    random = np.random.default_rng(11)
    bad = {"a": ((0, 3), (50, 90)), "b": ((349, 350),)}

    def part(key: str, n: int, times: int, own: masks.Spans) -> Part:
        return Part(key, n, times, masks.merged((*own, *masks.touched(gaps.get(key, ()), lags, n)), n))

    layout = Layout(
        ("one", "two"),
        (
            (part("a", 397, 2, bad["a"]), part("a", 400, 1, ()), part("a", 100, 1, ((20, 60),))),
            (part("b", 350, 2, bad["b"]),),
        ),
    )
    sound = {key: random.normal(size=(n, 2)) for key, n in lengths.items()}
    design = {key: lagged(values, lags) for key, values in sound.items()}
    trials = [[[random.normal(size=(p.n_samples, 3)) for _ in range(p.n_trials)] for p in own] for own in layout.parts]
    response = response_sums(layout, design, trials)
    split = split_with_gaps(lengths, gaps, first=4)
    own = moved(split, 0, range(4), lags.size, 0.5, RATE)
    assert {type(version) for version in own.values()} == {Stretches if gaps else Shifted}
    series = {key: version.series() for key, version in own.items()}
    for sums, crosses in (
        shift_sums(layout, design, own, lags, [response]),
        regressor_sums(layout, design, series, lags, [response]),
    ):
        for place, parts in enumerate(layout.parts):
            rows, eeg = [], []
            for each, heard in zip(parts, trials[place], strict=True):
                keep = np.setdiff1d(np.arange(each.n_samples), masks.indices(each.masked))
                copies = [lagged(values[:, None], lags)[keep] for values in series[each.recording]]
                whole = np.concatenate([design[each.recording][keep], *copies], axis=1)
                rows += [whole] * each.n_trials
                eeg += [trial[keep] for trial in heard]
            x, y = np.concatenate(rows), np.concatenate(eeg)
            p, k = 2 * lags.size, 4 * lags.size
            found = reduced_sums(layout, design)
            assert found.n_samples[place] == len(x)
            np.testing.assert_allclose(found.products[place], x[:, :p].T @ x[:, :p], atol=1e-10)
            np.testing.assert_allclose(found.totals[place], x[:, :p].sum(axis=0), atol=1e-10)
            np.testing.assert_allclose(response.products[place], x[:, :p].T @ y, atol=1e-10)
            np.testing.assert_allclose(response.totals[place], y.sum(axis=0), atol=1e-10)
            np.testing.assert_allclose(response.squares[place], (y**2).sum(axis=0), atol=1e-10)
            np.testing.assert_allclose(sums.reduced[place], x[:, p:].T @ x[:, :p], atol=1e-10)
            np.testing.assert_allclose(sums.totals[place], x[:, p:].sum(axis=0), atol=1e-10)
            np.testing.assert_allclose(crosses[0][place], x[:, p:].T @ y, atol=1e-10)
            blocks = (x[:, p:].T @ x[:, p:]).reshape(4, lags.size, 4, lags.size)
            np.testing.assert_allclose(sums.products[place], blocks[np.arange(4), :, np.arange(4)], atol=1e-10)
            assert k == sums.totals.shape[1]


def test_stretches_need_their_masks() -> None:
    split = split_with_gaps({"a": 400}, {"a": ((180, 182),)}, first=0)
    lags = np.arange(4)
    design = {"a": lagged(np.ones((400, 1)), lags)}
    with pytest.raises(ValueError, match="a: rows that its gaps reach into aren't masked"):
        shift_sums(Layout(("a",), ((Part("a", 400, 1),),)), design, moved(split, 0, [0], 4, 0.5, RATE), lags, [])


def test_every_stretch_is_shifted_within_itself() -> None:
    """A stretch too short for 100 shifts stays, as long as nine tenths of IC move."""
    split = split_with_gaps({"a": 1000}, {"a": ((20, 22), (500, 501))}, first=4)
    found = stretches(split.present["a"], N_LAGS, 2.0, RATE, "a")
    assert [(own.first, own.stop, own.n_shifts) for own in found] == [(4, 20, 0), (22, 500, 351), (501, 1000, 372)]
    versions = shifted(split, 7, [3, 4], N_LAGS, 2.0, RATE)["a"]
    for row, number in zip(versions, [3, 4], strict=True):
        stream = numpy_stream(7, "shift", number, "a")
        for own in found:
            rows = slice(own.first, own.stop)
            shift = own.smallest + int(own.n_shifts * stream.random()) if own.n_shifts else 0
            np.testing.assert_allclose(
                row[rows] - split.fit["a"][rows], np.roll(split.residual["a"][rows], shift), atol=1e-12
            )
        assert not row[[0, 3, 20, 21, 500]].any()
    whole = split_with_gaps({"a": 1000}, {}, first=4)
    assert stretches(whole.present["a"], N_LAGS, 2.0, RATE, "a")[0].n_shifts == 996 - 127
    with pytest.raises(TaskError, match=r"a: gaps leave 6\.2 of 31\.1 s of IC in stretches with fewer than 100 dist"):
        stretches(np.isin(np.arange(1000), [0, 1, 2, 200], invert=True), N_LAGS, 2.0, RATE, "a")


def test_autocorrelation_doesnt_reach_over_a_gap() -> None:
    pulses = np.zeros(100)
    pulses[[49, 51]] = 1.0
    present = np.ones(100, dtype=bool)
    whole = Split({"p": np.zeros(100)}, {"p": pulses}, {"p": present.copy()})
    present[50] = False
    split = Split({"p": np.zeros(100)}, {"p": pulses}, {"p": present})
    assert correlation_time_s(whole, RATE) == 1 / RATE
    pulses[[48, 52]] = 1.0
    assert correlation_time_s(split, RATE) == 2 / RATE, "1/2 at one sample, nothing at two"


def lossy(world: World, frames: Mapping[str, list[int]], level: float = 0.3) -> Artefact:
    """IC without some frames."""
    values = world.ic(level)
    for piece, lost in frames.items():
        values[piece][lost] = np.nan
    return world.surprisal_artefact(level, values)


def regressor_of(world: World, surprisal: Artefact) -> Regressor:
    return ic_regressor(
        whole_ic(surprisal), dict.fromkeys(world.pieces, world.n_samples), world.notes, world.form, RATE
    )


def test_gaps_dont_count_for_the_fit_on_acoustics() -> None:
    world = World(n_pieces=3, seconds=12, form="hold", leak=3.0, reduced="envelope")
    regressor = regressor_of(world, lossy(world, {"piece1": [40, 41, 90]}))
    split = Explainer(world.standard_reduced(), N_LAGS).split(regressor)
    lags = np.arange(1 - N_LAGS, N_LAGS)
    keep = {piece: np.ones(world.n_samples, dtype=bool) for piece in world.pieces}
    keep["piece1"][masks.indices(regressor.missing["piece1"])] = False
    rows = np.concatenate([lagged(world.standard_reduced()[p], lags)[keep[p]] for p in world.pieces])
    left = np.concatenate([split.residual[p][keep[p]] for p in world.pieces])
    centred = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    assert np.abs(centred.T @ left).max() / left.size < 1e-5
    assert abs(left.mean()) < 1e-12


def draws(world: World, regressor: Regressor, null: Any) -> Source:
    """What the permutations of IC with gaps are drawn from; popular nulls have no split."""
    counts = {key: nulls.onset_counts(world.notes[key], RATE, world.n_samples) for key in world.pieces}
    for key, spans in regressor.missing.items():
        counts[key][masks.indices(spans)] = 0
    explainer = OnsetExplainer(world.standard_reduced(), counts, N_LAGS)
    splits = {
        "residual_shift": Explainer(world.standard_reduced(), N_LAGS).split(regressor),
        "onset_values": explainer.split(regressor),
    }
    return Source(null, regressor, splits.get(null), counts, 7, 2.0, N_LAGS, RATE)


@pytest.mark.parametrize(
    ("form", "null"),
    [
        ("onset", "residual_shift"),
        ("onset", "onset_values"),
        ("hold", "residual_shift"),
        ("hold", "phase_scramble"),
        ("hold", "sample_shuffle"),
        ("hold", "circular_shift"),
    ],
)
def test_cells_equal_explicit_refits_on_the_rows_that_count(tmp_path: Path, form: str, null: Any) -> None:
    """Bad segments that differ between repetitions, and IC that lacks frames: for both models alike."""
    world = World(n_pieces=3, seconds=12, form=form, lambdas=(1e-2, 1.0), reduced="envelope", leak=1.0)
    surprisal = lossy(world, {"piece0": [3], "piece1": [4, 5]})
    eeg = world.eeg("S01", n_channels=2, repetitions=2, masks=MASKS)
    config = {**world.null_config(2, first=5), "null": null}
    cell = world.cell(tmp_path, "permutations", eeg, 0.3, config)
    trf = world.cell(tmp_path, "trf", eeg, 0.3, world.config())
    cell, trf = (replace(own, inputs={**own.inputs, "surprisal": surprisal}) for own in (cell, trf))
    [result], [fitted] = permute([cell], Context()), fit([trf], Context())
    assert result.failure is None
    assert fitted.failure is None
    regressor = regressor_of(world, surprisal)
    lags = lag_samples(0.0, 0.35, RATE)
    heard = load(eeg.read_bytes("eeg.safetensors"))
    counted, responses = {}, []
    for piece in world.pieces:
        gap = np.zeros((world.n_samples, 1))
        gap[masks.indices(regressor.missing.get(piece, ()))] = 1.0
        for repetition in range(2):
            counts = ~lagged(gap, lags).any(axis=1)
            for first, stop in MASKS.get(f"{piece}/{repetition}", ()):
                counts[first:stop] = False
            counted[piece, repetition] = counts
        rows = [heard[f"{piece}/{n}"][counted[piece, n]].astype(np.float64) for n in range(2)]
        responses.append(np.concatenate(rows))

    def r(ic: Mapping[str, Array] | None) -> Array:
        designs = []
        for piece in world.pieces:
            own = [world.standard_reduced()[piece], *([] if ic is None else [ic[piece][:, None]])]
            whole = np.concatenate([lagged(values, lags) for values in own], axis=1)
            designs.append(np.concatenate([whole[counted[piece, n]] for n in range(2)]))
        return nested(designs, responses, world.lambdas)[0]

    arrays = load((trf.out_dir / "trf.safetensors").read_bytes())
    np.testing.assert_allclose(arrays["r_reduced"], r(None), atol=1e-10)
    np.testing.assert_allclose(arrays["r_full"], r(regressor.values), atol=1e-10)
    found = load((cell.out_dir / "null.safetensors").read_bytes())["delta_r"]
    versions = draws(world, regressor, null)([5, 6])
    for row in range(2):
        permuted = r({piece: versions[piece][row] for piece in world.pieces})
        np.testing.assert_allclose(found[row], (permuted - r(None)).mean(axis=0), atol=1e-10)
    assert np.abs(found[0] - found[1]).max() > 1e-6


def test_a_null_of_whole_series_is_refused_where_ic_has_gaps(tmp_path: Path) -> None:
    world = World(n_pieces=3, seconds=12, form="hold", reduced="envelope")
    cell = world.cell(
        tmp_path, "permutations", world.eeg("S01"), 0.3, {**world.null_config(2), "null": "across_pieces"}
    )
    cell = replace(cell, inputs={**cell.inputs, "surprisal": lossy(world, {"piece1": [50]})})
    [result] = permute([cell], Context())
    assert result.failure is not None
    assert "piece1: IC has gaps, and permutations.null across_pieces moves whole series; use residual_shift" in (
        result.failure
    )


def test_what_lies_in_masked_samples_changes_nothing_and_is_told(tmp_path: Path) -> None:
    """Nor does the order in which the source lists its trials, to the last bit; gaps are named by subject and piece."""
    world = World(n_pieces=3, seconds=12, reduced="envelope", lambdas=(1e-2, 1.0))
    eeg = world.eeg("S01", repetitions=2, masks=MASKS)
    table, arrays = json.loads(eeg.read_bytes("eeg.json")), load(eeg.read_bytes("eeg.safetensors"))
    for key, spans in MASKS.items():
        for first, stop in spans:
            arrays[key][first:stop] = 1e6
    table["trials"] = table["trials"][::-1]
    other = artefact("eeg", "eeg-other", {"eeg.json": json.dumps(table).encode(), "eeg.safetensors": save(arrays)})
    surprisal = lossy(world, {"piece1": [int(world.notes["piece1"][0][0] / FRAME_S)]})
    found = []
    for own in (eeg, other):
        for stage, run, config in (("trf", fit, world.config()), ("permutations", permute, world.null_config(3))):
            cell = world.cell(tmp_path, stage, own, 0.3, config)
            cell = replace(cell, inputs={**cell.inputs, "surprisal": surprisal})
            [result] = run([cell], Context())
            assert result.failure is None
            found.append((result.metrics, {path.name: path.read_bytes() for path in cell.out_dir.iterdir()}))
    assert found[0] == found[2]
    assert found[1] == found[3]
    metrics, files = found[0]
    told = json.loads(files["trf.json"])["masked"]
    assert [part[:2] for part in told] == [["piece1", "piece1"]] * 2 + [["piece2", "piece2"]]
    assert told[2][2] == [[0, 33]]
    assert [line.split(" of ")[0][:43] for line in metrics["skipped"]] == ["S01, piece1: gaps in IC leave 0.38"[:43]]


@pytest.mark.parametrize("stage", ["trf", "permutations"])
def test_company_and_blocks_change_no_bit_of_masked_cells(tmp_path: Path, stage: str) -> None:
    world = World(n_pieces=3, seconds=12, form="hold", reduced="envelope", lambdas=(1e-2, 1.0))
    run = fit if stage == "trf" else permute
    eegs = [
        world.eeg("S01"),
        world.eeg("S02", masks={"piece1/0": [[40, 90]]}, n_channels=4),
        world.eeg("S03", masks={"piece1/0": [[40, 90]]}, n_channels=2),
        world.eeg("S04", masks={"piece0/0": [[0, 60]]}),
    ]
    whole, lossless = {}, world.surprisal_artefact(0.0)
    gap = {0.0: lossless, 0.3: lossy(world, {"piece2": [3]})}

    def cells(folder: Path, config: Mapping[str, Any], which: list[tuple[Artefact, float]]) -> list[Cell]:
        made = [(world.cell(folder, stage, eeg, level, config), level) for eeg, level in which]
        return [replace(cell, inputs={**cell.inputs, "surprisal": gap[level]}) for cell, level in made]

    config = world.config() if stage == "trf" else world.null_config(21)
    together = cells(tmp_path / "together", config, [(eeg, level) for level in gap for eeg in eegs])
    for result in run(together, Context()):
        assert result.failure is None
        whole[result.signature] = result.metrics
    for eeg, level in ((eegs[0], 0.3), (eegs[2], 0.0), (eegs[1], 0.3)):
        [alone] = cells(tmp_path / "alone", config, [(eeg, level)])
        [result] = run([alone], Context())
        assert result.metrics == whole[alone.signature]
        for path in alone.out_dir.iterdir():
            assert path.read_bytes() == (tmp_path / "together" / alone.signature / path.name).read_bytes()
    if stage == "permutations":
        [block] = cells(tmp_path, world.null_config(3, first=9), [(eegs[1], 0.3)])
        list(run([block], Context()))
        own, all_of_them = (
            load((cell.out_dir / "null.safetensors").read_bytes())["delta_r"] for cell in (block, alone)
        )
        assert np.array_equal(own, all_of_them[9:12])


def test_trials_with_too_little_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    world = World(n_pieces=4, seconds=12, reduced="envelope", lambdas=(1e-2,))
    eeg = world.eeg(
        "S01", repetitions=2, masks={"piece1/1": [[0, 373]], "piece3/0": [[0, 384]], "piece3/1": [[9, 384]]}
    )
    arrays, table = load(eeg.read_bytes("eeg.safetensors")), json.loads(eeg.read_bytes("eeg.json"))
    arrays["piece2/0"] = arrays["piece2/0"][:11].copy()
    files = {"eeg.json": json.dumps(table).encode(), "eeg.safetensors": save(arrays)}
    cell = world.cell(tmp_path, "trf", artefact("eeg", "eeg-S01", files), 0.3, world.config())
    [result] = fit([cell], Context())
    assert result.failure is None
    left = "samples, and the lag window has 12"
    assert result.metrics["skipped"] == [
        f"S01, piece1: trial piece1/1 is left out, bad segments and gaps in IC leave 11 of its 384 {left}",
        "S01, piece2: trial piece2/0 is left out, it has 11 samples and the lag window 12; give longer trials or a "
        "shorter window",
        f"S01, piece3: trial piece3/0 is left out, bad segments and gaps in IC leave 0 of its 384 {left}",
        f"S01, piece3: trial piece3/1 is left out, bad segments and gaps in IC leave 9 of its 384 {left}",
    ]
    assert json.loads((cell.out_dir / "trf.json").read_text())["pieces"] == ["piece0", "piece1", "piece2"]
    alone = world.eeg("S01", pieces=["piece0", "piece3"], masks={"piece3/0": [[0, 384]]})
    [refused] = fit([world.cell(tmp_path / "refused", "trf", alone, 0.3, world.config())], Context())
    assert refused.failure is not None
    assert refused.failure.startswith("S01: 1 piece(s) with EEG, features and IC (piece0); at least 2 are needed")
    assert "S01, piece3: trial piece3/0 is left out, bad segments" in refused.failure
