"""The group's claims: corrected, excess against each subject's own null, and honest in words."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_world import artefact
from safetensors.numpy import save

from tasks.contract import Artefact, Cell, Context, Result
from tasks.eeg.group import run, run_tests
from tasks.eeg.maxima import sign_flip_p

Array = np.ndarray[Any, Any]
CHANNELS = ("Fz", "Cz", "Pz")
LEVELS = (0.0, 0.4)


class Study:
    """Made-up fits and nulls: `gain` (S, levels, C), `null` (S, B, levels, C)."""

    def __init__(self, gain: Array, null: Array | None, channels: Sequence[Sequence[str]] | None = None) -> None:
        self.pieces: dict[tuple[str, float], str] = {}
        self.masked: dict[tuple[str, float], list[Any]] = {}
        self.names = [f"S{number + 1:02d}" for number in range(len(gain))]
        self.channels = channels or [CHANNELS] * len(gain)
        self.removed: dict[str, list[str]] = {}
        self.spots: list[list[float]] | None = [[0.0, 0.0, float(place)] for place in range(len(self.channels[0]))]
        self.trf: list[Artefact] = []
        self.permutations: list[Artefact] = []
        self.conditions: list[dict[str, Any]] = []
        for place, level in enumerate(LEVELS):
            entries = []
            for subject, name in enumerate(self.names):
                blocks = []
                if null is not None:
                    half = null.shape[1] // 2
                    for first, count in ((0, half), (half, null.shape[1] - half)):
                        blocks.append(len(self.permutations))
                        part = np.ascontiguousarray(null[subject, first : first + count, place])
                        files = {"null.safetensors": save({"delta_r": part})}
                        config = {"first": first, "count": count}
                        self.permutations.append(artefact("permutations", f"p{len(self.permutations)}", files, config))
                entries.append({"subject": name, "trf": len(self.trf), "permutations": blocks})
                self.trf.append(self._fit(subject, level, gain[subject, place]))
            self.conditions.append({"variant": "aligned", "noise_level": level, "subjects": entries})

    def _fit(self, subject: int, level: float, gain: Array) -> Artefact:
        reduced = np.full((4, gain.size), 0.05)
        arrays = {
            "r_full": reduced + gain,
            "r_reduced": reduced,
            "kernel": np.zeros((2, gain.size)),
            "lags_s": np.zeros(2),
        }
        name, channels = self.names[subject], list(self.channels[subject])

        def read(file: str) -> io.BytesIO:
            table = {"subject": name, "pieces": list(self.pieces.get((name, level), "abcd")), "channels": channels}
            table["masked"] = self.masked.get((name, level), [])
            return io.BytesIO(save(arrays) if file == "trf.safetensors" else json.dumps(table).encode())

        return Artefact(f"t{len(self.trf)}", "trf", {}, {}, read)

    def eeg(self, simulated: bool) -> list[Artefact]:
        made = []
        for name, channels in zip(self.names, self.channels, strict=True):
            table = {"subject": name, "simulated": simulated, "channels": list(channels), "positions": self.spots}
            table["removed"] = self.removed.get(name, [])
            made.append(artefact("eeg", name, {"eeg.json": json.dumps(table).encode()}))
        return made

    def run(
        self,
        folder: Path,
        missing: Sequence[dict[str, str]] = (),
        simulated: bool = False,
        alpha: float = 0.05,
        arms: Sequence[dict[str, Any]] = (),
    ) -> tuple[Result, dict[str, Any]]:
        tested = bool(self.permutations)
        config = {
            "model": {"reduced": "acoustic_plus", "regressor": "onset", "tested": tested},
            "alpha": alpha,
            "conditions": self.conditions,
            "missing": list(missing),
            "arms": list(arms),
        }
        inputs = {"trf": tuple(self.trf), "eeg": tuple(self.eeg(simulated)), "permutations": tuple(self.permutations)}
        folder.mkdir(exist_ok=True)
        [result] = run([Cell("g", "group", config, inputs, folder)], Context())
        written = folder / "group.json"
        return result, json.loads(written.read_text()) if written.exists() else {}


def made_up(n_subjects: int, effect: float, n_permutations: int = 99) -> tuple[Array, Array]:
    """An effect at the second level's Cz; delta_r is -.002 on average where there is none."""
    random = np.random.default_rng(1)
    null = -0.002 + 0.001 * random.normal(size=(n_subjects, n_permutations, 2, 3))
    gain = -0.002 + 0.001 * random.normal(size=(n_subjects, 2, 3))
    gain[:, 1, 1] += effect
    return gain, null


