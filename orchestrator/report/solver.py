"""How far off the solver of IC is, against how much IC varies: what of IC's ranks may be the solver's noise.

The solver states an estimate of its error. Where the study has a solver audit, the measured error stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.report.results import Results, Score, some

MOST_OF_SD = 0.3
"""Beyond this the ranks of IC are said to be partly noise (the error's variance is over 9 % of IC's)."""


@dataclass(frozen=True)
class Precision:
    """IC of one variant, recording set and noise level, in nats per frame; None where a cell says nothing of it.

    `rmse_over_sd` is what the audit of the solver measured on some frames, over IC's SD of the same frames.
    """

    variant: str
    role: str
    noise_level: float
    ic_mean: float | None
    ic_sd: float | None
    solver_error_nats: float | None
    rmse_over_sd: float | None = None

    @property
    def share(self) -> float | None:
        """The error as a share of IC's standard deviation: measured, or else by the solver's own estimate."""
        return self.error_over_sd if self.rmse_over_sd is None else self.rmse_over_sd

    @property
    def measured(self) -> bool:
        """True where `share` was measured."""
        return self.rmse_over_sd is not None

    @property
    def error_over_sd(self) -> float | None:
        """The solver's estimate of its error over IC's standard deviation; None where IC doesn't vary."""
        if self.solver_error_nats is None or not self.ic_sd:
            return None
        return self.solver_error_nats / self.ic_sd


def precisions(results: Results) -> list[Precision]:
    """All of a study's, in the order of its variants, then by recording set and level."""
    order = {variant: i for i, variant in enumerate(results.variants)}
    scores = sorted(results.surprisal, key=lambda s: (order.get(s.variant, 0), s.role, float(s.x)))
    audits = {(score.variant, score.role, float(score.x)): score for score in results.solver_audit}
    return [_precision(score, audits.get((score.variant, score.role, float(score.x)))) for score in scores]


def _precision(score: Score, audit: Score | None) -> Precision:
    measured = _finite(audit.metrics.get("rmse_over_sd")) if audit else None
    mean, sd, error = (_finite(score.metrics.get(key)) for key in ("ic_mean", "ic_sd", "solver_error_nats"))
    return Precision(score.variant, score.role, float(score.x), mean, sd, error, measured)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def warning(found: Sequence[Precision]) -> str:
    """The sentence that names where the solver's error is a large part of what IC varies by; empty where nowhere."""
    noisy: dict[tuple[str, str], list[str]] = {}
    for item in found:
        if (item.share or 0.0) > MOST_OF_SD:
            role = f"{item.role}, measured" if item.measured else item.role
            noisy.setdefault((item.variant, role), []).append(f"{item.noise_level:g}")
    by_levels: dict[str, list[str]] = {}
    for (variant, role), levels in noisy.items():
        by_levels.setdefault(", ".join(levels), []).append(f"{variant} ({role})")
    if not by_levels:
        return ""
    where = "; ".join(f"s = {levels} of {some(names)}" for levels, names in by_levels.items())
    return (
        f"The solver's error is more than {MOST_OF_SD:g} of IC's SD at {where}: at these levels IC's ranks are partly "
        "the solver's noise: use solver exact or more probes."
    )
