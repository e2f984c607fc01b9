"""Tables: csv for programs (equal bytes for equal ledgers), and the lines that people see on the console."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.report import eeg_tables, group_tables, pitch_tables
from orchestrator.report.pitch_arms import estimates
from orchestrator.report.results import Condition, Group, Results, Score
from orchestrator.report.solver import precisions

NOT_CALIBRATED = " (diagnostic: not calibrated)"
SUBJECT_COLUMNS = ("delta_r", "delta_r_max", "r_full", "r_reduced", "n_pieces", "n_channels")
GROUP_COLUMNS = (
    "delta_r_mean", "delta_r_se", "delta_r_max_mean", "r_reduced_mean", "r_full_mean", "excess_delta_r_mean",
    "excess_delta_r_se", "p_stimulus", "p_subject", "p", "claimed",
)  # fmt: skip

AUDIT_METRICS = (
    "reliability_mean", "reliability_se", "reliability_pooled", "reliability_pearson_mean",
    "reliability_pearson_pooled", "rmse_nats", "bias_nats", "rmse_over_sd", "doubling_nats", "doubling_mean_nats",
    "rule_constant_nats", "rule_constant_se_nats", "ic_sd", "n_frames", "n_recordings",
)  # fmt: skip


def csv_tables(results: Results) -> dict[str, str]:
    """File name and content of every table that has rows: sorted, floats by repr, no dates."""
    tables = {
        "results.csv": _results(results),
        "group.csv": _group(results),
        **{name: _csv(columns, rows) for name, (columns, rows) in eeg_tables.csvs(results).items()},
        **{name: _csv(columns, rows) for name, (columns, rows) in group_tables.csvs(results).items()},
        "long.csv": results.long,
        "pitch.csv": _long(results.pitch, "noise_level"),
        "pitch_intervals.csv": _pitch_intervals(results),
        "pitch_dev.csv": _long(results.pitch_dev, "noise_level"),
        **_judgement(results),
        "reconstruction.csv": _long(results.reconstruction, "snr"),
        "causal_audit.csv": _long(results.audit, "noise_level"),
        "solver_audit.csv": _measured(results),
        "solver_audit_recordings.csv": _long(results.solver_audit, "noise_level"),
        "definitions.csv": _long(results.definitions, "noise_level"),
        "surprisal.csv": _surprisal(results),
        "trials.csv": _csv(results.search.columns, results.search.csv, in_order=True) if results.search else "",
    }
    return {name: _marked(text) if results.exploratory else text for name, text in tables.items() if text}


def _marked(text: str) -> str:
    """The table with a last column that says of each row that it is exploratory."""
    header, *rows = csv.reader(io.StringIO(text))
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[*header, "exploratory"], *([*row, "true"] for row in rows)])
    return stream.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], in_order: bool = False) -> str:
    lines = [[_text(row.get(column)) for column in columns] for row in rows]
    if not in_order:
        lines.sort()
    if not lines:
        return ""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([columns, *lines])
    return stream.getvalue()


def _results(results: Results) -> str:
    """One row per variant, noise level, model and subject."""
    columns = ("variant", "noise_level", "model", "subject", *SUBJECT_COLUMNS, "null", "simulated", "signature")
    nulls = {group.model: null_name(group) for group in results.groups}
    rows = (
        {**score.metrics, "variant": score.variant, "noise_level": score.noise_level, "model": score.model}
        | {"subject": score.subject, "simulated": score.simulated, "signature": score.signature}
        | {"null": nulls.get(score.model, "")}
        for score in results.subjects
    )
    return _csv(columns, rows)


def null_name(group: Group) -> str:
    """The null distribution of a tested model, one that isn't calibrated with that mark; else empty."""
    return (group.null + ("" if group.calibrated else NOT_CALIBRATED)) if group.tested else ""


