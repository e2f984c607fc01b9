"""Each way to choose lambda and each precision does what its key says, against explicit fits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_force import correlation
from made_up_world import RATE, World
from pydantic import ValidationError
from safetensors.numpy import load

from tasks.contract import Context, Result
from tasks.eeg.config import TrfConfig
from tasks.eeg.lags import lag_samples, lagged
from tasks.eeg.permutation import run as permute
from tasks.eeg.regressors import ic_regressor
from tasks.eeg.residual import Explainer, shifted
from tasks.eeg.trf import run

Array = np.ndarray[Any, Any]
LAMBDAS, OF_IC = (1e-4, 1e-2, 1.0), (1e-3, 1e-1, 10.0)


def predictions(designs: Sequence[Array], eeg: Sequence[Array], test: int, rest: Sequence[int], ridge: Array) -> Array:
    """Of a held-out piece; `ridge` is each column's lambda."""
    x, y = np.concatenate([designs[i] for i in rest]), np.concatenate([eeg[i] for i in rest])
    centred = x - x.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + np.diag(ridge) * len(x), centred.T @ (y - y.mean(axis=0)))
    return np.asarray((designs[test] - x.mean(axis=0)) @ weights + y.mean(axis=0))


def score(criterion: str, predicted: Array, heard: Array) -> Array:
    if criterion == "correlation":
        return correlation(predicted, heard)
    error = predicted - heard
    return -np.asarray(((error - error.mean(axis=0)) ** 2).mean(axis=0))


def nested(
    designs: Sequence[Array], eeg: Sequence[Array], ridges: Sequence[Array], criterion: str, per_channel: bool
) -> tuple[Array, Array]:
    """r and the index of the chosen ridge, both (pieces, channels)."""
    everything, n_channels = range(len(designs)), eeg[0].shape[1]
    r, chosen = [], []
    for outer in everything:
        rest = [i for i in everything if i != outer]
        scores = np.zeros((len(ridges), n_channels))
        for number, ridge in enumerate(ridges):
            for inner in rest:
                training = [i for i in rest if i != inner]
                scores[number] += score(criterion, predictions(designs, eeg, inner, training, ridge), eeg[inner])
        best = scores.argmax(axis=0) if per_channel else np.full(n_channels, scores.mean(axis=1).argmax())
        fits = [correlation(predictions(designs, eeg, outer, rest, ridge), eeg[outer]) for ridge in ridges]
        r.append(np.array(fits)[best, range(n_channels)])
        chosen.append(best)
    return np.array(r), np.array(chosen)


