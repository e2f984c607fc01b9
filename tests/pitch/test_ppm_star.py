"""PPM* by hand, its suffix tree against plain counting, and IDyOM's own numbers."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract import TaskError
from tasks.ppm.idyom import Melody, PitchModel
from tasks.ppm.reference import COLUMNS, MEMORIES, agreement, read_reference, score_fold
from tasks.ppm.star import PpmStar, combine, entropy_bits
from tasks.ppm.suffix_tree import START, Place, SuffixTree
from tasks.ppm.viewpoints import tonic_of, value

DATA = Path(os.environ.get("IDYOM_DATA") or Path(__file__).parents[3] / "shared/data")
REFERENCE = DATA / "idyom/chorale_sopranos_cpitch.csv.gz"

A, B, C = 0, 1, 2


def at(tree: SuffixTree, context: list[int]) -> Place:
    place = START
    for symbol in context:
        place = tree.follow(place, symbol)
    return place


def plain(sequences: list[list[int]], context: list[int]) -> dict[int, int]:
    """How often each symbol followed the context, by looking at every place."""
    n = len(context)
    return dict(Counter(s[i] for s in sequences for i in range(n, len(s)) if s[i - n : i] == context))


sequences_of_three = st.lists(st.lists(st.integers(0, 2), max_size=14), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(sequences=sequences_of_three)
def test_every_context_has_the_counts_of_plain_counting(sequences: list[list[int]]) -> None:
    tree = SuffixTree()
    for sequence in sequences:
        tree.learn(sequence)
    for sequence in sequences:
        for end in range(len(sequence) + 1):
            for start in range(end + 1):
                place = at(tree, sequence[start:end])
                assert tree.order(place) == end - start
                assert tree.followers(place) == plain(sequences, sequence[start:end])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(sequences=sequences_of_three)
def test_counts_are_right_while_a_sequence_is_learnt(sequences: list[list[int]]) -> None:
    tree = SuffixTree()
    *before, last = sequences
    for sequence in before:
        tree.learn(sequence)
    place = START
    for length, symbol in enumerate(last, start=1):
        place = here = tree.grow(place, symbol)
        known = [*before, last[:length]]
        while here != START:
            context = last[length - tree.order(here) : length]
            assert tree.followers(here) == plain(known, context)
            here = tree.shorter(here)
        assert tree.followers(START) == plain(known, [])


def test_news_are_counted_at_the_longest_known_context_alone() -> None:
    tree = SuffixTree()
    tree.learn([A, B, A, B])
    assert tree.followers(START) == {A: 2, B: 2}
    # the second A was new to every context but the empty one, the second B was no news there: AB had been heard
    assert tree.followers(START, news=True) == {A: 2, B: 1}


def test_what_followed_longer_contexts_is_left_out_of_the_denominator_alone() -> None:
    model = PpmStar("C")
    model.tree.learn([A, B, A, C])
    # after A: B and C once each, w = 2/4. Then the empty context without B and C: N = 2, t = 3, w = 2/5, over which
    # B and C still share. Order -1 is 1 / (3 + 1 - 3).
    raw = np.array([1 / 2 * 2 / 5 * 2 / 2, 1 / 4 + 1 / 2 * 2 / 5 * 1 / 2, 1 / 4 + 1 / 2 * 2 / 5 * 1 / 2]) + 3 / 10
    np.testing.assert_allclose(model.predict(at(model.tree, [A]), [A, B, C]), raw / raw.sum(), rtol=1e-12)


def test_prediction_starts_at_the_shortest_deterministic_context() -> None:
    model = PpmStar("C")
    model.tree.learn([A, B, C, B, C])
    place = at(model.tree, [A, B])
    assert model.tree.order(place) == 2
    # AB was followed by C once, B by C twice and by nothing else: B it is, w = 2/3; then without C 3/6.
    np.testing.assert_allclose(model.predict(place, [A, B, C]), np.array([4, 5, 17]) / 26, rtol=1e-12)
    bound = PpmStar("C", order_max=2, tree=model.tree)
    # with a bound the longest context within it, w = 1/2 at AB, then B without C has nothing to say
    raw = np.array([1 / 2 * 1 / 2 / 3, 1 / 2 * 1 / 2 * 2 / 3, 1 / 2 + 1 / 2 * 1 / 2 * 2 / 3]) + 1 / 4
    np.testing.assert_allclose(bound.predict(place, [A, B, C]), raw / raw.sum(), rtol=1e-12)


def test_an_order_bound_of_zero_leaves_counts() -> None:
    model = PpmStar("C", order_max=0)
    model.tree.learn([A, B, A, A])
    raw = np.array([4 / 6 * 3 / 4, 4 / 6 * 1 / 4, 0]) + 2 / 6 / 2
    np.testing.assert_allclose(model.predict(at(model.tree, [A]), [A, B, C]), raw / raw.sum(), rtol=1e-12)


def test_escape_x_trusts_by_what_occurred_once() -> None:
    model = PpmStar("X", update_exclusion=True)
    place = START
    for symbol in (A, A, B):
        place = model.tree.grow(place, symbol)
    assert place == START  # nothing has followed B. A twice, B once: w = 3 / (3 + 1 + 1)
    raw = np.array([3 / 5 * 2 / 3, 3 / 5 / 3, 0]) + 2 / 5 / (3 + 1 - 2)
    np.testing.assert_allclose(model.predict(START, [A, B, C]), raw / raw.sum(), rtol=1e-12)


def test_update_exclusion_is_off_where_a_shorter_context_was_chosen() -> None:
    model = PpmStar("C", update_exclusion=True)
    for sequence in ([B, C], [A, B, C], [A, B, C]):
        model.tree.learn(sequence)
    tree = model.tree
    assert tree.followers(at(tree, [B])) == {C: 3}
    assert tree.followers(at(tree, [B]), news=True) == {C: 2}
    assert tree.followers(START, news=True) == {A: 2, B: 2, C: 1}
    # after AB prediction starts at B, with full counts: w = 3/4. Below it with news: without C, w = 4 / (4 + 3).
    raw = np.array([2 / 4, 2 / 4, 1 / 4]) * 1 / 4 * 4 / 7 + 1 / 4 * 3 / 7
    raw[C] += 3 / 4
    np.testing.assert_allclose(model.predict(at(tree, [A, B]), [A, B, C]), raw / raw.sum(), rtol=1e-12)


def test_symbols_that_are_not_possible_now_have_no_part() -> None:
    model = PpmStar("C")
    model.tree.learn([A, B, A, C])
    only = model.predict(at(model.tree, [A]), [A, B])
    raw = np.array([1 / 2 * 2 / 4 * 2 / 2, 1 / 2 + 1 / 2 * 2 / 4 * 1 / 2]) + 1 / 4
    np.testing.assert_allclose(only, raw / raw.sum(), rtol=1e-12)


def test_the_more_certain_model_weighs_more() -> None:
    sure, unsure = np.array([0.9, 0.05, 0.05]), np.array([0.2, 0.4, 0.4])
    alike = np.sqrt(sure * unsure)
    np.testing.assert_allclose(combine((sure, unsure), 0), alike / alike.sum(), rtol=1e-12)
    weights = np.array([entropy_bits(sure), entropy_bits(unsure)]) ** -7.0
    expected = sure ** (weights[0] / weights.sum()) * unsure ** (weights[1] / weights.sum())
    np.testing.assert_allclose(combine((sure, unsure), 7), expected / expected.sum(), rtol=1e-3)
    assert combine((sure, unsure), 7)[0] > 0.88
    np.testing.assert_array_equal(combine((np.ones(1), np.ones(1)), 7), [1.0])


# Melodies

SCALE = [60, 62, 64, 65, 67, 65, 64, 62, 60]
WIDE = range(30, 100)


def test_a_long_term_model_learns_from_a_melody_only_with_a_plus() -> None:
    melody = Melody([60, 61, 63, 60, 61, 63, 60, 61, 63])
    fixed, growing = (PitchModel([Melody(SCALE)], WIDE, memory) for memory in ("ltm", "ltm+"))
    assert growing.score(melody).bits[-3:].mean() < fixed.score(melody).bits[-3:].mean() - 2
    np.testing.assert_array_equal(growing.score(melody).bits, growing.score(melody).bits)
    first = growing.score(melody, keep=True).bits
    assert growing.score(melody).bits.mean() < first.mean() - 1


def test_intervals_are_the_same_in_any_transposition() -> None:
    model = PitchModel([Melody(SCALE)], WIDE, "both", "cpint")
    low, high = (model.score(Melody([pitch + by for pitch in SCALE])) for by in (-3, 5))
    np.testing.assert_allclose(low.bits, high.bits, rtol=1e-12)
    assert low.bits[0] == pytest.approx(np.log2(len(WIDE)))
    assert low.entropy_bits[0] == pytest.approx(np.log2(len(WIDE)))


def test_scale_degrees_know_the_tonic() -> None:
    model = PitchModel([Melody(SCALE, tonic=0)], WIDE, "ltm", "cpintfref x cpint")
    moved = [pitch + 2 for pitch in SCALE]
    at_home, astray = (model.score(Melody(moved, tonic)).bits[1:].mean() for tonic in (2, 0))
    assert at_home < astray - 1
    assert value("cpintfref x cpint", 67, 65, 2) == (5, 2)
    assert value("cpintfref x cpint", 67, None, 2) is None


def test_the_tonic_of_a_melody() -> None:
    assert tonic_of([60, 62, 64, 65, 67, 69, 71, 72, 67, 64, 60]) == 0
    assert tonic_of([69, 71, 72, 74, 76, 77, 80, 81, 76, 72, 69]) == 9
    assert tonic_of([60, 66], [1.0, 0.0]) != tonic_of([60, 66], [0.0, 1.0])
    assert tonic_of([]) == 0


def test_a_pitch_outside_of_the_alphabet_is_refused() -> None:
    with pytest.raises(TaskError, match=r"pitch 61 is outside .* of 2 pitches"):
        PitchModel([], [60, 62], "stm").score(Melody([60, 61]))


# IDyOM

PITCHES = [*range(60, 87), 53, 57, 88]
"""All 30 that the chorale sopranos have."""
IDYOM_1_7 = {
    "bwv114_7": (
        [70, 70, 67, 69, 70, 72, 74, 72, 72, 70, 70, 69],
        [4.90689, 1.49185, 5.49185, 6.19967, 1.77557, 6.66613, 6.13955, 3.42084, 3.07223, 2.6368, 1.75743, 4.63227],
    ),
    "bwv145_5": (
        [66, 66, 66, 73, 75, 76, 75, 73, 71, 73, 75, 77],
        [4.90689, 1.49185, 1.49185, 6.49185, 6.19967, 6.07325, 3.04016, 3.58496, 7.42417, 2.43781, 1.85161, 7.64706],
    ),
}


@pytest.mark.parametrize(("pitches", "bits"), IDYOM_1_7.values(), ids=IDYOM_1_7)
def test_the_short_term_model_has_the_bits_of_idyom(pitches: list[int], bits: list[float]) -> None:
    np.testing.assert_allclose(PitchModel([], PITCHES, "stm").score(Melody(pitches)).bits, bits, atol=2e-5)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the output of IDyOM is not on this machine")
@pytest.mark.parametrize("column", COLUMNS)
def test_one_fold_of_the_chorales_has_the_bits_of_idyom(column: str) -> None:
    scored = score_fold(read_reference(REFERENCE), 0, MEMORIES[column])
    r, ratio = agreement(scored, column)
    assert r > 0.999999
    assert ratio == pytest.approx(1, abs=1e-5)
    for melody, own in scored:
        np.testing.assert_allclose(own.bits, melody.bits[column], atol=2e-4)


def test_a_table_that_is_not_idyoms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("melody,fold\na,0\n")
    with pytest.raises(TaskError, match=r"x\.csv: not a table of IDyOM's results"):
        read_reference(tmp_path / "x.csv")