def _group(results: Results) -> str:
    columns: tuple[str, ...] = ("model", "tested", "variant", "noise_level", "n_subjects", *GROUP_COLUMNS)
    rest = ("p_stimulus_low", "p_stimulus_high", "significant_channels", "null", "simulated")
    columns = (*columns, "delta_r_low", "delta_r_high", "excess_delta_r_low", "excess_delta_r_high")
    columns = (*columns, "n_subjects_known", "n_channels", "n_channels_known", "n_pieces_least", "n_pieces_most")
    rows = []
    for group in results.groups:
        for condition in group.conditions:
            low, high = condition.p_stimulus_ci or (None, None)
            rows.append(
                {**condition.model_dump(), "model": group.model, "tested": group.tested, "n_subjects": group.n_subjects}
                | {"p_stimulus_low": low, "p_stimulus_high": high, "simulated": group.simulated}
                | {"null": null_name(group)}
                | {"significant_channels": ";".join(condition.significant_channels)}
                | eeg_tables.bounds("delta_r", condition.delta_r_ci)
                | eeg_tables.bounds("excess_delta_r", condition.excess_delta_r_ci)
                | eeg_tables.numbers(group)
            )
    return _csv((*columns, *rest), rows)


def _long(scores: Sequence[Score], axis: str) -> str:
    """The rows that a stage wrote for each item, with the condition before them, as they were written."""
    named = dict.fromkeys(key for score in scores for row in score.rows for key in row)
    columns = ("variant", axis, *(key for key in named if key not in ("variant", axis)))
    return _csv(columns, ({**row, "variant": score.variant, axis: score.x} for score in scores for row in score.rows))


def _pitch_intervals(results: Results) -> str:
    """One row per arm, noise level and measure: the mean over pieces (and seeds), and its 95 % interval."""
    columns = ("arm", "noise_level", "measure", "mean", "low", "high", "n_seeds", "n_pieces", "n_clusters", "variants")
    rows = (
        {**asdict(row.estimate), "arm": row.arm, "noise_level": row.noise_level, "measure": row.measure}
        | {"variants": ";".join(row.variants)}
        for row in estimates(results)
    )
    return _csv(columns, rows)


def _judgement(results: Results) -> dict[str, str]:
    """Which level each arm got on dev tunes, and what test tunes say of it; nothing where no level is chosen."""
    found = results.judgement
    if found is None:
        return {}
    return {
        "pitch_intervals_dev.csv": _csv(pitch_tables.LEVEL_COLUMNS, pitch_tables.level_rows(found)),
        "pitch_judgement.csv": _csv(pitch_tables.JUDGED_COLUMNS, pitch_tables.judged_rows(found), in_order=True),
        "pitch_baselines.csv": _csv(pitch_tables.BASELINE_COLUMNS, pitch_tables.baselines(found), in_order=True),
    }


def _surprisal(results: Results) -> str:
    """One row per variant, recording set and noise level: IC over all frames (nats), and how far off its solver is."""
    columns = ("variant", "role", "noise_level", "ic_mean", "ic_sd", "solver_error_nats", "error_over_sd")
    return _csv(columns, ({**asdict(row), "error_over_sd": row.error_over_sd} for row in precisions(results)))


def _measured(results: Results) -> str:
    """One row per variant, recording set and noise level: what the audit of the solver measured, errors in nats."""
    rows = ({**s.metrics, "variant": s.variant, "role": s.role, "noise_level": s.x} for s in results.solver_audit)
    return _csv(("variant", "role", "noise_level", *AUDIT_METRICS), rows)


HEADER = ("variant", "s", "Δr (paper)", "Δr", "excess Δr", "p stimulus", "p subject", "claimed", "pitch ρ")


def condition_rows(results: Results) -> list[tuple[str, ...]]:
    """One row per variant and noise level: what the console and the page show."""
    levels = {c.noise_level for group in results.groups for c in group.conditions} | {float(s.x) for s in results.pitch}
    rows = []
    for variant in results.variants:
        for level in sorted(levels):
            paper = _at(results.paper, variant, level)
            tested = _at(results.tested, variant, level)
            pitch = next((s for s in results.pitch if s.variant == variant and float(s.x) == level), None)
            if paper or tested or pitch:
                mark = "*" if results.degenerate(variant, level) else ""
                rows.append((variant, f"{level:g}{mark}", *_cells(paper, tested), _rho(pitch)))
    return rows


def _at(group: Group | None, variant: str, level: float) -> Condition | None:
    return group.at(variant, level) if group else None


def _cells(paper: Condition | None, tested: Condition | None) -> tuple[str, ...]:
    first = spread(paper.delta_r_mean, paper.delta_r_se) if paper else "–"
    if tested is None:
        return (first, "–", "–", "–", "–", "–")
    return (
        first,
        spread(tested.delta_r_mean, tested.delta_r_se),
        spread(tested.excess_delta_r_mean, tested.excess_delta_r_se),
        _p(tested.p_stimulus),
        _p(tested.p_subject),
        "yes" if tested.claimed else "no",
    )