class Study:
    """Four pieces and three channels that follow IC, acoustics, and little of either; one of them loud."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.world = folder, World(n_pieces=4, seconds=12, lambdas=LAMBDAS)
        ic, sound = self.world.standard_ic(0.3), self.world.standard_reduced()
        self.artefact = self.world.eeg(
            "S01",
            lambda piece: np.column_stack(
                [6.0 * np.roll(ic[piece], 3), 2.0 * np.roll(sound[piece][:, 3], 2), 0.1 * np.roll(ic[piece], 5)]
            ),
        )
        heard = load(self.artefact.read_bytes("eeg.safetensors"))
        self.eeg = [heard[f"{piece}/0"].astype(np.float64) for piece in self.world.pieces]
        self.lags = lag_samples(0.0, 0.35, RATE)
        self.reduced = {piece: lagged(values, self.lags) for piece, values in sound.items()}

    def designs(self, ic: dict[str, Array] | None = None) -> list[Array]:
        series = self.world.standard_ic(0.3) if ic is None else ic
        parts = ([self.reduced[p], lagged(series[p][:, None], self.lags)] for p in self.world.pieces)
        return [np.concatenate(pair, axis=1) for pair in parts]

    def ridges(self, own: Sequence[float] | None = None) -> list[Array]:
        """Of the full model: acoustics' lambda, then IC's."""
        sizes = [self.reduced[self.world.pieces[0]].shape[1], self.lags.size]
        return [
            np.repeat([penalty, of_ic], sizes) for penalty in LAMBDAS for of_ic in ([penalty] if own is None else own)
        ]

    def fitted(self, **keys: Any) -> tuple[dict[str, Array], dict[str, Any], Result]:
        config = self.world.config()
        cell = self.world.cell(self.folder, "trf", self.artefact, 0.3, {**config, "trf": {**config["trf"], **keys}})
        [result] = run([cell], Context())
        assert result.failure is None, result.failure
        out = self.folder / result.signature
        return load((out / "trf.safetensors").read_bytes()), json.loads((out / "trf.json").read_text()), result


@pytest.mark.parametrize("per_channel", [False, True], ids=["subject", "channel"])
@pytest.mark.parametrize("criterion", ["correlation", "mse"])
def test_criterion_and_who_chooses(tmp_path: Path, criterion: str, per_channel: bool) -> None:
    study = Study(tmp_path)
    arrays, table, _ = study.fitted(criterion=criterion, lambda_per="channel" if per_channel else "subject")
    for name, designs, size in (("full", study.designs(), None), ("reduced", list(study.reduced.values()), 0)):
        ridges = study.ridges() if size is None else [np.full(designs[0].shape[1], penalty) for penalty in LAMBDAS]
        r, chosen = nested(designs, study.eeg, ridges, criterion, per_channel)
        np.testing.assert_allclose(arrays[f"r_{name}"], r, atol=1e-10)
        lambdas = np.array(LAMBDAS)[chosen]
        assert table[f"lambda_{name}"] == (lambdas if per_channel else lambdas[:, 0]).tolist()


def test_ic_has_lambdas_of_its_own(tmp_path: Path) -> None:
    study = Study(tmp_path)
    arrays, table, result = study.fitted(lambda_ic=OF_IC)
    r, chosen = nested(study.designs(), study.eeg, study.ridges(OF_IC), "correlation", False)
    np.testing.assert_allclose(arrays["r_full"], r, atol=1e-10)
    both = list(zip(table["lambda_full"], table["lambda_ic"], strict=True))
    assert both == [(LAMBDAS[at // 3], OF_IC[at % 3]) for at in chosen[:, 0]]
    assert any(one != other for one, other in both)
    at_edge = [bool({*both[i], table["lambda_reduced"][i]} - {LAMBDAS[1], OF_IC[1]}) for i in range(4)]
    assert result.metrics["lambda_edge_share"] == np.mean(at_edge)


def test_the_full_model_and_its_permutations_have_the_reduced_models_lambda(tmp_path: Path) -> None:
    study = Study(tmp_path)
    arrays, table, _ = study.fitted(lambda_full="reduced", criterion="mse")
    assert table["lambda_full"] == table["lambda_reduced"]
    free = study.fitted(criterion="mse")[1]
    assert free["lambda_full"] != free["lambda_reduced"] == table["lambda_reduced"]
    columns = study.designs()[0].shape[1]
    kernels = next(iter(study.reduced.values())).shape[1]

    def r(designs: list[Array]) -> Array:
        folds = enumerate(table["lambda_reduced"])
        rest = [[i for i in range(4) if i != outer] for outer in range(4)]
        fits = [predictions(designs, study.eeg, o, rest[o], np.full(columns, penalty)) for o, penalty in folds]
        return np.array([correlation(fit, heard) for fit, heard in zip(fits, study.eeg, strict=True)])

    np.testing.assert_allclose(arrays["r_full"], r(study.designs()), atol=1e-10)
    assert arrays["kernel_reduced"].shape == (study.lags.size, kernels // study.lags.size, 3)
    config = study.world.null_config(2, first=9)
    config["trf"] = {**config["trf"], "lambda_full": "reduced", "criterion": "mse"}
    cell = study.world.cell(tmp_path, "permutations", study.artefact, 0.3, config)
    [_] = permute([cell], Context())
    null = load((cell.out_dir / "null.safetensors").read_bytes())["delta_r"]
    lengths = dict.fromkeys(study.world.pieces, study.world.n_samples)
    regressor = ic_regressor(study.world.ic_series(0.3), lengths, study.world.notes, "onset", RATE)
    split = Explainer(study.world.standard_reduced(), study.lags.size).split(regressor)
    versions = shifted(split, 7, [9, 10], study.lags.size, 2.0, RATE)
    for row in range(2):
        full = r(study.designs({piece: versions[piece][row] for piece in study.world.pieces}))
        np.testing.assert_allclose(null[row], (full - arrays["r_reduced"]).mean(axis=0), atol=1e-10)


def test_precision(tmp_path: Path) -> None:
    study = Study(tmp_path)
    mixed, double, single = (study.fitted(precision=kind)[0] for kind in ("mixed", "float64", "float32"))
    for name in ("r_full", "r_reduced", "kernel", "kernel_reduced"):
        assert np.array_equal(mixed[name], double[name]), "single precision chose the same lambdas"
        error = np.abs(single[name] - double[name]).max()
        assert 0 < error < 1e-4 * np.abs(double[name]).max()
    assert np.abs(single["r_full"] - double["r_full"]).max() < 1e-5


def test_nothing_is_chosen_for_ic_with_the_reduced_models_lambda() -> None:
    with pytest.raises(ValidationError, match="lambda_ic: with lambda_full reduced nothing is chosen for IC; give one"):
        TrfConfig(lambda_full="reduced", lambda_ic=OF_IC)
    assert TrfConfig(lambda_full="reduced", lambda_ic=(0.1,)).signed()["lambda_ic"] == [0.1]
    assert not {"lambda_full", "lambda_ic", "lambda_per", "criterion", "precision"} & TrfConfig().signed().keys()