def test_a_real_effect_is_claimed_where_it_is(tmp_path: Path) -> None:
    result, group = Study(*made_up(8, 0.004)).run(tmp_path)
    weak, strong = group["conditions"]
    assert strong["claimed"]
    assert strong["significant_channels"] == ["Cz"]
    assert strong["p_stimulus"] == 0.01
    assert strong["p_subject"] == 1 / 2**8
    assert strong["p"] == 0.01
    assert not weak["claimed"]
    assert weak["significant_channels"] == []
    assert result.metrics["n_claimed"] == 1
    best = max(group["conditions"], key=lambda condition: condition["excess_delta_r_mean"])
    assert result.metrics["best_noise_level"] == best["noise_level"]
    assert result.metrics["delta_r_best"] == best["delta_r_mean"]
    assert result.metrics["p_min"] == 0.01
    assert group["verdict"].startswith(
        "IC adds to the listed acoustic features in 1 of 2 conditions (8 subjects; best:"
    )


def test_numbers_without_a_test_by_hand(tmp_path: Path) -> None:
    gain, null = made_up(5, 0.0)
    _, group = Study(gain, null).run(tmp_path)
    bars = np.median(gain[:, 0], axis=1)
    first = group["conditions"][0]
    assert first["delta_r_mean"] == pytest.approx(bars.mean())
    assert first["delta_r_se"] == pytest.approx(bars.std(ddof=1) / 5**0.5)
    assert first["by_subject"]["S02"] == pytest.approx(bars[1])
    assert first["by_channel"] == pytest.approx(gain[:, 0].mean(axis=0))
    assert first["delta_r_max_mean"] == pytest.approx(gain[:, 0].max(axis=1).mean())
    assert first["r_reduced_mean"] == pytest.approx(0.05)
    assert first["r_full_mean"] == pytest.approx(0.05 + gain[:, 0].mean())
    excess = np.median(gain[:, 0] - null[:, :, 0].mean(axis=1), axis=1)
    assert first["excess_delta_r_mean"] == pytest.approx(excess.mean())
    assert group["n_permutations"] == 99


def test_both_tests_equal_loops() -> None:
    gain, null = made_up(6, 0.001, 19)
    null[..., 0] *= 3
    tests = run_tests(gain, null, 0.05)
    values = np.concatenate([gain.mean(axis=0)[None], null.mean(axis=0)])
    z = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    for condition in range(2):
        for channel in range(3):
            b = sum(z[1 + k].max() >= z[0, condition, channel] for k in range(19))
            assert tests.exceeding[condition, channel] == b
            assert tests.p_stimulus[condition, channel] == (1 + b) / 20
    assert tests.p_subject is not None
    own = np.array([[null[:, :, i, j].std(axis=1) for j in range(3)] for i in range(2)])
    spread = np.sqrt((own**2).mean(axis=2))
    excess = gain - null.mean(axis=1)
    flips = [np.einsum("s,sij->ij", np.array(signs), excess) / spread for signs in product((1, -1), repeat=6)]
    for place in product(range(2), range(3)):
        expected = np.mean([flip.max() >= flips[0][place] - 1e-9 for flip in flips])
        assert tests.p_subject[place] == pytest.approx(expected)


