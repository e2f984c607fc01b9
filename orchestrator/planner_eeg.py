"""The EEG part of the graph: subjects, encoding models, permutations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.experiment import Science
from orchestrator.planner_beside import inputs_beside, plan_beside
from orchestrator.planner_bids import plan_bids
from orchestrator.planner_cnd import cnd_stimuli, plan_cnd
from orchestrator.planner_raw import plan_raw
from orchestrator.variant_names import band_suffix, trained_name
from tasks.config import Config
from tasks.eeg.config import EegConfig, ModelConfig, SimulationConfig

if TYPE_CHECKING:
    from orchestrator.planner import Builder

Planned = Mapping[str, str]
ONE_CHANNEL_LISTENERS = ("canary-noise", "canary-acoustic")
"""Each of their channels is a listener of its own: a shared lambda would make their tests depend on each other."""

TRUE_DRIVER = "true driver"
TRUE_DRIVER_MODEL = "acoustic_plus/driver"


@dataclass(frozen=True)
class Fit:
    """One subject under one condition: its EEG, its TRF, its blocks of permutations."""

    subject: str
    variant: str
    noise_level: float
    model: str
    eeg: str
    trf: str
    permutations: tuple[str, ...]


def plan_eeg(builder: Builder, variant: str, science: Science, made: Planned) -> None:
    """Encoding models of every subject at every noise level of one variant."""
    assert science.eeg is not None
    subjects = _plan_subjects(builder, science, made)
    if science.eeg.simulation is not None:
        _plan_true_driver(builder, variant, science, made, subjects)
    models = models_of(builder, science)
    made = {**made, **plan_beside(builder, trained_name(variant, science), science, made, models)}
    for model in models:
        for level in science.surprisal.noise_levels:
            for subject, eeg in subjects.items():
                plan_fit(builder, science, made, variant, level, model, subject, eeg)


def _plan_true_driver(
    builder: Builder, variant: str, science: Science, made: Planned, subjects: Mapping[str, str]
) -> None:
    """What a perfect IC would earn: the planted pitch surprisal itself in its place. The size of the planted effect."""
    assert science.eeg is not None
    driver = TRUE_DRIVER + band_suffix(variant, science)
    for subject, eeg in subjects.items():
        labels = {"variant": driver, "subject": subject, "model": TRUE_DRIVER_MODEL, "tested": "false"}
        inputs = {
            "eeg": eeg,
            "features": _plan_features(builder, science.eeg, made),
            "corpus": made["corpus stimuli"],
            "pitch_surprisal": made["pitch_surprisal stimuli"],
        }
        config = _trf_config(science.eeg, {"reduced": "acoustic_plus", "regressor": "driver"})
        builder.add("trf", f"trf {subject} {driver}", config, inputs, labels)


def without(config: Config, *listed: str) -> dict[str, Any]:
    """What a cell holds of a config: its signed keys but those that only say which cells there are."""
    return {name: value for name, value in config.signed().items() if name not in listed}


def _trf_config(settings: EegConfig, model: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trf": without(settings.trf, "models", "features"),
        "model": dict(model),
        "sample_rate_hz": settings.preprocessing.sample_rate_hz,
    }


def models_of(builder: Builder, science: Science) -> list[ModelConfig]:
    assert science.eeg is not None
    assert science.data.stimuli is not None
    models = list(science.eeg.trf.models)
    if science.data.stimuli.source == "audio" and any(model.regressor == "onset" for model in models):
        models = [model for model in models if model.regressor != "onset"]
        said = "eeg.trf.models: regressor onset left out (the stimuli have no notes)"
        if not any(model.tested for model in models):
            models = [model.model_copy(update={"tested": "acoustic_plus" in model.parts}) for model in models]
            said += "; acoustic_plus with hold is tested instead"
            if science.eeg.permutations.null == "onset_values":
                raise ValueError(
                    "eeg.permutations.null: onset_values shuffles IC among note onsets, and the stimuli have no notes; "
                    "choose residual_shift"
                )
        builder.note(said)
    if not any(model.tested for model in models):
        builder.note("eeg.trf.models: none is tested, so there are no p-values and no claims")
    return models


def _plan_features(builder: Builder, eeg: EegConfig, made: Planned) -> str:
    config: dict[str, Any] = {"sample_rate_hz": eeg.preprocessing.sample_rate_hz}
    missing = None
    if eeg.cnd is not None and eeg.cnd.onsets == "shipped":
        config["shipped"], missing = cnd_stimuli(builder, eeg.cnd)
    inputs = {"corpus": made["corpus stimuli"]}
    return builder.add("features", "features stimuli", config, inputs, {"role": "stimuli"}, missing)


def _plan_subjects(builder: Builder, science: Science, made: Planned) -> dict[str, str]:
    eeg = science.eeg
    assert eeg is not None
    if eeg.simulation is not None:
        names = [f"S{number:02d}" for number in range(1, eeg.simulation.n_subjects + 1)]
        return {name: plan_simulated(builder, science, made, name, {"kind": "listener"}) for name in names}
    if eeg.raw is not None:
        return plan_raw(builder, eeg, made)
    if eeg.bids is not None:
        return plan_bids(builder, eeg, made)
    return plan_cnd(builder, eeg, made)


def plan_simulated(
    builder: Builder,
    science: Science,
    made: Planned,
    subject: str,
    listener: Mapping[str, Any],
    inputs: Mapping[str, str] | None = None,
) -> str:
    assert science.eeg is not None
    simulation = science.eeg.simulation or SimulationConfig()
    config = {
        "seed": science.data.seed,
        "subject": subject,
        **listener,
        "simulation": without(simulation, "n_subjects"),
        "preprocessing": science.eeg.preprocessing.model_copy(update={"saturated_share": None}).signed(),
    }
    missing = None
    if science.eeg.cnd is not None and science.eeg.cnd.onsets == "shipped":
        config["shipped"], missing = cnd_stimuli(builder, science.eeg.cnd)
    sources = {"corpus": made["corpus stimuli"], **(inputs or {})}
    if "pitch_surprisal stimuli" in made:
        sources["pitch_surprisal"] = made["pitch_surprisal stimuli"]
    return builder.add("eeg", f"eeg {subject}", config, sources, {"subject": subject}, missing)


def plan_fit(
    builder: Builder,
    science: Science,
    made: Planned,
    variant: str,
    level: float,
    model: ModelConfig,
    subject: str,
    eeg: str,
) -> Fit:
    settings = science.eeg
    assert settings is not None
    config = _trf_config(settings, without(model, "tested"))
    if subject in ONE_CHANNEL_LISTENERS:
        config["lambda_per"] = "channel"
    inputs: dict[str, str | tuple[str, ...]] = {
        "eeg": eeg,
        "features": _plan_features(builder, settings, made),
        "corpus": made["corpus stimuli"],
        "surprisal": made[f"surprisal stimuli {level!r}"],
    }
    inputs |= inputs_beside(model, made, level)
    labels = {
        "variant": variant,
        "noise_level": repr(level),
        "subject": subject,
        "model": model.name,
        "tested": "true" if model.tested else "false",
    }
    if (trained := trained_name(variant, science)) != variant:
        labels["trained"] = trained
    title = f"{subject} {variant} s={level!r} {model.name}"
    fitted = builder.add("trf", f"trf {title}", config, inputs, labels)
    blocks = []
    for first in range(0, settings.permutations.n if model.tested else 0, settings.permutations.block):
        null = {
            **config,
            "first": first,
            "count": settings.permutations.block,
            "seed": science.data.seed,
            **without(settings.permutations, "n", "block"),
        }
        block = {**labels, "block": str(first)}
        blocks.append(builder.add("permutations", f"permutations {first}.. {title}", null, inputs, block))
    return Fit(subject, variant, level, model.name, eeg, fitted, tuple(blocks))
