"""Who lacks what: subjects, pieces and channels that are missing change the N that is said, never silently the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up_group import CHANNELS, LEVELS, Study, made_up


def test_pieces_must_be_equal_over_conditions(tmp_path: Path) -> None:
    study = Study(*made_up(7, 0.004))
    study.pieces["S03", LEVELS[1]] = "abde"
    study.pieces["S05", LEVELS[0]] = study.pieces["S05", LEVELS[1]] = "abef"
    _, group = study.run(tmp_path)
    [lost] = group["missing"]
    assert lost["subject"] == "S03"
    assert "c, e" in lost["reason"]
    assert "same pieces" in lost["reason"]
    assert "S03" not in group["subjects"]
    assert group["pieces"]["S01"] == list("abcd")
    assert group["pieces"]["S05"] == list("abef")
    of_others = [entry["piece"] for entry in group["pieces_missing"] if entry["subject"] == "S01"]
    own = [entry["piece"] for entry in group["pieces_missing"] if entry["subject"] == "S05"]
    assert (own, of_others) == (["c", "d"], ["e", "f"])


def test_conditions_over_other_samples_arent_compared(tmp_path: Path) -> None:
    study = Study(*made_up(7, 0.02))
    study.masked["S02", LEVELS[0]] = study.masked["S02", LEVELS[1]] = [["a", "a", [[3, 9]]]]
    study.masked["S03", LEVELS[1]] = [["a", "a", [[3, 9]]]]
    _, group = study.run(tmp_path)
    assert group["missing"] == [
        {
            "subject": "S03",
            "reason": f"gaps in IC leave out other samples with aligned at noise level {LEVELS[0]:g} than with aligned "
            f"at noise level {LEVELS[1]:g}; conditions are compared over the same samples, leave one of them out",
        }
    ]


def test_incomplete_subjects_are_named_and_left_out(tmp_path: Path) -> None:
    study = Study(*made_up(7, 0.004))
    study.conditions[0]["subjects"].pop(2)
    study.conditions[1]["subjects"][4]["permutations"].pop()
    _, group = study.run(tmp_path, [{"subject": "S09", "reason": "file is damaged"}])
    assert group["n_subjects"] == 5
    assert group["subjects"] == ["S01", "S02", "S04", "S06", "S07"]
    assert group["missing"] == [
        {"subject": "S03", "reason": "no TRF for aligned at noise level 0"},
        {"subject": "S05", "reason": "1 of 2 blocks of permutations for aligned at noise level 0.4"},
        {"subject": "S09", "reason": "file is damaged"},
    ]


def test_a_group_without_complete_subjects_fails_with_names(tmp_path: Path) -> None:
    study = Study(*made_up(2, 0.0))
    study.conditions[0]["subjects"] = study.conditions[0]["subjects"][:1]
    study.conditions[1]["subjects"] = study.conditions[1]["subjects"][1:]
    result, _ = study.run(tmp_path)
    assert result.failure is not None
    assert "S01" in result.failure
    assert "S02" in result.failure


def test_only_common_channels_are_compared(tmp_path: Path) -> None:
    names = [CHANNELS] * 5 + [("Pz", "Fz", "Oz")]
    gain, null = made_up(6, 0.0)
    gain[5, :, 0], gain[5, :, 1] = 0.25, 0.5
    _, group = Study(gain, null, names).run(tmp_path)
    assert group["channels"] == ["Fz", "Pz"]
    assert group["positions"] == [[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]
    assert group["conditions"][0]["by_channel"][0] == pytest.approx(np.append(gain[:5, 0, 0], 0.5).mean())
    assert group["conditions"][0]["by_channel"][1] == pytest.approx(np.append(gain[:5, 0, 2], 0.25).mean())


def test_who_lacks_a_channel_is_named_with_the_n(tmp_path: Path) -> None:
    names = [CHANNELS] * 4 + [("Pz", "Fz", "Oz"), CHANNELS]
    study = Study(*made_up(6, 0.004), names)
    study.removed["S05"] = ["Cz"]
    study.pieces["S02", LEVELS[0]] = study.pieces["S02", LEVELS[1]] = "abce"
    result, group = study.run(tmp_path, [{"subject": "S09", "reason": "file is damaged"}])
    assert group["channels_missing"] == [
        {"channel": "Cz", "subjects": ["S05"]},
        {"channel": "Oz", "subjects": ["S01", "S02", "S03", "S04", "S06"]},
    ]
    assert group["n"] == {
        "subjects": 6,
        "subjects_known": 7,
        "channels": 2,
        "channels_known": 4,
        "pieces": [4, 4],
        "pieces_known": 5,
    }
    assert "S05 lacks Cz (bad, and not repaired): in no test, which are over 2 of 4 channels" in group["notes"]
    assert "S01 lacks Oz: in no test, which are over 2 of 4 channels" in group["notes"]
    assert "S01 lacks e: its means are over 4 of 5 pieces" in group["notes"]
    assert "6 of 7 subjects with 4 of 5 pieces each" in group["verdict"]
    assert "2 of 4 channels" in group["verdict"]
    assert result.metrics["n_channels"] == 2


def test_nothing_lacking_is_not_mentioned(tmp_path: Path) -> None:
    _, group = Study(*made_up(8, 0.004)).run(tmp_path)
    assert group["channels_missing"] == group["pieces_missing"] == []
    assert not any("lacks" in note for note in group["notes"])
    assert "(8 subjects;" in group["verdict"]
