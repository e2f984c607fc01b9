"""Canonical JSON and the 128-bit signature of what made a result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

SHORT = 12


def canonical(value: Any) -> Any:
    """JSON-ready copy: numbers with an integral value become integers' floats by one rule, infinity becomes ``"inf"``.

    Raises
    ------
    ValueError
        For NaN, and for types that JSON doesn't know.
    """
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    raise ValueError(f"{type(value).__name__} cannot be part of a signature")


def _number(value: int | float) -> int | float | str:
    if isinstance(value, int):
        return value
    if math.isnan(value):
        raise ValueError("NaN cannot be part of a signature")
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def canonical_json(value: Any) -> str:
    """One text per meaning: sorted keys, no spaces, floats by repr, 4.0 as 4."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sign(stage: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """The 32 hex digits that name a cell: BLAKE2b-128 of its stage, version, config and input signatures."""
    text = canonical_json({"stage": stage, "version": version, "config": config, "inputs": inputs})
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
