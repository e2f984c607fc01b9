"""What models of EEG want beside IC: IC without context, and features of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.experiment import Science
from tasks.eeg.config import EegConfig, ModelConfig
from tasks.eeg.feature_config import FeatureFile, OwnFeature

if TYPE_CHECKING:
    from orchestrator.planner import Builder

Planned = Mapping[str, str]


def plan_beside(
    builder: Builder, variant: str, science: Science, made: Planned, models: Sequence[ModelConfig]
) -> dict[str, str]:
    """The cells that only these models ask for, by role."""
    assert science.eeg is not None
    wanted = {name for model in models for name in model.parts}
    planned = {}
    if "ic_null" in wanted:
        settings = science.surprisal.model_copy(update={"context": "none"})
        for level in settings.noise_levels:
            planned[f"ic_null stimuli {level!r}"] = builder.add(
                "surprisal",
                f"IC without context {variant} stimuli s={level!r}",
                settings.cell(level),
                {"flow": made["flow"], "latents": made["latents stimuli"]},
                {"variant": variant, "role": "ic_null", "noise_level": repr(level)},
                places=settings.places,
            )
    for name in science.eeg.trf.features:
        if name in wanted:
            planned[f"own {name}"] = _plan_own(builder, science.eeg, made, name)
    return planned


def _plan_own(builder: Builder, eeg: EegConfig, made: Planned, name: str) -> str:
    asked = eeg.trf.features[name]
    files = builder.manifest.files["features", asked.path]
    places = {file["path"].replace("\\", "/").rsplit("/", 1)[-1]: file["path"] for file in files}
    known = tuple(FeatureFile(name=own, version=file["version"]) for own, file in zip(places, files, strict=True))
    own = OwnFeature(name=name, columns=asked.columns, form=asked.form, files=known)
    return builder.add(
        "features",
        f"features {name}",
        {"sample_rate_hz": eeg.preprocessing.sample_rate_hz, "own": own.signed()},
        {"corpus": made["corpus stimuli"]},
        {"role": "stimuli", "feature": name},
        builder.manifest.missing.get(asked.path),
        places,
    )


def inputs_beside(model: ModelConfig, made: Planned, level: float) -> dict[str, str | tuple[str, ...]]:
    """Inputs of a model's cells beside those that all have."""
    found: dict[str, str | tuple[str, ...]] = {}
    if "ic_null" in model.plus:
        found["ic_null"] = made[f"ic_null stimuli {level!r}"]
    if "latent_step" in model.plus:
        found["latents"] = made["latents stimuli"]
    own = tuple(made[f"own {name}"] for name in model.parts if f"own {name}" in made)
    return {**found, "own": own} if own else found
