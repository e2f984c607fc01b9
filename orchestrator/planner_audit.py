"""The audits' part of the graph: what IC owes to audio behind the predicted frame, and how exact it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.experiment import Science
from tasks.config import ProbeFile

if TYPE_CHECKING:
    from orchestrator.planner import Builder


def plan_audit(builder: Builder, variant: str, science: Science, roles: Sequence[str], made: Mapping[str, str]) -> None:
    """One cell per recording set that gets IC and noise level of one variant."""
    if science.causal_audit is None:
        builder.note("causal_audit: left out (causal_audit: null), so nothing is said about IC from audio to come")
        return
    settings = science.surprisal
    if (settings.definition, settings.context) != ("expectation", "transformed"):
        builder.note(
            f"causal_audit: left out for {variant} (only definition expectation in its transformed context is audited, "
            f"and this is {settings.definition}, {settings.context})"
        )
        return
    for role in roles:
        inputs = {
            "flow": made["flow"],
            "autoencoder": made["autoencoder"],
            "latents": made[f"latents {role}"],
            "corpus": made[f"corpus {role}"],
        }
        for level in science.surprisal.noise_levels:
            config = {
                "role": role,
                "seed": science.data.seed,
                "audit": science.causal_audit.signed(),
                "surprisal": science.surprisal.cell(level),
            }
            labels = {"variant": variant, "role": role, "noise_level": repr(level)}
            builder.add("causal_audit", f"causal audit {variant} {role} s={level!r}", config, inputs, labels)


def plan_solver_audit(
    builder: Builder, variant: str, science: Science, roles: Sequence[str], made: Mapping[str, str]
) -> None:
    """One cell per recording set that gets IC and noise level of one variant."""
    audit, settings = science.solver_audit, science.surprisal
    if audit is None:
        builder.note("solver_audit: left out (solver_audit: null), so the error and reliability of IC aren't measured")
        return
    if isinstance(settings.probes, ProbeFile):
        builder.note(f"solver_audit: left out for {variant} (its probes are given, and there is one set of them)")
        return
    for role in roles:
        inputs = {"flow": made["flow"], "latents": made[f"latents {role}"]}
        for level in settings.noise_levels:
            config = {
                "role": role,
                "seed": science.data.seed,
                "frames_per_recording": audit.frames_per_recording,
                "surprisal": settings.cell(level),
                "definitions": audit.compared(settings, level),
            }
            labels = {"variant": variant, "role": role, "noise_level": repr(level)}
            builder.add("solver_audit", f"solver audit {variant} {role} s={level!r}", config, inputs, labels)
