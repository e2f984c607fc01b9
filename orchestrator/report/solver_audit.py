"""How far IC can be relied on, as measured: the audit's tables as people see them."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.report.results import Results, Score
from orchestrator.report.tables import spread

HEADER = (
    "variant",
    "recordings",
    "s",
    "reliability ρ",
    "pooled ρ",
    "RMSE (nats)",
    "bias (nats)",
    "RMSE / SD",
    "nodes doubled: RMS",
    "mean",
    "constant",
    "SD of IC",
    "frames",
)
NOTE = (
    "Rank correlation of IC with two seeds of the solver's, within recordings (solver audit). "
    "The constant is what the solver adds to every frame for what its rule gets wrong of frames that the flow "
    "generates, ± its standard error. * degenerate: IC at s = 0 is partly what the solver makes of it."
)


def rows(results: Results) -> list[tuple[str, ...]]:
    """One row per variant, recording set and noise level: reliability and measured errors of IC."""
    found: list[tuple[str, ...]] = []
    for score in _ordered(results, results.solver_audit):
        metrics = score.metrics
        found.append(
            (
                score.variant,
                score.role,
                _level(results, score),
                spread(metrics.get("reliability_mean"), metrics.get("reliability_se"), 3),
                spread(metrics.get("reliability_pooled"), None, 3),
                _short(metrics.get("rmse_nats")),
                _short(metrics.get("bias_nats"), "+.2g"),
                spread(metrics.get("rmse_over_sd"), None, 3, "-"),
                _short(metrics.get("doubling_nats")),
                _short(metrics.get("doubling_mean_nats"), "+.2g"),
                _constant(metrics.get("rule_constant_nats"), metrics.get("rule_constant_se_nats")),
                _short(metrics.get("ic_sd"), ".3g"),
                str(metrics.get("n_frames", "–")),
            )
        )
    return found


def reliability_rows(results: Results) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and one row per variant and recording set: reliability, a column per noise level."""
    scores = _ordered(results, results.solver_audit)
    at = {(score.variant, score.role, float(score.x)): score.metrics.get("reliability_mean") for score in scores}
    levels = sorted({level for _, _, level in at})
    names = dict.fromkeys((score.variant, score.role) for score in scores)
    marked = any(results.degenerate(score.variant, float(score.x)) for score in scores)
    header = ("reliability of IC", "recordings", *(f"s={level:g}" + "*" * (marked and not level) for level in levels))
    found = [
        (*name, *("" if (value := at.get((*name, level))) is None else f"{value:.3f}" for level in levels))
        for name in names
    ]
    return header, found


def definition_rows(results: Results) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and one row per variant, recording set, noise level and definition: Spearman with each definition."""
    scores = _ordered(results, results.definitions)
    pairs = [(row["definition_a"], row["definition_b"]) for score in scores for row in score.rows]
    names = list(dict.fromkeys([first for first, _ in pairs] + [second for _, second in pairs]))
    found = []
    for score in scores:
        table = {(row["definition_a"], row["definition_b"]): row["spearman"] for row in score.rows}
        own = [name for name in names if any(name in pair for pair in table)]
        for first in own:
            cells = ["1" if first == name else _of_pair(table, first, name) for name in names]
            found.append((score.variant, score.role, _level(results, score), first, *cells))
    return ("variant", "recordings", "s", "definition", *names), found


def _of_pair(table: dict[tuple[str, str], str], first: str, second: str) -> str:
    text = table.get((first, second)) or table.get((second, first))
    return f"{float(text):.3f}" if text else "–"


def _ordered(results: Results, scores: Sequence[Score]) -> list[Score]:
    order = {variant: i for i, variant in enumerate(results.variants)}
    return sorted(scores, key=lambda score: (order.get(score.variant, 0), score.role, float(score.x)))


def _level(results: Results, score: Score) -> str:
    return f"{float(score.x):g}" + ("*" if results.degenerate(score.variant, float(score.x)) else "")


def _constant(value: float | None, se: float | None) -> str:
    """What the solver adds to every frame's IC, in nats, and its standard error."""
    return "–" if value is None else f"{value:+.2g}" + ("" if se is None else f" ± {se:.1g}")


def _short(value: float | None, form: str = ".2g") -> str:
    return "–" if value is None else format(value, form)
