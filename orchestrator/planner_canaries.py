"""The canaries' part of the graph: listeners whose verdict is known beforehand, never counted in a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.experiment import Science
from orchestrator.planner_beside import plan_beside
from orchestrator.planner_eeg import Planned, models_of, plan_fit, plan_simulated, without
from orchestrator.variant_names import trained_name
from tasks.eeg.config import CanariesConfig

if TYPE_CHECKING:
    from orchestrator.planner import Builder

CANARY_NOISE_LEVEL = 0.4


def plan_canaries(builder: Builder, variants: Mapping[str, Science], planned: Mapping[str, Planned]) -> None:
    """The three listeners whose verdict is known beforehand, in one named condition, under the first tested model."""
    candidates = {name: science for name, science in variants.items() if science.eeg is not None}
    if not candidates:
        return
    first = next(iter(candidates.values())).eeg
    assert first is not None
    settings = first.canaries
    if settings is None:
        builder.note("canaries: left out (eeg.canaries: null)")
        return
    variant = settings.variant or next(iter(candidates))
    if variant not in candidates:
        raise ValueError(f"eeg.canaries.variant: {variant!r} is no variant; allowed: {', '.join(candidates)}")
    science = candidates[variant]
    model = next((model for model in models_of(builder, science) if model.tested), None)
    if model is None:
        builder.note("canaries: left out (no model of eeg.trf.models is tested)")
        return
    level = _canary_level(settings, science)
    made = {
        **planned[variant],
        **plan_beside(builder, trained_name(variant, science), science, planned[variant], [model]),
    }
    fits = [
        plan_fit(builder, science, made, variant, level, model, f"canary-{kind}", eeg)
        for kind, eeg in _plan_canary_eeg(builder, science, made, settings, level).items()
    ]
    blocks = tuple(block for fit in fits for block in fit.permutations)
    listeners = [
        {
            "kind": fit.subject.removeprefix("canary-"),
            "trf": position,
            "permutations": [blocks.index(block) for block in fit.permutations],
            "eeg": position,
        }
        for position, fit in enumerate(fits)
    ]
    config = {
        "model": without(model, "tested"),
        "alpha": first.alpha,
        "variant": variant,
        "noise_level": level,
        "listeners": listeners,
    }
    inputs = {"trf": tuple(fit.trf for fit in fits), "permutations": blocks, "eeg": tuple(fit.eeg for fit in fits)}
    builder.add("canaries", "canaries", config, inputs, {"model": model.name})


def _plan_canary_eeg(
    builder: Builder, science: Science, made: Planned, settings: CanariesConfig, level: float
) -> dict[str, str]:
    listeners: dict[str, dict[str, Any]] = {
        "noise": {"kind": "noise", "n_channels": settings.n_noise_channels},
        "acoustic": {"kind": "acoustic", "n_channels": settings.n_acoustic_listeners},
        "positive": {"kind": "positive", "n_channels": 64, "snr_db": settings.positive_snr_db},
    }
    driver = {"surprisal": made[f"surprisal stimuli {level!r}"]}
    return {
        kind: plan_simulated(builder, science, made, f"canary-{kind}", listener, driver if kind == "positive" else None)
        for kind, listener in listeners.items()
    }


def _canary_level(settings: CanariesConfig, science: Science) -> float:
    levels = science.surprisal.noise_levels
    if settings.noise_level is None:
        return min(levels, key=lambda level: abs(level - CANARY_NOISE_LEVEL))
    if settings.noise_level not in levels:
        listed = ", ".join(repr(level) for level in levels)
        raise ValueError(
            f"eeg.canaries.noise_level: {settings.noise_level!r} is not among surprisal.noise_levels ({listed})"
        )
    return settings.noise_level
