"""Two groups of subjects: who is compared, what the tests find, and that they keep their level."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_group import Study

from tasks.contract import TaskError
from tasks.eeg import between
from tasks.eeg.participants import NotCompared, of_subjects, read_participants

Array = np.ndarray[Any, Any]
SUBJECTS = tuple(f"S{number + 1:02d}" for number in range(12))
VALUES = {name: "yes" if number % 2 else "no" for number, name in enumerate(SUBJECTS)}
TSV = b"participant_id\tage\tmusician\nsub-S01\t30\tyes\nsub-S02\t31\tno\nS03\t40\tn/a\n\n"


def made_up(random: np.random.Generator, n_permutations: int = 99) -> tuple[Array, Array]:
    """No effect: a share of every value is common to all subjects, as on stimuli that all of them hear."""
    shared = random.normal(size=(1, 1 + n_permutations, 2, 4))
    values = -0.002 + 0.001 * (random.normal(size=(12, 1 + n_permutations, 2, 4)) + 0.5 * shared)
    return values[:, 0], values[:, 1:]


def test_values_are_read_by_either_name_of_a_subject() -> None:
    found = read_participants("p.tsv", TSV, "musician")
    assert found == {"sub-S01": "yes", "sub-S02": "no"}
    assert of_subjects(["S01", "sub-S02", "S03", "S4"], found) == {"S01": "yes", "sub-S02": "no"}
    assert read_participants("p.csv", b"subject,group\n07,a\n", "group") == {"07": "a"}


@pytest.mark.parametrize(
    ("content", "column", "said"),
    [
        (b"name,group\nS1,a\n", "group", "a column participant_id or subject is needed"),
        (b"subject,group\n", "group", "0 row"),
        (TSV, "sex", "no column 'sex' to compare .* allowed: age, musician"),
        (b"subject,g\nS1,a\nS1,b\n", "g", "row 2 gives S1 the g b, another row a"),
        (b"subject,g\n,a\n", "g", "row 1 names no subject"),
        (b"\xff\xfe", "g", "not a csv or tsv file in UTF-8"),
    ],
)
def test_a_bad_table_is_named(content: bytes, column: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        read_participants("p.tsv", content, column)


@pytest.mark.parametrize(
    ("values", "alpha", "said"),
    [
        ({"S01": "a", "S02": "b", "S03": "c"}, 0.05, r"has 3 values \(a, b, c\).* exactly 2 are compared"),
        (dict.fromkeys(SUBJECTS, "a"), 0.05, r"has 1 values \(a\)"),
        ({}, 0.05, "has no value"),
        ({name: "a" if name < "S05" else "b" for name in SUBJECTS}, 0.05, r"4 complete .* at least 5 of each"),
        (VALUES, 0.001, r"6 and 6 subjects: no exchange of labels reaches p = 0.001 \(the least is 0.0022\)"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(values: dict[str, str], alpha: float, said: str) -> None:
    with pytest.raises(NotCompared, match=said):
        between.groups("training", values, SUBJECTS, alpha)


def test_relabelings_are_all_where_they_are_few() -> None:
    few, many = between.relabelings(5, 6), between.relabelings(10, 10)
    assert len(few) == len(np.unique(few, axis=0)) == 462
    assert len(many) == 10_001
    for weights, n_first in ((few, 5), (many, 10)):
        assert (weights[0, :n_first] > 0).all()
        assert (weights[0, n_first:] < 0).all()
        assert np.allclose(weights.sum(axis=1), 0)
        assert ((weights > 0).sum(axis=1) == n_first).all()


def test_both_tests_equal_loops() -> None:
    gain, null = made_up(np.random.default_rng(2), 19)
    gain[1::2, 1, 2] += 0.001
    null[..., 0] *= 3
    found = between.groups("musician", VALUES, SUBJECTS, 0.05)
    tests = between.run_tests(found, gain, null)
    no, yes = np.arange(0, 12, 2), np.arange(1, 12, 2)
    values = np.concatenate([gain[:, None], null], axis=1)
    differences = values[no].mean(axis=0) - values[yes].mean(axis=0)
    z = np.abs((differences - differences.mean(axis=0)) / differences.std(axis=0, ddof=1))
    excess, spread = gain - null.mean(axis=1), np.sqrt(null.var(axis=1).mean(axis=0))
    exchanged = []
    for chosen in combinations(range(12), 6):
        rest = [place for place in range(12) if place not in chosen]
        exchanged.append(np.abs(excess[list(chosen)].mean(axis=0) - excess[rest].mean(axis=0)) / spread)
    observed = np.abs(excess[no].mean(axis=0) - excess[yes].mean(axis=0)) / spread
    for place in np.ndindex(2, 4):
        assert tests.p_stimulus[place] == (1 + sum(z[1 + k].max() >= z[(0, *place)] for k in range(19))) / 20
        assert tests.p_subject[place] == pytest.approx(np.mean([e.max() >= observed[place] - 1e-9 for e in exchanged]))
    assert np.array_equal(tests.p, np.maximum(tests.p_stimulus, tests.p_subject))


def test_it_keeps_its_level_and_finds_a_difference() -> None:
    """400 data sets without a difference, though IC adds in both groups; then one of three standard deviations."""
    found = between.groups("musician", VALUES, SUBJECTS, 0.05)
    false, by_labels = 0, 0
    for seed in range(400):
        gain, null = made_up(np.random.default_rng(seed), 39)
        gain[:, 1] += 0.001
        tests = between.run_tests(found, gain, null)
        false += tests.p.min() <= 0.05
        by_labels += tests.p_subject.min() <= 0.05
    assert 8 <= by_labels <= 34, "a test at .05 rejects 20 of 400, with a standard deviation of 4.4"
    assert false <= 26
    gain, null = made_up(np.random.default_rng(1), 39)
    gain[1::2, 1, 2] += 0.004
    tests = between.run_tests(found, gain, null)
    assert tests.p[1, 2] <= 0.05
    assert (np.delete(tests.p.ravel(), 6) > 0.05).all()


def test_what_one_group_shares_on_these_stimuli_is_no_claim() -> None:
    """Members of one group answer alike to something that isn't IC: their mean differs, on other stimuli it won't."""
    random = np.random.default_rng(3)
    gain, null = made_up(random, 99)
    common = 0.004 * random.normal(size=(1, 100, 2, 4))
    common[:, 0, 1, 1] = 0.006
    gain[1::2] += common[:, 0]
    null[1::2] += common[:, 1:]
    tests = between.run_tests(between.groups("musician", VALUES, SUBJECTS, 0.05), gain, null)
    assert tests.p_subject[1, 1] <= 0.05 < tests.p_stimulus[1, 1]


def study(effect: float, n: int = 12) -> Study:
    random = np.random.default_rng(4)
    null = -0.002 + 0.001 * random.normal(size=(n, 99, 2, 3))
    gain = -0.002 + 0.001 * random.normal(size=(n, 2, 3))
    gain[1::2, 1, 1] += effect
    made = Study(gain, null)
    made.participants = {"column": "musician", "values": {name: VALUES[name] for name in made.names if name != "S12"}}
    return made


def test_the_group_stage_compares_and_names_who_has_no_value(tmp_path: Path) -> None:
    _, group = study(0.005).run(tmp_path)
    found = group["between"]
    assert found["groups"] == [{"value": "no", "n": 6}, {"value": "yes", "n": 5}]
    assert found["without_value"] == ["S12"]
    assert any("no value of musician for S12" in note for note in group["notes"])
    weak, strong = found["conditions"]
    assert (weak["claimed"], strong["claimed"]) == (False, True)
    assert strong["higher_in"] == {"no": [], "yes": ["Cz"]}
    low, high = strong["ci"]
    assert low < strong["difference"] < high
    assert strong["difference"] == pytest.approx(strong["means"][0] - strong["means"][1])
    rows = list(csv.DictReader((tmp_path / "long.csv").read_text().splitlines()))
    assert {(row["subject"], row["group"]) for row in rows} == {*VALUES.items(), ("S12", "")} - {("S12", "yes")}


def test_too_few_of_a_group_cost_nothing_else(tmp_path: Path) -> None:
    _, group = study(0.005, 9).run(tmp_path)
    assert "4 with yes: at least 5 of each" in group["between"]["refused"]
    assert group["between"]["conditions"] == []
    assert any(note.startswith("groups are not compared:") for note in group["notes"])
    assert group["contrasts"], "the rest goes on"
