"""The EEG part of the graph: subjects, encoding models, permutations, the group's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.experiment import Science
from orchestrator.graph import CellSpec
from orchestrator.planner_beside import inputs_beside, plan_beside
from orchestrator.planner_raw import plan_raw
from orchestrator.signature import canonical, sign
from orchestrator.stages import STAGES
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
    rate = eeg.preprocessing.sample_rate_hz
    return builder.add(
        "features",
        "features stimuli",
        {"sample_rate_hz": rate},
        {"corpus": made["corpus stimuli"]},
        {"role": "stimuli"},
    )


def _plan_subjects(builder: Builder, science: Science, made: Planned) -> dict[str, str]:
    eeg = science.eeg
    assert eeg is not None
    if eeg.simulation is not None:
        names = [f"S{number:02d}" for number in range(1, eeg.simulation.n_subjects + 1)]
        return {name: plan_simulated(builder, science, made, name, {"kind": "listener"}) for name in names}
    if eeg.raw is not None:
        return plan_raw(builder, eeg, made)
    cnd = eeg.cnd
    assert cnd is not None
    manifest = builder.manifest
    planned = {}
    stimulus_file = f"{cnd.path}/dataStim.mat"
    for subject in manifest.subjects[cnd.path]:
        missing = manifest.missing.get(cnd.path) or manifest.missing.get(cnd.trials or "")
        file = subject.file or {"path": f"{cnd.path}/{subject.name}.mat", "size": 0, "version": "missing"}
        config = {
            "subject": subject.name,
            "cnd": {
                "file": file["path"],
                "size": file["size"],
                "version": file["version"],
                "stimulus_file": stimulus_file,
                "stimulus_version": manifest.companions.get(stimulus_file, {}).get("version", "missing"),
                "trials_file": cnd.trials,
                "trials_version": manifest.companions.get(cnd.trials or "", {}).get("version"),
            },
            "preprocessing": eeg.preprocessing.signed(),
        }
        labels = {"subject": subject.name}
        inputs = {"corpus": made["corpus stimuli"]}
        planned[subject.name] = builder.add("eeg", f"eeg {subject.name}", config, inputs, labels, missing)
    return planned


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
    sources = {"corpus": made["corpus stimuli"], **(inputs or {})}
    if "pitch_surprisal stimuli" in made:
        sources["pitch_surprisal"] = made["pitch_surprisal stimuli"]
    return builder.add("eeg", f"eeg {subject}", config, sources, {"subject": subject})


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


def plan_group(builder: Builder, variants: Mapping[str, Science]) -> None:
    """One aggregate per model: the family of its correction is all levels and variants of one figure."""
    cells = list(builder.cells.values())
    science = next((science for science in variants.values() if science.eeg is not None), None)
    if science is None or science.eeg is None:
        builder.note("eeg, features, trf, permutations, group, canaries: left out (the study has no eeg section)")
        return
    for model in models_of(builder, science):
        name = model.name
        fits = [cell for cell in cells if cell.stage == "trf" and cell.labels["model"] == name]
        fits = [cell for cell in fits if not cell.labels["subject"].startswith("canary-")]
        blocks: dict[tuple[str, ...], list[str]] = {}
        for cell in cells:
            if cell.stage == "permutations":
                blocks.setdefault(_condition(cell), []).append(cell.signature)
        entries = [
            Fit(
                cell.labels["subject"],
                cell.labels["variant"],
                float(cell.labels["noise_level"]),
                name,
                str(cell.inputs["eeg"]),
                cell.signature,
                tuple(blocks.get(_condition(cell), ())),
            )
            for cell in fits
        ]
        config, inputs = _group_cell(model.signed(), science.eeg.alpha, entries, arms=_arms(variants))
        builder.add("group", f"group {name}", config, inputs, {"model": name, "tested": str(model.tested).lower()})


def _arms(variants: Mapping[str, Science]) -> list[dict[str, Any]]:
    """The arm of every variant whose name says its seed: variants of one arm differ in that alone."""
    found = []
    for name, science in variants.items():
        seed = f"seed={science.seed}"
        arm = " ".join(part for part in name.split(" ") if part != seed)
        if arm != name:
            found.append({"variant": name, "arm": arm, "seed": science.seed})
    return found


def _condition(cell: CellSpec) -> tuple[str, ...]:
    return tuple(cell.labels[key] for key in ("subject", "variant", "noise_level", "model"))


def _group_cell(
    model: Mapping[str, Any],
    alpha: float,
    fits: Sequence[Fit],
    missing: Sequence[Mapping[str, str]] = (),
    arms: Sequence[Mapping[str, Any]] = (),
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    trf = tuple(fit.trf for fit in fits)
    permutations = tuple(dict.fromkeys(block for fit in fits for block in fit.permutations))
    index = {signature: position for position, signature in enumerate(permutations)}
    eeg = tuple(dict.fromkeys(fit.eeg for fit in fits))
    conditions: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for position, fit in enumerate(fits):
        entry = {
            "subject": fit.subject,
            "trf": position,
            "permutations": [index[block] for block in fit.permutations],
            "eeg": eeg.index(fit.eeg),
        }
        conditions.setdefault((fit.variant, fit.noise_level), []).append(entry)
    listed = [
        {"variant": variant, "noise_level": level, "subjects": subjects}
        for (variant, level), subjects in conditions.items()
    ]
    config = {"model": dict(model), "alpha": alpha, "conditions": listed, "missing": [dict(item) for item in missing]}
    if arms:
        config["arms"] = [dict(item) for item in arms]
    return config, {"trf": trf, "permutations": permutations, "eeg": eeg}


def reduce(cell: CellSpec, failed: Mapping[str, str]) -> CellSpec | None:
    """The aggregate without the inputs that failed, naming who is missing; None when nothing is left of it."""
    if cell.stage != "group":
        return None
    trf, permutations, eeg = (tuple(cell.inputs[role]) for role in ("trf", "permutations", "eeg"))
    fits: list[Fit] = []
    missing: dict[str, str] = {}
    for condition in cell.config["conditions"]:
        for entry in condition["subjects"]:
            blocks = tuple(permutations[position] for position in entry["permutations"])
            fit = Fit(
                entry["subject"],
                condition["variant"],
                float(condition["noise_level"]),
                "",
                eeg[entry["eeg"]],
                trf[entry["trf"]],
                blocks,
            )
            gone = [failed[signature] for signature in (fit.eeg, fit.trf, *blocks) if signature in failed]
            if gone:
                missing.setdefault(f"{fit.subject} ({fit.variant} s={fit.noise_level!r})", gone[0])
            else:
                fits.append(fit)
    if not fits:
        return None
    named = [{"subject": subject, "reason": reason} for subject, reason in missing.items()]
    alpha, arms = float(cell.config["alpha"]), cell.config.get("arms", ())
    config, inputs = _group_cell(cell.config["model"], alpha, fits, _by_subject(named, fits), arms)
    signature = sign(cell.stage, STAGES[cell.stage].version, config, inputs)
    return CellSpec(cell.stage, cell.name, canonical(config), inputs, signature, cell.labels)


def _by_subject(named: Sequence[Mapping[str, str]], fits: Sequence[Fit]) -> list[dict[str, str]]:
    """One line for a subject that is missing everywhere, one for each condition otherwise."""
    present = {fit.subject for fit in fits}
    lines: dict[str, str] = {}
    for item in named:
        subject = item["subject"].split(" (", 1)[0]
        lines.setdefault(item["subject"] if subject in present else subject, item["reason"])
    return [{"subject": subject, "reason": reason} for subject, reason in lines.items()]
