"""The `search:` section of an experiment: what is searched, by what, over which keys."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tasks.config import Config

Over = Literal["variants", "autoencoder_base", "autoencoder", "flow"]
ObjectiveName = Literal["pitch_rho", "log_spectral_distance", "delta_r"]
RANGE_KEYS = ("low", "high", "log", "step")


class Range(Config):
    """Numbers from `low` to `high`, both included; `log` draws them by their logarithm, `step` keeps them on a grid."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


class SearchConfig(Config):
    """A search by Optuna over science keys; `n_trials` and `concurrent` may change while it goes on.

    `over` is ``variants``, whole variants judged by `objective`, or one training stage, judged by its validation loss.
    `space` maps dotted science keys to a list of choices or to a range.
    """

    over: Over = "variants"
    sampler: Literal["tpe", "random"] = "tpe"
    n_trials: int = Field(20, ge=1)
    concurrent: int = Field(2, ge=1)
    seed: int = Field(0, ge=0)
    objective: ObjectiveName | None = None
    space: dict[str, tuple[Any, ...] | Range] = Field(min_length=1)

    @field_validator("space", mode="before")
    @classmethod
    def _choices_or_ranges(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        return {str(key): _choices_or_range(str(key), value) for key, value in raw.items()}

    @model_validator(mode="after")
    def _a_stage_has_its_loss(self) -> SearchConfig:
        if self.over != "variants" and self.objective is not None:
            raise ValueError(f"objective: a search over {self.over} is judged by its validation loss; remove the key")
        return self


def _choices_or_range(key: str, value: Any) -> tuple[Any, ...] | Range:
    if isinstance(value, Range):
        return value
    if isinstance(value, list | tuple):
        return _choices(key, value)
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: a list of choices or a range is needed, such as {{low: 0.0, high: 1.0}}")
    for name in value:
        if name not in RANGE_KEYS:
            near = difflib.get_close_matches(str(name), RANGE_KEYS, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{key}: unknown key {name!r}{hint} (allowed: {', '.join(RANGE_KEYS)})")
    return _range(key, value)


def _choices(key: str, values: list[Any] | tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) < 2:
        raise ValueError(f"{key}: a search needs at least two choices; give one value in science instead")
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise ValueError(f"{key}: {twice!r} is given twice")
    return tuple(values)


def _range(key: str, value: Mapping[str, Any]) -> Range:
    numbers = {name: value[name] for name in ("low", "high", "step") if value.get(name) is not None}
    for name in ("low", "high"):
        if name not in numbers:
            raise ValueError(f"{key}: a range needs low and high; {name} is missing")
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"{key}: {name} = {number!r}: a finite number is needed")
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"{key}: log = {log!r}: true or false is needed")
    low, high, step = float(numbers["low"]), float(numbers["high"]), numbers.get("step")
    if low >= high:
        raise ValueError(f"{key}: low {low:g} is not below high {high:g}")
    if log and (low <= 0 or step is not None):
        raise ValueError(f"{key}: log needs a low above 0, and no step")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"{key}: step {step:g} does not fit between {low:g} and {high:g}")
    return Range(low=low, high=high, log=log, step=None if step is None else float(step))
