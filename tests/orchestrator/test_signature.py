"""Signatures: one per meaning, and the same for ever."""

from __future__ import annotations

import math

import pytest

from orchestrator.signature import canonical_json, sign


def test_golden_signature() -> None:
    config = {"noise_level": 0.3, "n_steps": 100, "snr": math.inf, "label": "é", "none": None, "flag": True}
    assert sign("surprisal", 1, config, {"flow": "ab", "many": ("x", "y")}) == "d0a0cbc29507bc37295f61c0673b3ab5"


def test_equal_numbers_have_equal_signatures() -> None:
    assert canonical_json({"a": 4, "b": -0.0}) == canonical_json({"b": 0, "a": 4.0})
    assert canonical_json([0.1]) == "[0.1]"


def test_every_part_counts() -> None:
    plain = sign("flow", 1, {"steps": 10}, {"train": "a"})
    others = [
        sign("flow", 2, {"steps": 10}, {"train": "a"}),
        sign("latents", 1, {"steps": 10}, {"train": "a"}),
        sign("flow", 1, {"steps": 11}, {"train": "a"}),
        sign("flow", 1, {"steps": 10}, {"train": "b"}),
        sign("flow", 1, {"steps": 10}, {"validation": "a"}),
    ]
    assert len({plain, *others}) == 6


def test_key_order_does_not_count() -> None:
    assert sign("a", 1, {"x": 1, "y": 2}, {}) == sign("a", 1, {"y": 2, "x": 1}, {})


def test_true_is_not_one() -> None:
    assert canonical_json(True) != canonical_json(1)


@pytest.mark.parametrize("value", [math.nan, {"a": math.nan}, object()])
def test_what_has_no_meaning_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="signature"):
        canonical_json(value)
