"""The audit's part of the graph: what IC owes to audio behind the predicted frame, where the study asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.experiment import Science

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
