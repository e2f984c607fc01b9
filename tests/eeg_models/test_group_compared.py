"""What the group stage says beyond single conditions: levels and arms compared, clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_group import Study, made_up

from tasks.eeg.table import Table


@pytest.fixture(autouse=True)
def enough_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("made_up_group.PIECES", "abcdefgh")


def test_levels_are_compared_and_the_best_is_chosen(tmp_path: Path) -> None:
    _, group = Study(*made_up(8, 0.004)).run(tmp_path)
    [contrast] = group["contrasts"]
    assert (contrast["family"], contrast["higher"], contrast["claimed"]) == ("levels", ["Cz"], True)
    assert contrast["first"] == {"arm": "aligned", "levels": [0.4]}
    assert (contrast["n_pieces"], contrast["p_piece"]) == (8, 2 / 2**8)
    [chosen] = group["chosen_level"]
    assert sum(chosen["wins"].values()) == chosen["n_pieces"] == 8
    assert group["intermediate"] == []
    assert any('"intermediate is best" is not asked' in note for note in group["notes"])
    assert any("tested over subjects alone" in note for note in group["notes"])


def test_a_contrast_over_subjects_alone_is_no_claim(tmp_path: Path) -> None:
    """The level that listeners track better is another one in every other piece: other stimuli may show no difference.

    Permutations of IC don't see that: both levels are claimed, each by itself.
    """
    gain, null = made_up(8, 0.006)
    gain[:, 0, 1] += 0.004
    study = Study(gain, null)
    study.of_piece = 0.006 * np.array([[1, -1], [-1, 1]] * 4)
    _, group = study.run(tmp_path)
    assert [condition["significant_channels"] for condition in group["conditions"]] == [["Cz"], ["Cz"]]
    [contrast] = group["contrasts"]
    assert contrast["p_subject"] <= 0.05 < contrast["p_piece"] <= contrast["p"]
    assert (contrast["higher"], contrast["lower"], contrast["claimed"]) == ([], [], False)
    study.of_piece = study.of_piece / 20
    [contrast] = study.run(tmp_path)[1]["contrasts"]
    assert (contrast["higher"], contrast["claimed"]) == (["Cz"], True)


def test_too_few_pieces_claim_nothing_and_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("made_up_group.PIECES", "abcde")
    _, group = Study(*made_up(8, 0.004)).run(tmp_path)
    [contrast] = group["contrasts"]
    assert contrast["p_subject"] <= 0.05
    assert (contrast["p_piece"], contrast["p"], contrast["p_by_channel"]) == (None, None, None)
    assert (contrast["higher"], contrast["claimed"]) == ([], False)
    assert any(
        note.startswith("nothing is claimed of contrasts: 5 pieces, and a two-sided test over pieces needs 6")
        for note in group["notes"]
    )


def test_a_piece_is_the_mean_over_who_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of eight subjects lack a piece, and one of those has its pieces in another order."""
    seen: list[Any] = []
    excess_by_piece = Table.excess_by_piece
    monkeypatch.setattr(Table, "excess_by_piece", lambda table: seen.append(excess_by_piece(table)) or seen[-1])
    gain, null = made_up(8, 0.004)
    study = Study(gain, null)
    for level in (0.0, 0.4):
        study.pieces["S02", level], study.pieces["S05", level] = "bcdefgh", "hgfedca"
    study.run(tmp_path)
    excess = gain - null.mean(axis=1)
    whole = excess.mean(axis=0)
    np.testing.assert_allclose(seen[0][2:], np.broadcast_to(whole, (6, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(seen[0][0], np.delete(excess, 1, axis=0).mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(seen[0][1], np.delete(excess, 4, axis=0).mean(axis=0), atol=1e-12)


def test_a_contrast_of_what_adds_nothing_is_no_claim(tmp_path: Path) -> None:
    """What all listeners share on these stimuli differs between levels as much as chance makes it."""
    gain, null = made_up(8, 0.004)
    null = null + 0.02 * np.random.default_rng(5).normal(size=(1, null.shape[1], 1, 1))
    _, group = Study(gain, null).run(tmp_path)
    assert not any(condition["claimed"] for condition in group["conditions"])
    [contrast] = group["contrasts"]
    assert contrast["p"] <= 0.05
    assert contrast["higher"] == ["Cz"]
    assert not contrast["claimed"]


def test_intermediate_levels_are_judged_by_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six levels, an effect at the four in the middle; without it nothing is said."""
    monkeypatch.setattr("made_up_group.LEVELS", (0.0, 0.3, 0.4, 0.5, 0.6, 0.9))
    random = np.random.default_rng(3)
    null = -0.002 + 0.001 * random.normal(size=(8, 99, 6, 3))
    gain = -0.002 + 0.001 * random.normal(size=(8, 6, 3))
    _, without = Study(gain, null).run(tmp_path)
    [judged] = without["intermediate"]
    assert not judged["best"]
    assert not judged["claimed_there"]
    assert "intermediate" not in without["verdict"]
    gain[:, 1:5, 1] += 0.004
    _, group = Study(gain, null).run(tmp_path)
    [judged] = group["intermediate"]
    assert (judged["arm"], judged["best"], judged["channels"]) == ("aligned", True, ["Cz"])
    assert "intermediate levels are above s = 0 and s = 0.9 in aligned" in group["verdict"]
    assert not any("intermediate" in note for note in group["notes"])


def test_seeds_of_an_arm_are_known_by_the_cell(tmp_path: Path) -> None:
    study = Study(*made_up(8, 0.004))
    for condition, name in zip(study.conditions, ("tanh seed=0", "tanh seed=1"), strict=True):
        condition.update({"variant": name, "noise_level": 0.4})
    arms = [{"variant": f"tanh seed={seed}", "arm": "tanh", "seed": seed} for seed in (0, 1)]
    _, alone = study.run(tmp_path)
    _, paired = study.run(tmp_path, arms=arms)
    assert [row["family"] for row in alone["contrasts"]] == ["arms"]
    assert paired["contrasts"] == [], "seeds of one arm are not contrasted"


def test_clusters_are_named_or_their_lack_is(tmp_path: Path) -> None:
    gain, null = made_up(8, 0.0)
    wide = [f"E{number}" for number in range(9)]
    gain, null = np.repeat(gain, 3, axis=2), np.repeat(null, 3, axis=3)
    gain[:, 1, [0, 1, 3, 4]] += 0.004
    study = Study(gain, null, [wide] * 8)
    study.spots = [[0.03 * (place % 3 - 1), 0.03 * (place // 3 - 1), 0.08] for place in range(9)]
    _, group = study.run(tmp_path)
    [first, *_] = group["clusters"]
    assert (first["variant"], first["noise_level"]) == ("aligned", 0.4)
    assert set(first["channels"]) >= {"E0", "E1", "E3", "E4"}
    assert first["p"] <= 0.05
    study.spots = None
    _, group = study.run(tmp_path)
    assert group["clusters"] == []
    assert "no clusters were looked for: the channels have no positions" in group["notes"]
