"""From YAML, environment and command line to an experiment; every mistake is one line that says what is allowed."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.experiment import ExecutionConfig, Experiment, Science, UnknownKey

ENVIRONMENT_PREFIX = "ORCHESTRATOR_"


class UsageError(Exception):
    """A mistake in the command, the YAML or an override: exit code 2."""


@dataclass(frozen=True)
class Loaded:
    """An experiment and, for every key that was given, where its value came from."""

    experiment: Experiment
    origins: Mapping[str, str]


def load_experiment(path: str, overrides: Sequence[str] = ()) -> Loaded:
    """Read an experiment. Precedence: command line, environment, YAML, default.

    Raises
    ------
    UsageError
        In one line: the key, its value, what is allowed, and the nearest spelling.
    """
    raw = _read_yaml(path)
    origins = {key: path for key, _ in _leaves(raw)}
    for key, value in _environment():
        _set(raw, key, value)
        origins[key] = f"environment {ENVIRONMENT_PREFIX}{key.rpartition('.')[2].upper()}"
    for text in overrides:
        key, value = _override(text)
        _set(raw, key, value)
        origins[key] = "command line"
    try:
        return Loaded(Experiment.model_validate(raw), origins)
    except ValidationError as error:
        raise UsageError(_explain(error, path)) from None
    except UnknownKey as error:
        raise UsageError(f"{path}: sweep: unknown key {error.key!r}{_nearest(error.part, error.allowed)}") from None


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        near = difflib.get_close_matches(path, [str(p) for p in Path("experiments").glob("*.yaml")], 1, 0.3)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{path}: no such experiment file{hint}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: an experiment is a mapping with the keys {', '.join(Experiment.model_fields)}")
    return content


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} is given twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _environment() -> Iterator[tuple[str, Any]]:
    for name in ExecutionConfig.model_fields:
        value = os.environ.get(ENVIRONMENT_PREFIX + name.upper())
        if value is not None:
            yield f"execution.{name}", yaml.safe_load(value)


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{text!r}: an override has the form key=value, such as surprisal.n_steps=50")
    head = key.split(".", 1)[0]
    full = key if head in Experiment.model_fields else f"science.{key}"
    try:
        return full, yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"{text!r}: the value is not valid YAML; quote it") from None


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    place: Any = raw
    for part in path:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    place[last] = value


def _leaves(raw: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(raw, Mapping) and raw:
        for key, value in raw.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, raw


def _explain(error: ValidationError, path: str) -> str:
    """The first mistake in one line; how many more there are."""
    details = error.errors(include_url=False)
    first = min(details, key=lambda item: item["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ValidationError):
        return _explain(cause, f"{path}: sweep") + more
    if isinstance(cause, UnknownKey):
        return f"{path}: sweep: unknown key {cause.key!r}{_nearest(cause.part, cause.allowed)}{more}"
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(first["loc"][:-1], Science if path.endswith(": sweep") else Experiment)
        return f"{path}: unknown key {where!r}{_nearest(str(first['loc'][-1]), allowed)}{more}"
    if first["type"] == "missing":
        return f"{path}: {where}: this key is required{more}"
    message = first["msg"].removeprefix("Value error, ")
    value = first["input"]
    shown = "" if isinstance(value, dict | list | BaseModel) else f" = {value!r}"
    near = ""
    if first["type"] == "literal_error" and isinstance(value, str):
        near = _did_you_mean(value, _quoted(message))
    return f"{path}: {where}{shown}: {message[:1].lower() + message[1:]}{near}{more}"


def _quoted(message: str) -> list[str]:
    return message.split("'")[1::2]


def _nearest(part: str, allowed: Sequence[str]) -> str:
    if not allowed:
        return "; it has no keys below it"
    return f"{_did_you_mean(part, allowed)} (allowed: {', '.join(allowed)})"


def _did_you_mean(word: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, allowed, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _fields_at(location: Sequence[int | str], model: type[BaseModel]) -> tuple[str, ...]:
    for part in location:
        field = model.model_fields.get(str(part))
        inner = _model_in(field.annotation) if field is not None else None
        if inner is None:
            continue
        model = inner
    return tuple(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
