"""From YAML, environment and command line to an experiment; every mistake is one line that says what is allowed."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.experiment import ExecutionConfig, Experiment, Science, SweepMistake, UnknownKey

ENVIRONMENT_PREFIX = "ORCHESTRATOR_"
MISSPELT = 0.75
"""Variables with the prefix that are less like a setting than this belong to somebody else."""

SHOWN_LENGTH = 60


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


def check_exploratory(experiment: Experiment, exploratory: bool) -> None:
    """Choosing on held-out EEG has to be asked for in words, else `UsageError`."""
    needed = experiment.search is not None and experiment.search.objective == "delta_r"
    if needed and not exploratory:
        raise UsageError(
            "search.objective: delta_r chooses on held-out EEG, and tests on the same EEG are then biased; "
            "--exploratory does it and marks every result EXPLORATORY"
        )
    if exploratory and not needed:
        raise UsageError("--exploratory: only a search by delta_r needs it; remove it")


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
    """YAML that refuses a key given twice, and reads 1e-3 as the number it is in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} is given twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def _environment() -> Iterator[tuple[str, Any]]:
    known = list(ExecutionConfig.model_fields)
    for variable in sorted(os.environ):
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        near = difflib.get_close_matches(name, known, 1, MISSPELT) if variable.startswith(ENVIRONMENT_PREFIX) else []
        if near and name not in known:
            raise UsageError(f"environment {variable}: unknown key{_nearest(name, known)}")
    for name in ExecutionConfig.model_fields:
        value = os.environ.get(ENVIRONMENT_PREFIX + name.upper())
        if value is not None:
            try:
                yield f"execution.{name}", yaml.load(value, Loader=_Loader)
            except yaml.YAMLError:
                named = f"{ENVIRONMENT_PREFIX}{name.upper()}={value}"
                raise UsageError(f"environment {named}: the value is not valid YAML; quote it") from None


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{text!r}: an override has the form key=value, such as flow.steps=500")
    head = key.split(".", 1)[0]
    allowed = [*Experiment.model_fields, *Science.model_fields]
    if head not in allowed:
        raise UsageError(f"{text!r}: unknown key {head!r}{_nearest(head, allowed)}")
    full = key if head in Experiment.model_fields else f"science.{key}"
    try:
        return full, yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise UsageError(f"{text!r}: the value is not valid YAML; quote it") from None


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    place: Any = raw
    for depth, part in enumerate(path, 1):
        inner = place.get(part)
        if inner is not None and not isinstance(inner, dict):
            section = ".".join(path[:depth])
            raise UsageError(
                f"{key}: {section} is {_shown(inner)}, which has no keys below it; give {section} as a whole"
            )
        if inner is None:
            place[part] = inner = {}
        place = inner
    place[last] = value


def _leaves(raw: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(raw, Mapping) and raw:
        for key, value in raw.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, raw


def explain_science(error: ValidationError | UnknownKey, where: str) -> str:
    """What is wrong with science keys that a sweep or a search sets, in one line."""
    if isinstance(error, UnknownKey):
        return f"{where}: unknown key {error.key!r}{_nearest(error.part, error.allowed)}"
    return _explain(error, where, Science)


def _explain(error: ValidationError, path: str, model: type[BaseModel] = Experiment) -> str:
    """The first mistake in one line; how many more there are."""
    details = error.errors(include_url=False)
    first = min(details, key=lambda item: item["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SweepMistake):
        return explain_science(cause.error, f"{path}: sweep")
    if isinstance(cause, UnknownKey):
        return explain_science(cause, f"{path}: sweep") + more
    if first["type"] == "extra_forbidden":
        *above, last = first["loc"]
        return f"{path}: unknown key {where!r}{_nearest(str(last), _fields_at(above, model))}{more}"
    if first["type"] == "missing":
        return f"{path}: {where}: this key is required{more}"
    if not first["loc"]:
        said = first["msg"].removeprefix("Value error, ")
        place = path if model is Science or said.startswith("search: ") else f"{path}: sweep"
        return f"{place}: {said}{more}"
    message = _allowed(first["type"], first["msg"].removeprefix("Value error, "), _fields_at(first["loc"], model))
    value = first["input"]
    near = ""
    if first["type"] == "literal_error" and isinstance(value, str):
        near = _did_you_mean(value, _quoted(message))
    return f"{path}: {where}{_equals(value)}: {message}{near}{more}"


def _allowed(kind: str, message: str, fields: Sequence[str]) -> str:
    """What is allowed, in words for people who write YAML."""
    match kind:
        case "tuple_type" | "list_type":
            return "a list is needed, such as [a, b]"
        case "too_short":
            return "at least one value is needed"
        case "dict_type":
            return "a mapping is needed, such as {key: [value, value]}"
        case "model_type" | "model_attributes_type":
            return f"a mapping is needed, with some of the keys {', '.join(fields)}"
        case "string_type":
            return "text is needed (quote numbers and dates)"
        case "string_pattern_mismatch":
            return "up to 64 letters, digits, '.', '_' and '-' are allowed, the first one a letter or digit"
    return message[:1].lower() + message[1:]


def _equals(value: Any) -> str:
    """`` = value`` where that is short enough to help."""
    shown = _shown(value)
    return "" if (isinstance(value, dict | BaseModel) and value) or len(shown) > SHOWN_LENGTH else f" = {shown}"


def _shown(value: Any) -> str:
    """A value as YAML has it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_shown(item) for item in value)}]"
    return repr(value) if isinstance(value, str | int | float | dict) else str(value)


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
