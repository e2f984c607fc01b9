"""The audit of the solver, on flows and recordings where it is known what it must find."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tasks.config import SolverAuditConfig, SurprisalCell, SurprisalConfig
from tasks.contract import Artefact, Cell, Context, Result, Stopped
from tasks.flow.information import InformationContent
from tasks.flow.network import read_flow
from tasks.solver_audit import COLUMNS, OWN, PAIR_COLUMNS, Audit, drawn_frames, fine, run, twice

if TYPE_CHECKING:
    from conftest import Inputs

MakeLatents = Callable[[Mapping[str, np.ndarray]], Artefact]
DEFINITIONS = ("expectation", "monte_carlo", "probability_flow", "expected")


@pytest.fixture
def cell(tmp_path: Path, inputs: Inputs) -> Callable[..., Cell]:
    """Makes a cell of some settings of the surprisal; without definitions unless they are asked for."""
    made = 0

    def make(
        level: float,
        latents: Artefact | None = None,
        frames: int = 40,
        audit: SolverAuditConfig | None = None,
        seed: int = 0,
        signature: str = "audit",
        **settings: Any,
    ) -> Cell:
        nonlocal made
        made += 1
        out_dir = tmp_path / str(made)
        out_dir.mkdir()
        surprisal = SurprisalConfig.model_validate(settings)
        config = {
            "role": "melodies",
            "seed": seed,
            "frames_per_recording": frames,
            "surprisal": surprisal.cell(level),
            "definitions": audit.compared(surprisal, level) if audit else {},
        }
        given = {"flow": inputs.flow, "latents": latents or inputs.latents}
        return Cell(f"{signature} {level}", "solver_audit", config, given, out_dir)

    return make


def metrics_of(cell: Cell, context: Context | None = None) -> Mapping[str, Any]:
    (result,) = run([cell], context or Context())
    assert result.failure is None
    return result.metrics


def rows_of(cell: Cell, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((cell.out_dir / name).read_text().splitlines()))


def test_exact_probes_leave_nothing_to_chance(cell: Callable[..., Cell]) -> None:
    for settings in ({"n_nodes": 8}, {"solver": "euler", "n_steps": 8}):
        metrics = metrics_of(cell(0.3, probes="exact", **settings))
        for name in ("mean", "pooled", "pearson_mean", "pearson_pooled"):
            assert metrics[f"reliability_{name}"] == pytest.approx(1), name
        assert metrics["reliability_se"] == pytest.approx(0, abs=1e-9)


def test_more_probes_are_more_reliable_and_nearer_the_truth(cell: Callable[..., Cell]) -> None:
    one, many = (metrics_of(cell(0.3, solver="euler", n_steps=40, n_probes=probes)) for probes in (1, 32))
    assert one["reliability_mean"] < many["reliability_mean"] < 1
    assert one["reliability_pooled"] < 0.98
    assert many["reliability_pooled"] > 0.98
    assert one["reliability_pearson_pooled"] < many["reliability_pearson_pooled"]
    assert one["rmse_nats"] > 2 * many["rmse_nats"]
    assert one["rmse_over_sd"] == one["rmse_nats"] / one["ic_sd"]


def test_errors_fall_with_more_nodes(cell: Callable[..., Cell]) -> None:
    found = [metrics_of(cell(0.0, n_nodes=nodes, probes="exact")) for nodes in (3, 24)]
    assert found[0]["rmse_nats"] > 20 * found[1]["rmse_nats"]
    assert found[0]["doubling_nats"] > 20 * found[1]["doubling_nats"]
    assert abs(found[0]["rule_constant_nats"]) > 20 * abs(found[1]["rule_constant_nats"])
    assert found[0]["rule_constant_se_nats"] > 0
    steps = [metrics_of(cell(0.0, solver="euler", n_steps=steps, probes="exact")) for steps in (6, 12)]
    coarse, finer = steps
    assert coarse["rule_constant_nats"] is None
    assert coarse["rmse_nats"] > 1.5 * finer["rmse_nats"]
    assert coarse["doubling_mean_nats"] == pytest.approx(finer["bias_nats"] - coarse["bias_nats"], abs=1e-3)


@pytest.mark.parametrize("level", [0.0, 0.6, 0.9, 0.95])
def test_finer_rules_are_finer_from_every_level(inputs: Inputs, level: float) -> None:
    model, window = read_flow(inputs.flow)
    for settings in ({}, {"solver": "exact"}, {"n_nodes": 3}):
        own = SurprisalCell.model_validate(SurprisalConfig.model_validate(settings).cell(level))
        solvers = [InformationContent(model, window, one, "seed") for one in (own, twice(own), fine(own))]
        nodes = [len(solver.rule.taus) for solver in solvers]
        assert 2 * nodes[0] - 1 <= nodes[1] <= nodes[2]
        assert nodes[2] >= 16
        assert sum(solvers[1].counts) > 1.5 * sum(solvers[0].counts)
        assert fine(own).probes == "exact"


def test_the_errors_are_those_of_the_same_frames(cell: Callable[..., Cell], inputs: Inputs) -> None:
    """Against IC of whole recordings by the public solver, taken at the frames that were drawn."""
    asked = cell(0.4, frames=7, solver="euler", n_steps=9, probes="exact")
    metrics_of(asked)
    config = SurprisalCell.model_validate(asked.config["surprisal"])
    audit = Audit(asked)
    ic, finely, doubled = (
        _ic_of_whole(audit, wanted, inputs.frames) for wanted in (config, fine(config), twice(config))
    )
    for row in rows_of(asked, "audit.csv"):
        chosen = drawn_frames(len(inputs.frames[row["recording"]]), 7, 0, row["recording"])
        own, truth, more = (values[row["recording"]][chosen] for values in (ic, finely, doubled))
        assert int(row["n_frames"]) == len(chosen) == 7
        assert float(row["bias_nats"]) == pytest.approx(np.mean(own - truth), abs=1e-4)
        assert float(row["rmse_nats"]) == pytest.approx(np.sqrt(np.mean((own - truth) ** 2)), abs=1e-4)
        assert float(row["doubling_mean_nats"]) == pytest.approx(np.mean(more - own), abs=1e-4)
        assert float(row["ic_sd"]) == pytest.approx(np.std(own), rel=1e-4)


@torch.inference_mode()
def _ic_of_whole(audit: Audit, wanted: SurprisalCell, frames: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    return InformationContent(audit.of.flow, audit.of.window, wanted, "audit 0.4 first").of(frames)


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("context", ["transformed", "clean", "none"])
def test_frames_are_solved_where_they_are_in_their_recordings(
    cell: Callable[..., Cell], inputs: Inputs, name: str, context: str
) -> None:
    asked = cell(0.4, frames=9, definition=name, context=context, n_draws=3, n_nodes=6, probes="exact")
    audit, config = Audit(asked), SurprisalCell.model_validate(asked.config["surprisal"])
    whole = _ic_of_whole(audit, config, inputs.frames)
    with torch.inference_mode():
        solver = InformationContent(audit.of.flow, audit.of.window, config, "audit 0.4 first")
        found = audit.ic(solver, audit.posed(solver), Context())
    wanted = np.concatenate([whole[recording][frames] for recording, frames in audit.drawn.items()])
    assert np.allclose(found, wanted, rtol=1e-5)


def test_definitions_agree_where_there_is_no_noise(cell: Callable[..., Cell]) -> None:
    asked = cell(0.0, audit=SolverAuditConfig(), n_nodes=6)
    metrics = metrics_of(asked)
    rows = rows_of(asked, "definitions.csv")
    assert tuple(rows[0]) == PAIR_COLUMNS
    assert [(row["definition_a"], row["definition_b"]) for row in rows] == [
        (first, second) for place, first in enumerate(DEFINITIONS) for second in DEFINITIONS[place + 1 :]
    ]
    assert all(float(row["spearman"]) == pytest.approx(1, abs=1e-3) for row in rows)
    assert {name for name in metrics if name.startswith("spearman_")} == {f"spearman_{n}" for n in DEFINITIONS[1:]}


def test_definitions_differ_where_there_is_noise(cell: Callable[..., Cell]) -> None:
    asked = cell(0.5, audit=SolverAuditConfig(n_draws=2), n_nodes=8, definition="probability_flow")
    metrics = metrics_of(asked)
    table = {(row["definition_a"], row["definition_b"]): row for row in rows_of(asked, "definitions.csv")}
    for name in ("expectation", "monte_carlo"):
        assert metrics[f"spearman_{name}"] == float(table[name, "probability_flow"]["spearman"]) < 0.95
    assert asked.config["definitions"]["expected"]["n_draws"] == 2
    assert "spearman_probability_flow" not in metrics


def test_a_definition_in_another_context_is_a_row_of_its_own(cell: Callable[..., Cell]) -> None:
    asked = cell(0.5, audit=SolverAuditConfig(n_draws=2), n_nodes=8, context="clean")
    metrics = metrics_of(asked)
    own = {row["definition_a"] for row in rows_of(asked, "definitions.csv") if row["definition_b"] == OWN}
    assert own == set(DEFINITIONS)
    assert metrics["spearman_expectation"] < 1


def test_new_noise_is_part_of_how_reliable_a_definition_is(cell: Callable[..., Cell]) -> None:
    exact = {"n_nodes": 8, "probes": "exact"}
    few, many = (metrics_of(cell(0.5, definition="expected", n_draws=draws, **exact)) for draws in (1, 4))
    assert few["reliability_mean"] < many["reliability_mean"] < 1
    assert few["rmse_nats"] < 0.1  # the noise is no error of the solver's


def test_nothing_is_written_of_definitions_that_are_left_out(cell: Callable[..., Cell]) -> None:
    asked = cell(0.5, audit=SolverAuditConfig(definitions=False), n_nodes=8)
    assert not any(name.startswith("spearman_") for name in metrics_of(asked))
    assert [path.name for path in asked.out_dir.iterdir()] == ["audit.csv"]


def test_a_recording_that_is_not_finite_is_named_and_left_out(
    cell: Callable[..., Cell], inputs: Inputs, make_latents: MakeLatents
) -> None:
    broken, vast = inputs.frames["long"].copy(), inputs.frames["long"].copy()
    broken[5] = np.nan
    vast[3:] = 3e38  # finite, and its IC isn't
    latents = make_latents({"broken": broken, "short": inputs.frames["short"], "vast": vast})
    asked = cell(0.3, latents, n_nodes=6, audit=SolverAuditConfig(n_draws=2))
    metrics = metrics_of(asked)
    assert (metrics["n_recordings"], metrics["n_frames"], metrics["n_skipped"]) == (1, 11, 2)
    assert metrics["skipped"] == ["broken: 1 of 61 latent frames are not finite", "vast: IC isn't finite"]
    (row,) = rows_of(asked, "audit.csv")
    assert tuple(row) == COLUMNS
    assert row["recording"] == "short"
    assert float(row["rmse_nats"]) == pytest.approx(metrics["rmse_nats"])


def test_where_no_recording_is_left_the_cell_says_why(cell: Callable[..., Cell], make_latents: MakeLatents) -> None:
    vast = np.full((9, 64), 3e38, dtype=np.float32)
    (failed,) = run([cell(0.3, make_latents({"vast": vast}), n_nodes=6)], Context())
    assert failed == Result(failed.signature, failure="No recording could be audited: vast: IC isn't finite")


def test_all_noise_has_no_ranks_and_no_error(cell: Callable[..., Cell]) -> None:
    metrics = metrics_of(cell(1.0, audit=SolverAuditConfig(n_draws=2)))
    assert metrics["rmse_nats"] == metrics["doubling_nats"] == 0
    for name in ("reliability_mean", "reliability_se", "reliability_pooled", "rmse_over_sd", "spearman_expected"):
        assert metrics[name] is None, name


def test_a_level_alone_has_the_numbers_it_has_among_others(cell: Callable[..., Cell]) -> None:
    together = list(run([cell(level, frames=5, n_nodes=6) for level in (0.6, 0.2)], Context()))
    alone = metrics_of(cell(0.2, frames=5, n_nodes=6))
    assert together[1].metrics == alone
    assert metrics_of(cell(0.2, frames=5, seed=1, n_nodes=6))["ic_sd"] != alone["ic_sd"]


def test_the_frames_are_the_same_whatever_is_solved(cell: Callable[..., Cell]) -> None:
    first, second = Audit(cell(0.2, frames=5)), Audit(cell(0.7, frames=5, solver="euler", signature="another"))
    for name, frames in first.drawn.items():
        assert np.array_equal(frames, second.drawn[name])
        assert len(frames) == 5
        assert frames.min() >= 1


def test_it_stops_when_asked(cell: Callable[..., Cell]) -> None:
    with pytest.raises(Stopped):
        list(run([cell(0.2)], Context(should_stop=lambda: True)))


def test_given_probes_are_refused(cell: Callable[..., Cell]) -> None:
    given = cell(0.3, solver="euler", probes={"path": "probes.npy", "sha256": "s"})
    (result,) = run([given], Context())
    assert "given probes aren't audited" in (result.failure or "")
