"""What a scientist writes: the schema of an experiment, and the variants that its sweep asks for."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from orchestrator.redaction import has_user, redact
from orchestrator.roles import Data
from orchestrator.search.config import SearchConfig
from orchestrator.stages import STAGES
from orchestrator.variant_names import NAMED_KEYS, variant_name
from tasks.autoencoder.config import AutoencoderConfig
from tasks.config import (
    CausalAuditConfig,
    Config,
    PitchConfig,
    ReconstructionConfig,
    SolverAuditConfig,
    SurprisalConfig,
)
from tasks.eeg.config import EegConfig
from tasks.flow.config import FlowConfig


class Science(Config):
    """Everything that decides results. Hashed into signatures, part by part, where it matters."""

    seed: int = Field(0, ge=0)
    data: Data
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    flow: FlowConfig = FlowConfig()
    surprisal: SurprisalConfig = SurprisalConfig()
    causal_audit: CausalAuditConfig | None = Field(None, json_schema_extra={"neutral": None})
    solver_audit: SolverAuditConfig | None = Field(None, json_schema_extra={"neutral": None})
    reconstruction: ReconstructionConfig | None = ReconstructionConfig()
    pitch: PitchConfig | None = PitchConfig()
    eeg: EegConfig | None = None

    @model_validator(mode="after")
    def _only_a_hyperplane_is_projected(self) -> Science:
        if self.flow.project and self.autoencoder.bottleneck != "layernorm":
            raise ValueError(
                f"flow.project: latents behind {self.autoencoder.bottleneck} fill all channels, and only those of "
                "autoencoder.bottleneck layernorm lie in a hyperplane; set flow.project: false, or that bottleneck"
            )
        return self

    @model_validator(mode="after")
    def _eeg_has_stimuli(self) -> Science:
        stimuli = self.data.stimuli
        if self.eeg is not None and stimuli is None:
            raise ValueError("eeg: data.stimuli says what the subjects heard; give it, or remove eeg")
        if (
            self.eeg is not None
            and self.eeg.simulation is not None
            and stimuli is not None
            and stimuli.source == "audio"
        ):
            raise ValueError(
                "eeg.simulation: simulated listeners answer to notes; data.stimuli must be chorales or midi"
            )
        if self.eeg is not None and self.eeg.simulation is not None and self.pitch is None:
            raise ValueError("pitch: null leaves nothing that simulated listeners could answer to; remove one of both")
        return self

    @model_validator(mode="after")
    def _ic_null_differs_from_ic(self) -> Science:
        asked = self.eeg is not None and any("ic_null" in model.plus for model in self.eeg.trf.models)
        if asked and self.surprisal.context == "none":
            raise ValueError(
                "eeg.trf.models: plus: ic_null is IC without context, and with surprisal.context none IC has none "
                "either; leave out one of both"
            )
        if asked and self.flow.context_dropout == 0:
            raise ValueError(
                "eeg.trf.models: plus: ic_null needs a flow that learned to do without context; set "
                "flow.context_dropout above 0, such as 0.1, or leave ic_null out"
            )
        return self


class StageRequest(Config):
    """What one process of a stage asks of a node; `custom` names resources that the node types offer."""

    cpus: float | None = Field(None, gt=0)
    gpus: float | None = Field(None, ge=0)
    custom: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _as_ray_counts(self) -> StageRequest:
        amounts = {"cpus": self.cpus or 1.0, "gpus": self.gpus or 0.0, **self.custom}
        for name, amount in amounts.items():
            if amount > 1 and amount != int(amount):
                raise ValueError(f"{name}: {amount:g} is neither a whole number nor a share of one")
        for name, amount in self.custom.items():
            if name in ("CPU", "GPU", "memory", "object_store_memory") or not name or amount <= 0:
                raise ValueError(f"custom: {name!r}: {amount:g}: labels of your own with amounts above 0 are allowed")
        return self


class ExecutionConfig(Config):
    """Where and how fast. Never hashed.

    `s3_endpoint_url` is the one place for the address of an S3 store other than AWS; without it, AWS_ENDPOINT_URL.
    """

    ledger: str = "./results"
    s3_endpoint_url: str | None = None
    tracking_uri: str | None = Field(None, repr=False)
    address: str | None = None
    cpus: int | None = Field(None, ge=1)
    gpus_per_training: float = Field(0.0, ge=0)
    cluster: str | None = None
    resources: dict[str, StageRequest] = Field(default_factory=dict)

    @field_validator("resources")
    @classmethod
    def _stages_exist(cls, resources: dict[str, StageRequest]) -> dict[str, StageRequest]:
        for name in resources:
            if name not in STAGES:
                near = difflib.get_close_matches(name, STAGES, 1, 0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"unknown stage {name!r}{hint} (allowed: {', '.join(STAGES)})")
        return resources


class Experiment(Config):
    """One study. `sweep` is a list of blocks of dotted science keys; the variants are the union of their products.

    A study with a `search` has the variants that Optuna asks for instead.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    science: Science
    sweep: tuple[dict[str, list[Any]], ...] = ()
    search: SearchConfig | None = None
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _paths_hold_no_secrets(self) -> Experiment:
        execution = self.execution
        searched = [] if self.search is None else list(self.search.space.values())
        plain = [self.science.model_dump(), self.sweep, searched, execution.ledger, execution.s3_endpoint_url]
        texts = _texts(plain)
        secret = next((text for text in texts if has_user(text)), None)
        if secret is not None:
            raise ValueError(
                f"{redact(secret)}: a path is written into the ledger, so it can't hold a password; give it in the "
                "environment (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or use an instance role"
            )
        return self

    @model_validator(mode="after")
    def _sweep_makes_variants(self) -> Experiment:
        try:
            _need_one_family(list(self.variants().values()))
        except ValidationError as error:
            raise SweepMistake(error) from None
        return self

    @model_validator(mode="after")
    def _sweep_or_search(self) -> Experiment:
        if self.search is not None and self.sweep:
            raise ValueError("search: a study has a sweep or a search; remove one of both (sweep=[] does for this run)")
        return self

    def variants(self) -> dict[str, Science]:
        """Science of every variant by its readable name, in the order of the sweep; equal variants once."""
        found: dict[str, Science] = {}
        plain = self.science.model_dump(mode="json")
        for settings in self._settings():
            science = Science.model_validate(with_settings(plain, settings))
            if science not in found.values():
                found[_name_among(found, science, settings)] = science
        return found

    def _settings(self) -> list[dict[str, Any]]:
        combinations: list[dict[str, Any]] = []
        for block in self.sweep or ({},):
            empty = [key for key, values in block.items() if not values]
            if empty:
                raise ValueError(f"{empty[0]} has no values; give at least one, or remove the key")
            combinations += [dict(zip(block, values, strict=True)) for values in itertools.product(*block.values())]
        return combinations


