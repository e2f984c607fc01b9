"""The noise ceiling from repetitions, against what a perfect model does reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_group import CHANNELS, Study
from made_up_group import made_up as made_up_fits
from made_up_world import artefact
from safetensors.numpy import save

from tasks.contract import Artefact
from tasks.eeg.ceiling import (
    Across,
    Reliability,
    across_subjects,
    judged,
    read_presentations,
    reliability,
    shared_and_total,
    spearman_brown,
)

Array = np.ndarray[Any, Any]
RATE = 32


def subject(name: str, heard: dict[str, list[Array]], spans: dict[str, list[Any]] | None = None) -> Artefact:
    trials, arrays = [], {}
    for piece, repetitions in heard.items():
        for number, data in enumerate(repetitions):
            key = f"{piece}/{number}"
            arrays[key] = np.ascontiguousarray(data, dtype=np.float32)
            own = {"key": key, "recording": piece, "repetition": number, "n_samples": len(data)}
            trials.append({**own, "masks": (spans or {}).get(key, [])})
    table = {
        "subject": name, "simulated": True, "sample_rate_hz": RATE, "channels": list(CHANNELS), "positions": None,
        "trials": trials, "removed": [],
    }  # fmt: skip
    return artefact("eeg", name, {"eeg.json": json.dumps(table).encode(), "eeg.safetensors": save(arrays)})


def reliable(eeg: Artefact) -> Reliability | None:
    own = read_presentations(eeg)
    assert own is not None
    return reliability(own)


def made_up(seed: int, shares: tuple[float, ...], n: int = 3, seconds: int = 240) -> tuple[Array, list[Array]]:
    """A response with these shares of each channel's power, and `n` noisy repetitions of it."""
    random = np.random.default_rng(seed)
    power = np.sqrt(np.array(shares))
    response = power * random.normal(size=(seconds * RATE, 1))
    noise = [np.sqrt(1 - power**2) * random.normal(size=(seconds * RATE, len(shares))) for _ in range(n)]
    return response, [response + part for part in noise]


def test_a_perfect_model_reaches_the_ceiling() -> None:
    """The correlation of the response itself with single presentations, and with their mean."""
    response, repetitions = made_up(0, (0.3, 0.1, 0.02))
    shared, total = shared_and_total(repetitions)
    rho = shared / total
    for channel in range(3):
        laid_out = np.concatenate([part[:, channel] for part in repetitions])
        single = np.corrcoef(np.tile(response[:, channel], 3), laid_out)[0, 1]
        mean = np.corrcoef(response[:, channel], np.mean(repetitions, axis=0)[:, channel])[0, 1]
        assert np.sqrt(rho[channel]) == pytest.approx(single, abs=0.03)
        assert np.sqrt(spearman_brown(rho, 3)[channel]) == pytest.approx(mean, abs=0.05)


def test_the_mean_covariance_of_pairs_by_hand() -> None:
    _, repetitions = made_up(1, (0.3, 0.1), seconds=4)
    shared, total = shared_and_total([*repetitions[:2], np.concatenate([repetitions[2], np.full((9, 2), 50.0)])])
    pairs = [(0, 1), (0, 2), (1, 2)]
    for channel in range(2):
        own = [part[:, channel] for part in repetitions]
        expected = np.mean([np.cov(own[i], own[j], ddof=0)[0, 1] for i, j in pairs])
        assert shared[channel] == pytest.approx(expected)
        assert total[channel] == pytest.approx(np.mean([part.var() for part in own]))


def test_bad_spans_and_gaps_count_nowhere() -> None:
    _, clean = made_up(2, (0.3, 0.3, 0.3))
    broken = [part.copy() for part in clean]
    broken[1][RATE * 10 : RATE * 20] += 100 * np.random.default_rng(0).normal(size=(RATE * 10, 1))
    broken[2][RATE * 30 : RATE * 31] = np.nan
    spans = {"a/1": [[10 * RATE, 20 * RATE]]}
    [of_clean, of_broken] = [reliable(subject("S1", {"a": clean})), reliable(subject("S1", {"a": broken}, spans))]
    assert of_clean is not None
    assert of_broken is not None
    assert of_broken.rho == pytest.approx(of_clean.rho, abs=0.02)
    assert (of_clean.n_pieces, of_clean.n_repetitions) == (1, 3)