def test_excess_finds_what_raw_delta_r_hides() -> None:
    """delta_r is below 0 throughout, and above its own null."""
    gain, null = made_up(8, 0.0)
    gain[:, 0, 2] = -0.0005
    assert (gain[:, 0, 2] < 0).all()
    tests = run_tests(gain, null, 0.05)
    assert tests.p_subject is not None
    assert tests.p_subject[0, 2] <= 0.05
    assert sign_flip_p(gain.reshape(8, -1), np.ones(6)).min() > 0.5


def test_six_subjects_reach_a_claim_among_many_channels() -> None:
    """The size of a real study: 4 variants x 6 levels x 64 channels, an effect at a few channels of one condition."""
    random = np.random.default_rng(4)
    null = 0.004 * random.normal(size=(6, 99, 24, 64))
    gain = 0.004 * random.normal(size=(6, 24, 64))
    gain[:, 5, 10:16] += 0.012
    p = run_tests(gain, null, 0.05).p
    assert p is not None
    assert (p[5, 10:16] <= 0.05).sum() >= 4
    assert p[np.arange(24) != 5].min() > 0.05


def test_both_tests_must_agree_on_one_channel(tmp_path: Path) -> None:
    """Each test finds a channel of the condition, and not the same one."""
    gain, null = np.zeros((12, 2, 3)), 0.001 * np.random.default_rng(3).normal(size=(12, 99, 2, 3))
    null -= null.mean(axis=1, keepdims=True)
    gain[:, 1, 0] = [0.003, -0.001] * 6
    gain[:, 1, 2] = 0.0016
    shared = 0.001 * np.random.default_rng(4).normal(size=(1, 99, 2))
    null[..., 2] = shared - shared.mean(axis=1, keepdims=True)
    result, group = Study(gain, null).run(tmp_path)
    condition = group["conditions"][1]
    stimulus, subject = condition["p_stimulus_by_channel"], condition["p_subject_by_channel"]
    assert stimulus[0] <= 0.05 < subject[0]
    assert subject[2] <= 0.05 < stimulus[2]
    assert condition["p_by_channel"] == [max(pair) for pair in zip(stimulus, subject, strict=True)]
    assert condition["p_stimulus"] == min(stimulus)
    assert condition["p_subject"] == min(subject)
    assert condition["p"] == min(condition["p_by_channel"]) > 0.05
    assert not condition["claimed"]
    assert condition["significant_channels"] == []
    assert result.metrics["n_claimed"] == 0


def test_nothing_is_said_first_when_nothing_is_found(tmp_path: Path) -> None:
    result, group = Study(*made_up(6, 0.0)).run(tmp_path, simulated=True)
    assert result.metrics["n_claimed"] == 0
    assert group["verdict"].startswith("Nothing is significant")
    assert group["verdict"].endswith("SIMULATED: says nothing about brains.")


def test_simulated_findings_say_so(tmp_path: Path) -> None:
    _, group = Study(*made_up(8, 0.004)).run(tmp_path, simulated=True)
    assert group["simulated"]
    assert "recovers a planted response; says nothing about brains" in group["verdict"]


def test_fewer_than_five_subjects_are_refused(tmp_path: Path) -> None:
    result, group = Study(*made_up(4, 0.01)).run(tmp_path)
    assert result.failure is None
    strong = group["conditions"][1]
    assert strong["p_stimulus"] == 0.01
    assert strong["p_subject"] is None
    assert strong["p"] is None
    assert strong["p_by_channel"] is None
    assert strong["p_subject_by_channel"] is None
    assert not strong["claimed"]
    assert strong["significant_channels"] == []
    assert "fewer than 5" in group["refused"]
    assert group["verdict"].startswith("Nothing is claimed: 4 complete subject(s)")
    assert result.metrics["p_min"] is None


def test_a_smaller_alpha_needs_more_subjects(tmp_path: Path) -> None:
    _, group = Study(*made_up(6, 0.01, 199)).run(tmp_path, alpha=0.01)
    assert "fewer than 7 can't reach p = 0.01" in group["refused"]
    assert not group["conditions"][1]["claimed"]
    (tmp_path / "7").mkdir()
    _, group = Study(*made_up(7, 0.01, 199)).run(tmp_path / "7", alpha=0.01)
    assert group["conditions"][1]["claimed"]


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


