"""The space of a search: each key with what it may be, typed by the schema of the science it belongs to."""

from __future__ import annotations

import itertools
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from orchestrator.experiment import Science, UnknownKey, with_settings
from orchestrator.reading import UsageError, explain_science
from orchestrator.search.config import Range, SearchConfig
from orchestrator.signature import canonical_json

Settings = Mapping[str, Any]
"""Values by dotted science key, as they would stand in YAML."""

DIGITS = 4
"""Significant digits of numbers that are asked for: enough to search, few enough to read and to type again."""

COUNTED = 100_000
"""Spaces of up to so many settings can be tried to the end."""


@dataclass(frozen=True)
class Dimension:
    """One key of the space; `listed` keys take a list, and get one of a single value."""

    key: str
    kind: Literal["float", "int", "choice"]
    listed: bool = False
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def numeric(self) -> bool:
        return self.kind != "choice"

    def value(self, number: float) -> Any:
        """A number that was asked for, as it stands in YAML: on the grid, within the range, with few digits."""
        if self.step is not None:
            number = self.low + round((number - self.low) / self.step) * self.step
            number = float(f"{number:.10g}")
        elif self.kind == "float":
            decimals = DIGITS - 1 - math.floor(math.log10(self.high - self.low))
            number = float(f"{number:.{DIGITS}g}") if self.log else round(number, decimals)
            number = min(max(number, self.low), self.high)
        return self.wrapped(round(number) if self.kind == "int" else number)

    def wrapped(self, value: Any) -> Any:
        return [value] if self.listed and not isinstance(value, list | tuple) else value

    def number(self, value: Any) -> float:
        """The number behind a value of a numeric key."""
        return float(value[0] if self.listed else value)

    def values(self) -> list[Any] | None:
        """All values, or None where they can't be counted."""
        if self.kind == "choice":
            return list(self.choices)
        step = self.step or (1.0 if self.kind == "int" else None)
        if step is None or (self.high - self.low) / step > COUNTED:
            return None
        return [self.value(self.low + place * step) for place in range(int((self.high - self.low) / step + 1e-9) + 1)]

    @property
    def first(self) -> Any:
        return self.choices[0] if self.kind == "choice" else self.value(self.low)

    @property
    def last(self) -> Any:
        if self.kind == "choice":
            return self.choices[-1]
        steps = 0 if self.step is None else int((self.high - self.low) / self.step + 1e-9)
        return self.value(self.high if self.step is None else self.low + steps * self.step)


def dimensions(config: SearchConfig, science: Science, where: str) -> tuple[Dimension, ...]:
    """The keys of the space, each checked against the schema with the experiment's other values.

    Raises
    ------
    UsageError
        In one line: an unknown key, a range for words, values out of bounds, a section in place of a key.
    """
    found = tuple(_dimension(key, given, f"{where}: search.space") for key, given in config.space.items())
    for one, other in itertools.permutations(config.space, 2):
        if other.startswith(one + "."):
            raise UsageError(f"{where}: search.space: {other!r} lies within {one!r}; name one of them")
    for dimension in found:
        ends = dimension.choices if dimension.kind == "choice" else (dimension.first, dimension.last)
        for value in ends:
            try:
                applied(science, {dimension.key: value})
            except ValidationError as error:
                raise UsageError(explain_science(error, f"{where}: search.space")) from None
            except UnknownKey as error:
                raise UsageError(explain_science(error, f"{where}: search.space")) from None
    return found


def applied(science: Science, settings: Settings) -> Science:
    """The science with other values at some keys; `ValidationError` where they aren't allowed."""
    return Science.model_validate(with_settings(science.model_dump(mode="json"), settings))


def every(space: Sequence[Dimension]) -> Iterator[dict[str, Any]] | None:
    """All settings of a space, in order; None where there are too many."""
    values = [dimension.values() for dimension in space]
    counted = [found for found in values if found is not None]
    if len(counted) < len(values) or math.prod(map(len, counted)) > COUNTED:
        return None
    keys = [dimension.key for dimension in space]
    return (dict(zip(keys, row, strict=True)) for row in itertools.product(*counted))


def identity(settings: Settings) -> str:
    """Equal for equal settings."""
    return canonical_json(settings)


def _dimension(key: str, given: tuple[Any, ...] | Range, where: str) -> Dimension:
    annotation = _annotation(key, where)
    listed = get_origin(annotation) is tuple
    inner = _core(get_args(annotation)[0]) if listed else annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        names = ", ".join(annotation.model_fields)
        raise UsageError(f"{where}: {key!r} is a section; name one of its keys ({names})")
    if not isinstance(given, Range):
        choices = tuple([choice] if listed and not isinstance(choice, list) else choice for choice in given)
        return Dimension(key, "choice", listed, choices=choices)
    if inner not in (int, float):
        raise UsageError(f"{where}: {key!r} is no number: give a list of choices instead of a range")
    if inner is int:
        for name in ("low", "high", "step"):
            number = getattr(given, name)
            if number is not None and number != int(number):
                raise UsageError(f"{where}: {key!r} takes whole numbers; {name} is {number:g}")
    return Dimension(key, "int" if inner is int else "float", listed, given.low, given.high, given.step, given.log)


def _annotation(key: str, where: str) -> Any:
    """What a dotted science key takes, by the schema."""
    model: Any = Science
    for part in key.split("."):
        fields = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}
        if part not in fields:
            raise UsageError(explain_science(UnknownKey(key, part, tuple(fields)), where))
        model = _core(fields[part].annotation)
    return model


def _core(annotation: Any) -> Any:
    """A type without its bounds, and without None."""
    if get_origin(annotation) is Annotated:
        return _core(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return next(_core(part) for part in get_args(annotation) if part is not type(None))
    return annotation