def test_nothing_shared_has_no_ceiling_and_no_repetitions_are_said() -> None:
    _, noise = made_up(3, (0.0, 0.0, 0.0))
    found = {"S1": reliable(subject("S1", {"a": noise})), "S2": reliable(subject("S2", {"a": noise[:1]}))}
    row = judged(found, CHANNELS, {"S1": 0.01, "S2": 0.5})
    assert row["mean"] < 0.1
    assert row["subjects_without"] == ["S2"]
    assert (row["n_subjects"], row["r_full"], row["ci"]) == (1, 0.01, None)
    alone = judged({"S2": found["S2"]}, CHANNELS, {"S2": 0.5})
    assert alone["mean"] is None
    assert "no repetitions: not known" in alone["why"]


def test_what_listeners_share_is_known_without_repetitions() -> None:
    """Each answers by a response of its own beside the common one, which a model of all can't predict."""
    random = np.random.default_rng(5)
    common = {piece: random.normal(size=(200 * RATE, 3)) for piece in "ab"}
    across = Across(CHANNELS)
    r = []
    for number in range(6):
        own = {
            piece: 0.3 * values + np.sqrt(0.91) * random.normal(size=values.shape) for piece, values in common.items()
        }
        r += [np.corrcoef(own[piece][:, 0], common[piece][:, 0])[0, 1] for piece in common]
        heard = {piece: [values] for piece, values in own.items() if number != 3 or piece == "a"}
        read = read_presentations(subject(f"S{number}", heard, {"a/0": [[0, number * RATE]]}))
        assert read is not None
        across.add(read)
    found = across_subjects(across)
    assert found is not None
    assert found["n_subjects"] == 6
    assert found["mean"] == pytest.approx(np.mean(r), abs=0.015)
    alone = Across(CHANNELS)
    alone.add(read)
    assert across_subjects(alone) is None


def test_the_ceiling_is_that_of_the_band_whose_model_it_is_beside(tmp_path: Path) -> None:
    """Each subject has EEG in two bands; the best condition is of the first, in which repetitions share more."""
    study = Study(*made_up_fits(6, 0.004))
    study.sources = [
        subject(name, {"a": made_up(40 + place, (share,) * 3)[1]})
        for share in (0.25, 0.01)
        for place, name in enumerate(study.names)
    ]
    for place, entry in enumerate(study.conditions[0]["subjects"]):
        entry["eeg"] = 6 + place
    _, group = study.run(tmp_path)
    assert group["ceiling"]["noise_level"] == 0.4
    assert group["ceiling"]["mean"] == pytest.approx(0.5, abs=0.03)


def test_the_group_says_what_share_of_the_ceiling_is_reached(tmp_path: Path) -> None:
    study = Study(*made_up_fits(6, 0.004))
    heard = [{"a": made_up(10 + place, (0.09,) * 3)[1]} for place in range(6)]
    study.sources = [subject(name, own) for name, own in zip(study.names, heard, strict=True)]
    _, group = study.run(tmp_path)
    found = group["ceiling"]
    assert found["mean"] == pytest.approx(0.3, abs=0.03)
    assert found["ci"][0] < found["mean"] < found["ci"][1]
    assert found["of_mean"] > found["mean"]
    assert found["share"] == pytest.approx(found["r_full"] / found["mean"])
    assert found["r_full"] == pytest.approx(0.05, abs=0.005)
    assert (found["n_repetitions"], found["n_pieces"]) == ([3, 3], [1, 1])
    assert group["conditions"][1]["excess_delta_r_mean"] > group["conditions"][0]["excess_delta_r_mean"]
    assert found["noise_level"] == 0.4
    assert found["across"]["mean"] < 0.1, "the subjects' responses have nothing in common"
