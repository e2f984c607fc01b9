"""A calibration that was killed goes on where it was, and its numbers don't depend on how it was run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import calibrate
import kept
import numpy as np
import pytest
from kept import Kept, digest, sources
from rates import judge
from strength import Power, power_of

NAMES = ("flux", "maps, different")


def test_what_was_kept_is_not_computed_again_whatever_the_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "AT_ONCE", 2)
    whole, _ = calibrate.calibrate(4, tmp_path / "one", 1, NAMES)
    assert "0 of 8 data sets of 2 generators were kept" in capsys.readouterr().err
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    flux, maps = sorted((tmp_path / "two").iterdir())
    assert (flux.name[:5], maps.name[:15]) == ("flux-", "maps-different-")
    text = flux.read_text(encoding="utf-8")
    flux.write_text(text[: len(text) - 40], encoding="utf-8")
    maps.unlink()
    again, _ = calibrate.calibrate(4, tmp_path / "two", 2, NAMES)
    assert "3 of 8 data sets of 2 generators were kept" in capsys.readouterr().err
    assert again == whole
    assert {
        name: sorted(row["number"] for row in Kept(path).read()) for name, path in (("flux", flux), ("maps", maps))
    } == {
        "flux": [0, 1, 2, 3],
        "maps": [0, 1, 2, 3],
    }


def test_a_page_of_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        "flux": {("residual_shift", "stimuli"): np.ones(20), ("residual_shift", "subjects"): np.full(20, 0.04)},
        "levels, one signal": {("residual_shift", "levels claimed"): np.array([0.01] * 5 + [1.0] * 15)},
        "maps, different": {("residual_shift", "clusters"): np.full(20, 0.01)},
    }
    power = [Power(0.002, 0.0019, 20, 18, 20, 18)]
    assert calibrate.publish(tmp_path, judge(found), 60.0, power, "the ten Bach melodies", (64, 1000), "abc123") == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["ok"] for line in printed.out.splitlines()[:4]] == [True, False, False, True]
    assert "not as it must be: flux, residual_shift, subjects: rate 1.000" in printed.err
    page = (tmp_path / "docs/results/calibration.md").read_text(encoding="utf-8")
    for part in (
        "**Not as it must be: flux (residual_shift, subjects: 1.000); levels, one signal (residual_shift, levels cla",
        "| `residual_shift` | **0.000** | **1.000** FAILS | - |",
        "| contrasts of noise levels, over pieces | - | **0.250** FAILS |",
        "claimed in 5 of 20 data sets in *levels, one signal*",
        "| clusters of channels | 1.000 (there) | - |",
        "(here 0.00190: power 0.90): that holds.",
        "at commit abc123, whose engine",
        "| 0.002 | 0.00190 | 18 of 20 | 0.90 ",
    ):
        assert part in page
    assert sorted(path.name for path in (tmp_path / "docs/results/calibration").iterdir()) == [
        "comparisons.png",
        "rates.png",
    ]


def test_results_of_other_code_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "HERE", tmp_path)
    entry, helper = tmp_path / "entry.py", tmp_path / "helper.py"
    helper.write_text("SIZE = 3\n", encoding="utf-8")
    entry.write_text('"""Words."""\nfrom helper import SIZE\nfrom tasks import seeds\n', encoding="utf-8")
    assert {path.name for path in sources(entry)} == {"seeds.py", "entry.py", "helper.py"}
    before = digest(entry, "flux")
    entry.write_text('"""Others."""\n# why\nfrom helper import SIZE\nfrom tasks import seeds\n', encoding="utf-8")
    assert digest(entry, "flux") == before
    assert digest(entry, "onset values") != before
    helper.write_text("SIZE = 4\n", encoding="utf-8")
    assert digest(entry, "flux") != before


def test_the_engine_is_part_of_what_made_results() -> None:
    names = {path.name for path in sources(kept.HERE / "made.py")}
    assert names >= {"nested.py", "residual.py", "nulls.py", "maxima.py", "contrasts.py", "choice.py", "clusters.py"}
    assert names.isdisjoint({"rates.py", "calibration_report.py", "calibrate.py"})


def test_power_measured_elsewhere(tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    row = {"words": "the ten Bach melodies", "effect": 0.002, "excess": 0.0019, "hits": [True, True, True]}
    Kept(lines).add([{**row, "number": 0}, {**row, "number": 1, "hits": [False, True, False]}])
    words, trials = calibrate.trials(Kept(lines).read())
    (found,) = power_of(trials)
    assert (words, found.count, found.claims, found.stimuli, found.subjects) == ("the ten Bach melodies", 2, 1, 2, 1)
