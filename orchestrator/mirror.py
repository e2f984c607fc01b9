"""What MLflow shows of a study: names, tags, parameters and curves of its runs. Knows no MLflow."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.graph import CellSpec
from orchestrator.signature import canonical_json
from orchestrator.stages import STAGES

if TYPE_CHECKING:
    from orchestrator.report import Report
    from orchestrator.report.results import Results, Score
    from orchestrator.status import Status

Curve = list[tuple[int, dict[str, float]]]

PARENT, TRAINING, EVALUATION = "study", "training", "evaluation"
MOST_CHARACTERS = 5000


@dataclass(frozen=True)
class RunContent:
    """One run: what it is (kind and identity: the same run for life), its name, and what is said of it once."""

    kind: str
    identity: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.identity


def is_training(cell: CellSpec) -> bool:
    """Trainings have runs of their own; everything else is part of an evaluation."""
    return cell.stage in STAGES and STAGES[cell.stage].training


def parent(study: str) -> RunContent:
    """The run that stands for the study, for life."""
    return RunContent(PARENT, study, study)


def training(cell: CellSpec) -> RunContent:
    """The run of one training."""
    tags = {
        "signature": cell.signature,
        "stage": cell.stage,
        **{k: v for k, v in cell.labels.items() if k in ("variant", "search", "trial")},
    }
    inputs = {role: value for role, value in cell.inputs.items() if isinstance(value, str)}
    return RunContent(TRAINING, cell.signature, cell.name, tags, flatten(cell.config), inputs)


def evaluation(variant: str, arm: Mapping[str, Any]) -> RunContent:
    """The run of one variant's evaluation."""
    params = {key: value for key, value in flatten(arm).items() if not key.startswith("training.")}
    return RunContent(EVALUATION, variant, f"evaluation {variant}", {"signature": variant, "variant": variant}, params)


def attempt_tags(status: Status) -> dict[str, str]:
    """Facts of the attempt that counts: tags, because parameters can't change."""
    tags = {"attempt": status.attempt, "attempts": str(len(status.attempts))}
    if status.attempts:
        tags["reason"] = str(status.attempts[-1].reason)
    tags["commit"] = status.provenance.get("commit", "unknown")
    if status.failure:
        tags["failure"] = status.failure[:MOST_CHARACTERS]
    return tags


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested keys joined by dots, values as text."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            text = value if isinstance(value, str) else canonical_json(value)
            flat[f"{prefix}{key}"] = text[:MOST_CHARACTERS]
    return flat


def curve(text: str) -> Curve:
    """Steps and values of a curve.csv; cells that are empty or not numbers are left out."""
    rows: Curve = []
    for row in csv.DictReader(io.StringIO(text)):
        step = number(row.pop("step", None))
        values = {key: value for key, value in ((k, number(v)) for k, v in row.items()) if value is not None}
        if step is not None and values:
            rows.append((int(step), values))
    return rows


def number(value: Any) -> float | None:
    """A finite float, or None."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def final_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Scalars of a finished training, apart from its curves."""
    scalars = {f"final/{key}": number(value) for key, value in metrics.items() if isinstance(value, int | float)}
    return {key: value for key, value in scalars.items() if value is not None}


def by_level(report: Report, variant: str) -> dict[str, dict[int, float]]:
    """Curves over noise level: measure -> {level in per mille: value}."""
    curves: dict[str, dict[int, float]] = {}

    def put(measure: str, level: float, value: Any) -> None:
        if (found := number(value)) is not None:
            curves.setdefault(measure, {})[round(1000 * level)] = found

    results = report.results
    for condition in results.tested.conditions if results.tested else ():
        if condition.variant == variant:
            put("delta_r", condition.noise_level, condition.delta_r_mean)
            put("excess_delta_r", condition.noise_level, condition.excess_delta_r_mean)
            put("p_stimulus", condition.noise_level, condition.p_stimulus)
            put("p_subject", condition.noise_level, condition.p_subject)
    for condition in results.paper.conditions if results.paper else ():
        if condition.variant == variant:
            put("delta_r_paper", condition.noise_level, condition.delta_r_mean)
    for scores, measures in _measures(results):
        for score in scores:
            if score.variant == variant:
                for measure, metric in measures.items():
                    put(measure.format(role=score.role), float(score.x), score.metrics.get(metric))
    return curves


def _measures(results: Results) -> tuple[tuple[tuple[Score, ...], dict[str, str]], ...]:
    """Scores by noise level, and which of their metrics is shown under which name."""
    return (
        (results.pitch, {"pitch_rho": "spearman_mean"}),
        (results.pitch_dev, {"pitch_rho_dev": "spearman_mean"}),
        (
            results.audit,
            {"causal_audit_rho_{role}": "spearman_mean", "causal_audit_change_{role}": "change_mean"},
        ),
        (
            results.solver_audit,
            {
                "ic_reliability_{role}": "reliability_mean",
                "ic_doubling_nats_{role}": "doubling_nats",
                "solver_rmse_nats_{role}": "rmse_nats",
                "solver_rmse_over_sd_{role}": "rmse_over_sd",
            },
        ),
        (results.surprisal, {"ic_sd_{role}": "ic_sd", "solver_error_nats_{role}": "solver_error_nats"}),
    )


def best(curves: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Columns that a list of runs can be sorted by: the values at the level of the largest excess delta r."""
    columns: dict[str, float] = {}
    excess = curves.get("excess_delta_r") or curves.get("delta_r") or curves.get("delta_r_paper") or {}
    if excess:
        level = max(excess, key=lambda permille: (excess[permille], -permille))
        columns["noise_level_best"] = level / 1000
        measure = "delta_r" if "delta_r" in curves else "delta_r_paper"
        columns["delta_r_best"] = curves[measure][level]
        ps = [curves[name][level] for name in ("p_stimulus", "p_subject") if level in curves.get(name, {})]
        if ps:
            columns["p_best"] = max(ps)
    if curves.get("pitch_rho"):
        columns["pitch_rho_best"] = max(curves["pitch_rho"].values())
    return columns


def variant_table(report: Report, variant: str) -> str:
    """One variant's rows of the group's table."""
    path = report.paths.get("group.csv")
    if path is None:
        return ""
    lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    stream = io.StringIO()
    place = lines[0].index("variant")
    csv.writer(stream, lineterminator="\n").writerows(
        [lines[0], *(line for line in lines[1:] if line[place] == variant)]
    )
    return stream.getvalue()


def digest(parts: Iterable[str | bytes]) -> str:
    """One short name for many things."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()
