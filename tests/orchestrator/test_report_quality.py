"""The quality of the EEG on the page and in quality.csv, and how it was cleaned in words."""

from __future__ import annotations

import csv
import json
from typing import Any

import made_up_study

from orchestrator.report.gathering import gather
from orchestrator.report.html import page
from orchestrator.report.quality import cleaning, rows
from orchestrator.report.tables import csv_tables


def trial(number: int, **keys: Any) -> dict[str, Any]:
    base = {"trial": str(number), "recording": f"piece{number}", "repetition": 0, "heard_s": 100.0, "kept_s": 99.5}
    return {**base, "cut_samples": 32, "n_channels": 64, "bad": {}, "interpolated": 0.0, "skipped": None, **keys}


def study(simulated: bool) -> tuple[Any, Any]:
    """Three subjects with three trials, the last of each skipped; S02 has bad channels and blinks."""
    graph, ledger = made_up_study.make(("layernorm",), n_subjects=3, simulated=simulated)
    for cell in graph:
        if cell.stage != "eeg" or cell.labels["subject"].startswith("canary-"):
            continue
        content: dict[str, Any] = {"subject": cell.labels["subject"], "sample_rate_hz": 64, "simulated": simulated}
        content["quality"] = [trial(1), trial(2)] + ([] if simulated else [trial(3, kept_s=0.0, skipped="too short")])
        if content["subject"] == "S02":
            content["quality"][0] |= {"bad": {"Cz": "noisy", "Fp1": "not numbers"}, "interpolated": 2 / 64}
            content["quality"][1] |= {"bad": {"Cz": "noisy"}, "interpolated": 1 / 64}
            content["quality"][1] |= {"not_numbers": {"Oz": 3}, "bridged": ["Oz"]}
            removed = [{"component": 0, "eog": "VEOG", "r": -0.934}]
            content["ica"] = {"n_components": 20, "converged": True, "removed": removed, "method": "infomax"}
        ledger.files[cell.signature]["eeg.json"] = json.dumps(content).encode()
        ledger.statuses[cell.signature].files = {"eeg.json": {}}
    return graph, ledger


def test_a_line_per_subject_and_a_row_per_trial() -> None:
    results = gather(*study(simulated=False), "demo")
    found = rows(results)
    assert [row[0] for row in found] == ["S01", "S02", "S03"]
    assert found[0][1:] == ("2 of 3", "199 of 300 s", "1.00 s", "0.0 s", "–", "0.0 %", "–")
    assert found[1][5:] == ("Cz noisy (2), Fp1 not numbers (1)", "2.3 %", "1 of 20 (VEOG r = -0.93)")
    assert '<td class="left">Cz noisy (2), Fp1 not numbers (1)</td>' in page(results, (), [], {}, [])
    table = list(csv.DictReader(csv_tables(results)["quality.csv"].splitlines()))
    assert len(table) == 9
    second = next(row for row in table if row["subject"] == "S02" and row["trial"] == "2")
    assert (second["bad"], second["not_numbers"], second["bridged"]) == ("Cz:noisy", "Oz:3", "Oz")
    assert {row["skipped"] for row in table if row["trial"] == "3"} == {"too short"}


def test_simulated_listeners_are_shown_where_there_is_something_to_say() -> None:
    assert [row[0] for row in rows(gather(*study(simulated=True), "demo"))] == ["S02"]


def test_cleaning_in_words() -> None:
    assert cleaning([{"subject": "S01"}]) == ""
    usual = cleaning([{"preprocessing": {"band_hz": [1.0, 8.0], "reference": "average"}}])
    assert "order 2 on each side (before resampling)" in usual
    assert "the median of all channels, judged per trial" in usual
    assert "ICA" not in usual
    keys = {"order": 4, "filters": "around_resampling", "reference": ["T7", "T8"], "ica": {"threshold": 0.6}}
    meg = cleaning([{"preprocessing": {"reference": "none"}, "raw": {"sensor_type": "mag"}}])
    assert "splines" not in meg
    assert "were left out of all trials" in meg
    asked = cleaning([{"preprocessing": {**keys, "bad_channels": {"against": "neighbours"}}}])
    assert "order 4 on each side (low-pass before resampling, high-pass after)" in asked
    assert "the 6 nearest" in asked
    assert "ICA (infomax) with |r| > 0.6" in asked
    assert asked.endswith("reference: T7, T8. ")