def test_untested_models_get_no_p_anywhere(tmp_path: Path) -> None:
    result, group = Study(made_up(6, 0.01)[0], None).run(tmp_path)
    assert not group["tested"]
    assert group["verdict"].startswith("Not tested")
    assert not any(key.startswith("p_") or key == "p" or "excess" in key for key in group["conditions"][0])
    assert result.metrics["p_min"] is None
    assert result.metrics["delta_r_best"] == max(c["delta_r_mean"] for c in group["conditions"])


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


def test_intervals_of_the_plotted_means(tmp_path: Path) -> None:
    """Percentiles of the means of subjects drawn with replacement: about 1.96 standard errors each side."""
    gain, null = made_up(20, 0.002)
    _, group = Study(gain, null).run(tmp_path)
    for condition in group["conditions"]:
        for name in ("delta_r", "excess_delta_r"):
            low, high = condition[f"{name}_ci"]
            mean, se = condition[f"{name}_mean"], condition[f"{name}_se"]
            assert (mean - low) / se == pytest.approx(1.92, abs=0.25)
            assert (high - mean) / se == pytest.approx(1.92, abs=0.25)
        own = list(condition["excess_by_subject"].values())
        assert np.mean(own) == pytest.approx(condition["excess_delta_r_mean"])
    (tmp_path / "one").mkdir()
    _, one = Study(*made_up(1, 0.0)).run(tmp_path / "one")
    assert one["conditions"][0]["delta_r_ci"] is None


def test_levels_are_compared_and_the_best_is_chosen(tmp_path: Path) -> None:
    _, group = Study(*made_up(8, 0.004)).run(tmp_path)
    [contrast] = group["contrasts"]
    assert (contrast["family"], contrast["higher"], contrast["claimed"]) == ("levels", ["Cz"], True)
    assert contrast["first"] == {"arm": "aligned", "levels": [0.4]}
    [chosen] = group["chosen_level"]
    assert sum(chosen["wins"].values()) == chosen["n_pieces"] == 4
    assert group["intermediate"] == []
    assert any('"intermediate is best" is not asked' in note for note in group["notes"])
    assert any("tested over subjects alone" in note for note in group["notes"])


def test_a_contrast_over_subjects_alone_is_no_claim(tmp_path: Path) -> None:
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
    monkeypatch.setattr("test_group.LEVELS", (0.0, 0.3, 0.4, 0.5, 0.6, 0.9))
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


def test_the_long_table_has_every_piece_and_channel(tmp_path: Path) -> None:
    names = [CHANNELS] * 5 + [("Pz", "Fz", "Oz")]
    gain, null = made_up(6, 0.0)
    Study(gain, null, names).run(tmp_path)
    rows = list(csv.DictReader((tmp_path / "long.csv").read_text().splitlines()))
    assert len(rows) == 6 * 2 * 4 * 3
    row = next(
        row
        for row in rows
        if (row["subject"], row["piece"], row["channel"], row["noise_level"]) == ("S02", "c", "Pz", "0.4")
    )
    assert (row["model"], row["variant"], row["repetition"]) == ("acoustic_plus/onset", "aligned", "pooled")
    assert row["in_tests"] == "true"
    assert float(row["delta_r"]) == pytest.approx(gain[1, 1, 2])
    assert float(row["r_full"]) - float(row["r_reduced"]) == float(row["delta_r"])
    assert float(row["delta_r_null_mean"]) == pytest.approx(null[1, :, 1, 2].mean())
    outside = [row for row in rows if row["channel"] in ("Cz", "Oz")]
    assert len(outside) == 6 * 2 * 4
    assert all((row["in_tests"], row["delta_r_null_mean"]) == ("false", "") for row in outside)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    study = Study(*made_up(6, 0.002))
    study.run(tmp_path / "a")
    study.run(tmp_path / "b")
    assert (tmp_path / "a/group.json").read_bytes() == (tmp_path / "b/group.json").read_bytes()
