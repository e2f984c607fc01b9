"""What a scientist writes: the schema of an experiment, and the variants that its sweep asks for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from tasks.audio.config import DataSet, SplitConfig
from tasks.autoencoder.config import AutoencoderConfig
from tasks.config import Config, PitchConfig, ReconstructionConfig, SurprisalConfig
from tasks.eeg.config import EegConfig
from tasks.flow.config import FlowConfig

ROLES = ("train", "validation", "reconstruction", "melodies", "stimuli")
SHORT_NOISE = {"none": "none", "decoder": "D", "encoder+decoder": "E+D"}
NAMED_KEYS = ("autoencoder.bottleneck", "autoencoder.latent_noise.applied_to", "autoencoder.latent_noise.logit_mean")


class Data(Config):
    """The recordings of each role. `path` serves every role that needs a folder and names none of its own.

    `seed` decides splits, renderings, simulated listeners and permutations; models draw from the study's own seed, so
    that several seeds of one model hear the same music and meet the same listeners.
    """

    seed: int = Field(0, ge=0)
    path: str | None = None
    train: DataSet
    validation: DataSet
    reconstruction: DataSet | None = None
    melodies: DataSet | None = None
    stimuli: DataSet | None = None
    split: SplitConfig = SplitConfig()
    allow_overlap: bool = False

    @model_validator(mode="before")
    @classmethod
    def _shared_path(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not raw.get("path"):
            return raw
        filled = dict(raw)
        for role in ROLES:
            entry = filled.get(role)
            if isinstance(entry, Mapping) and entry.get("source") in ("audio", "midi") and not entry.get("path"):
                filled[role] = {**entry, "path": raw["path"]}
        return filled

    @model_validator(mode="after")
    def _train_is_held_out(self) -> Data:
        for role in ROLES[1:]:
            dataset = self.of(role)
            if dataset is not None and not self.allow_overlap and _share_material(self.train, dataset):
                raise ValueError(
                    f"{role}: it shares recordings with train (same source, split {dataset.split!r}); choose the split "
                    "dev or test for it and train for training, or set allow_overlap: true, which the report stamps"
                )
        return self

    def of(self, role: str) -> DataSet | None:
        """The data set of a role, or None where the study has none."""
        assert role in ROLES, role
        found = getattr(self, role)
        assert found is None or isinstance(found, DataSet)
        return found


def _share_material(train: DataSet, other: DataSet) -> bool:
    if (train.source, train.path) != (other.source, other.path):
        return False
    return train.split_by != other.split_by or "all" in (train.split, other.split) or train.split == other.split


class Science(Config):
    """Everything that decides results. Hashed into signatures, part by part, where it matters."""

    seed: int = Field(0, ge=0)
    data: Data
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    flow: FlowConfig = FlowConfig()
    surprisal: SurprisalConfig = SurprisalConfig()
    reconstruction: ReconstructionConfig | None = ReconstructionConfig()
    pitch: PitchConfig | None = PitchConfig()
    eeg: EegConfig | None = None

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
        return self


class ExecutionConfig(Config):
    """Where and how fast. Never hashed."""

    ledger: str = "./results"
    tracking_uri: str | None = None
    address: str | None = None
    cpus: int | None = Field(None, ge=1)
    gpus_per_training: float = Field(0.0, ge=0)


class Experiment(Config):
    """One study. `sweep` is a list of blocks of dotted science keys; the variants are the union of their products."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    science: Science
    sweep: tuple[dict[str, list[Any]], ...] = ()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _sweep_makes_variants(self) -> Experiment:
        self.variants()
        return self

    def variants(self) -> dict[str, Science]:
        """Science of every variant by its readable name, in the order of the sweep; equal variants once."""
        found: dict[str, Science] = {}
        plain = self.science.model_dump(mode="json")
        for settings in self._settings():
            science = Science.model_validate(_with(plain, settings))
            if science not in found.values():
                found[_variant_name(science, settings, found)] = science
        return found

    def _settings(self) -> list[dict[str, Any]]:
        combinations: list[dict[str, Any]] = []
        for block in self.sweep or ({},):
            empty = [key for key, values in block.items() if not values]
            if empty:
                raise ValueError(f"sweep: {empty[0]} has no values; give at least one, or remove the key")
            combinations += [dict(zip(block, values, strict=True)) for values in itertools.product(*block.values())]
        return combinations


def _with(science: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(science)
    for key, value in settings.items():
        head, _, rest = key.partition(".")
        if head not in result:
            raise UnknownKey(key, head, tuple(result))
        if not rest:
            result[head] = value
        elif isinstance(result[head], Mapping):
            result[head] = _with(result[head], {rest: value})
        else:
            raise UnknownKey(key, rest, ())
    return result


class UnknownKey(ValueError):
    """A dotted key that leads nowhere."""

    def __init__(self, key: str, part: str, allowed: tuple[str, ...]) -> None:
        super().__init__(key)
        self.key, self.part, self.allowed = key, part, allowed


def _variant_name(science: Science, settings: Mapping[str, Any], taken: Mapping[str, Science]) -> str:
    noise = science.autoencoder.latent_noise
    parts = [science.autoencoder.bottleneck, SHORT_NOISE[noise.applied_to]]
    if noise.applied_to != "none":
        parts.append(f"m={noise.logit_mean!r}")
    parts += [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in settings.items() if key not in NAMED_KEYS]
    name = " ".join(parts)
    if name in taken:
        differs = ", ".join(settings) or "nothing"
        raise ValueError(f"sweep: two variants would both be called {name!r} (keys swept: {differs}); use one block")
    return name