def _rho(score: Score | None) -> str:
    return spread(score.metrics.get("spearman_mean"), score.metrics.get("spearman_se"), 3) if score else "–"


def spread(mean: float | None, error: float | None, digits: int = 4, sign: str = "+") -> str:
    """Mean ± standard error; a dash where there is none."""
    if mean is None:
        return "–"
    return f"{mean:{sign}.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def reconstruction_rows(results: Results) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and one row per variant and SNR."""
    names = {"log_spectral_distance": "log-spectral distance (dB)", "si_sdr": "SI-SDR (dB)"}
    metrics = [name for name in names if any(f"{name}_mean" in score.metrics for score in results.reconstruction)]
    header = ("variant", "SNR", *(text for name in metrics for text in (names[name], "floor")))
    order = {variant: i for i, variant in enumerate(results.variants)}
    rows = []
    for score in sorted(results.reconstruction, key=lambda s: (order.get(s.variant, 0), -float(s.x))):
        cells: list[str] = []
        for name in metrics:
            sign = "-" if name == "log_spectral_distance" else "+"
            cells.append(spread(score.metrics.get(f"{name}_mean"), score.metrics.get(f"{name}_se"), 2, sign))
            cells.append(spread(score.metrics.get(f"{name}_floor_mean"), None, 2, sign))
        rows.append((score.variant, score.x, *cells))
    return header, rows


AUDIT_HEADER = ("variant", "recordings", "s", "rank ρ", "ΔIC (nats)", "control ρ", "control ΔIC", "SD of IC", "frames")


def audit_rows(results: Results) -> list[tuple[str, ...]]:
    """One row per variant, recording set and noise level: IC from audio cut at the frame against the ordinary IC."""
    order = {variant: i for i, variant in enumerate(results.variants)}
    rows: list[tuple[str, ...]] = []
    for score in sorted(results.audit, key=lambda s: (order.get(s.variant, 0), s.role, float(s.x))):
        found, mark = score.metrics, "*" if results.degenerate(score.variant, float(score.x)) else ""
        rows.append(
            (
                score.variant,
                score.role,
                f"{float(score.x):g}{mark}",
                spread(found.get("spearman_mean"), found.get("spearman_se"), 3),
                spread(found.get("change_mean"), found.get("change_se"), 2),
                spread(found.get("control_spearman_mean"), None, 3),
                spread(found.get("control_change_mean"), None, 2),
                spread(found.get("ic_sd"), None, 2, "-"),
                str(found.get("n_frames", "–")),
            )
        )
    return rows


SURPRISAL_HEADER = ("variant", "recordings", "s", "IC mean", "IC SD", "solver error (nats)", "error / SD")


def surprisal_rows(results: Results) -> list[tuple[str, ...]]:
    """One row per variant, recording set and noise level: IC in nats, and its solver's error against IC's SD."""
    return [
        (
            row.variant,
            row.role,
            f"{row.noise_level:g}" + ("*" if results.degenerate(row.variant, row.noise_level) else ""),
            _given(row.ic_mean, "+.2f"),
            _given(row.ic_sd, ".3g"),
            _given(row.solver_error_nats, ".2g"),
            _given(row.error_over_sd, ".3f"),
        )
        for row in precisions(results)
    ]


def error_rows(results: Results) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and one row per variant and recording set: error / SD, a column per noise level.

    Errors that an audit measured stand for the solver's own estimates, which are marked where there are both.
    """
    found = precisions(results)
    measured = {row.measured for row in found if row.share is not None}
    levels = sorted({row.noise_level for row in found})
    shares = {
        (row.variant, row.role, row.noise_level): "~"
        * (len(measured) > 1 and not row.measured and row.share is not None)
        + _given(row.share, ".3f")
        for row in found
    }
    names = dict.fromkeys((row.variant, row.role) for row in found)
    rows = [(*name, *(shares.get((*name, level), "") for level in levels)) for name in names]
    title = "solver error / SD of IC" + (", measured" if True in measured else "")
    title += " (~ estimated)" if len(measured) > 1 else ""
    return (title, "recordings", *(f"s={level:g}" for level in levels)), rows


def _given(value: float | None, form: str) -> str:
    """A number as text; a blank where there is none."""
    return "" if value is None else format(value, form)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in plain text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return [line(header), "  ".join("─" * width for width in widths), *map(line, rows)]
