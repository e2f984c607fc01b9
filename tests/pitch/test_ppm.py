"""The pitch model: a worked example, and what must hold for any sequence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract import TaskError
from tasks.ppm.interpolated import InterpolatedPpm

A, B, C = 60, 62, 64


def test_worked_example_orders_minus_1_to_2() -> None:
    # Training melody A B A B C, alphabet {A, B, C}.
    # order -1: 1/3 each.
    # order 0: A twice, B twice, C once, N = 5, D = 3:
    #   p(A) = (2 + 3 * 1/3) / 8 = 3/8, p(B) = 3/8, p(C) = (1 + 1) / 8 = 2/8.
    # order 1, after B: A once, C once, N = 2, D = 2:
    #   p(A) = (1 + 2 * 3/8) / 4 = 7/16, p(B) = (0 + 2 * 3/8) / 4 = 3/16, p(C) = (1 + 2 * 2/8) / 4 = 6/16.
    # order 2, after A B: A once, C once, N = 2, D = 2:
    #   p(A) = (1 + 2 * 7/16) / 4 = 15/32, p(B) = (2 * 3/16) / 4 = 3/32, p(C) = (1 + 2 * 6/16) / 4 = 14/32.
    model = InterpolatedPpm([[A, B, A, B, C]], {A, B, C}, order_max=2)
    np.testing.assert_allclose(model.probabilities([]), [3 / 8, 3 / 8, 2 / 8])
    np.testing.assert_allclose(model.probabilities([B]), [7 / 16, 3 / 16, 6 / 16])
    np.testing.assert_allclose(model.probabilities([C, A, B]), [15 / 32, 3 / 32, 14 / 32])
    # after A: B twice, N = 2, D = 1: p(B) = (2 + 1 * 3/8) / 3 = 19/24. The melody A B C:
    np.testing.assert_allclose(model.surprisal([A, B, C]), -np.log2([3 / 8, 19 / 24, 14 / 32]))


def test_order_bound_cuts_contexts() -> None:
    training = [[A, B, A, B, C]]
    order_1 = InterpolatedPpm(training, {A, B, C}, order_max=1)
    np.testing.assert_allclose(order_1.probabilities([A, B]), [7 / 16, 3 / 16, 6 / 16])
    order_0 = InterpolatedPpm(training, {A, B, C}, order_max=0)
    np.testing.assert_allclose(order_0.probabilities([A, B]), [3 / 8, 3 / 8, 2 / 8])


def test_contexts_do_not_reach_across_melodies() -> None:
    model = InterpolatedPpm([[A, B], [C, C]], {A, B, C}, order_max=None)
    # B ends its melody: nothing ever followed it, so order 0 stands: N = 4, D = 3.
    np.testing.assert_allclose(model.probabilities([B]), [2 / 7, 2 / 7, 3 / 7])


def test_untrained_model_is_uniform() -> None:
    np.testing.assert_allclose(InterpolatedPpm([], {A, B, C}, 3).surprisal([A, A]), np.log2([3, 3]))


def test_unseen_symbol_of_the_alphabet_has_a_probability() -> None:
    assert np.isfinite(InterpolatedPpm([[A, B]], {A, B, C}, 4).surprisal([C, C, A])).all()


def test_symbol_outside_of_the_alphabet_is_an_error() -> None:
    with pytest.raises(TaskError, match="61"):
        InterpolatedPpm([[A, B]], {A, B}, 4).surprisal([A, 61])


def brute_force(training: list[list[int]], alphabet: list[int], context: list[int], order_max: int) -> np.ndarray:
    """The formula, by counting in plain Python."""
    chances = {symbol: 1 / len(alphabet) for symbol in alphabet}
    for order in range(min(order_max, len(context)) + 1):
        suffix = context[len(context) - order :]
        found = [m[i] for m in training for i in range(order, len(m)) if m[i - order : i] == suffix]
        if not found:
            break
        distinct = len(set(found))
        chances = {s: (found.count(s) + distinct * p) / (len(found) + distinct) for s, p in chances.items()}
    return np.array([chances[symbol] for symbol in alphabet])


melodies = st.lists(st.lists(st.integers(60, 64), max_size=12), max_size=4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(training=melodies, context=st.lists(st.integers(60, 64), max_size=8), order_max=st.integers(0, 5))
def test_any_context_sums_to_one_and_equals_plain_counting(
    training: list[list[int]], context: list[int], order_max: int
) -> None:
    alphabet = list(range(60, 66))
    probabilities = InterpolatedPpm(training, alphabet, order_max).probabilities(context)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    assert (probabilities > 0).all()
    np.testing.assert_allclose(probabilities, brute_force(training, alphabet, context, order_max), rtol=1e-12)