SHARED = ("data", "surprisal.noise_levels", "causal_audit", "solver_audit", "reconstruction", "pitch", "eeg")


def _need_one_family(variants: Sequence[Science]) -> None:
    """A variant is a trained model (in a band of EEG); all meet the same material, levels, listeners and one test."""
    first, *others = [_without_band(science) for science in variants]
    for key in SHARED:
        for other in others:
            differs = _difference(key, _at(first, key), _at(other, key))
            if differs:
                raise ValueError(
                    f"{differs} differs between variants, but they are compared on the same material by one test; "
                    "give it one value, or make a study of its own"
                )


def _without_band(science: Science) -> dict[str, Any]:
    """Without the one key of EEG in which variants may differ, eeg.preprocessing.band_hz."""
    plain = science.model_dump(mode="json")
    if plain["eeg"] is not None:
        del plain["eeg"]["preprocessing"]["band_hz"]
    return plain


def _texts(value: Any) -> Iterator[str]:
    """All texts in nested settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for item in value.values() for text in _texts(item))
    elif isinstance(value, list | tuple):
        yield from (text for item in value for text in _texts(item))


def _at(science: Mapping[str, Any], key: str) -> Any:
    value: Any = science
    for part in key.split("."):
        value = value[part]
    return value


def _difference(key: str, one: Any, other: Any) -> str:
    """The dotted key, at or below `key`, at which two values differ; empty where they agree."""
    if one == other:
        return ""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and set(one) == set(other):
        return next(found for name in one if (found := _difference(f"{key}.{name}", one[name], other[name])))
    return key


def with_settings(science: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a dumped science with other values at dotted keys; `UnknownKey` for one that leads nowhere."""
    result = dict(science)
    for key, value in settings.items():
        _put(result, key, key.split("."), value)
    return result


def _put(section: dict[str, Any], key: str, parts: list[str], value: Any, known: bool = True) -> None:
    """Set what the dotted `key` names; a section that is null, and all below it, is left for validation to judge."""
    head, *rest = parts
    if known and head not in section:
        raise UnknownKey(key, head, tuple(section))
    if not rest:
        section[head] = value
        return
    inner = section.get(head)
    if inner is not None and not isinstance(inner, Mapping):
        raise UnknownKey(key, rest[0], ())
    section[head] = dict(inner or {})
    _put(section[head], key, rest, value, known and inner is not None)


class SweepMistake(ValueError):
    """A variant of the sweep is no valid experiment."""

    def __init__(self, error: ValidationError) -> None:
        super().__init__("sweep")
        self.error = error


class UnknownKey(ValueError):
    """A dotted key that leads nowhere."""

    def __init__(self, key: str, part: str, allowed: tuple[str, ...]) -> None:
        super().__init__(key)
        self.key, self.part, self.allowed = key, part, allowed


def _name_among(taken: Mapping[str, Science], science: Science, settings: Mapping[str, Any]) -> str:
    shown = {key.rsplit(".", 1)[-1]: value for key, value in settings.items() if key not in NAMED_KEYS}
    name = variant_name(science, shown)
    if name in taken:
        differs = ", ".join(settings) or "nothing"
        raise ValueError(f"two variants would both be called {name!r} (keys swept: {differs}); use one block")
    return name
