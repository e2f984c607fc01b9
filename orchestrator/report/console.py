"""The report as lines for a terminal: the headline first, the table, what is missing, where the files are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.redaction import redact
from orchestrator.report import eeg_tables, group_tables, pitch_tables, solver_audit, tables
from orchestrator.report.results import Absence, Results, some
from orchestrator.report.solver import precisions, warning

MOST_LINES = 20
AUDIT_NOTE = (
    "IC of frames whose context was encoded from audio that ends before them, against ordinary IC; control: no end."
)


def text(
    results: Results, sentences: tuple[str, ...], paths: Mapping[str, Path], out_dir: Path, tracking_uri: str | None
) -> str:
    """Everything a person needs to know at the end of a run."""
    stamps = (("SIMULATED", results.simulated), ("EXPLORATORY", results.exploratory))
    lines = [f"study {results.study}" + "".join(f"  [{name}]" for name, on in stamps if on), *sentences]
    if results.search is not None:
        lines += ["", *tables.aligned(results.search.header, results.search.rows)] if results.search.rows else []
    rows = tables.condition_rows(results)
    if rows:
        lines += ["", *tables.aligned(tables.HEADER, rows), *_notes(results)]
    compared = eeg_tables.sentences(results)
    lines += (
        ["", f"comparisons of excess Δr ({results.tested.model})", *(f"  {line}" for line in compared)]
        if (compared and results.tested)
        else []
    )
    beyond = [sentence for sentence in group_tables.sentences(results) if sentence not in sentences]
    lines += ["", *beyond] if beyond else []
    lines += _judgement(results)
    header, reconstruction = tables.reconstruction_rows(results)
    if reconstruction:
        lines += ["", *tables.aligned(header, reconstruction)]
    audit = tables.audit_rows(results)
    if audit:
        lines += ["", *tables.aligned(tables.AUDIT_HEADER, audit), AUDIT_NOTE]
    lines += _solver(results)
    header, reliability = solver_audit.reliability_rows(results)
    if reliability:
        lines += ["", *tables.aligned(header, reliability), solver_audit.NOTE]
    lines += _missing(results)
    lines += ["", f"report    {paths['report.html']}" if "report.html" in paths else ""]
    figures = [path for path in paths.values() if path.suffix == ".png"]
    if figures:
        lines.append(f"figures   {out_dir / 'figures'}: {', '.join(path.stem for path in figures)}")
    csvs = [path for path in paths.values() if path.suffix == ".csv"]
    if csvs:
        lines.append(f"tables    {out_dir / 'tables'}: {', '.join(path.name for path in csvs)}")
    if tracking_uri:
        lines.append(f"MLflow    {redact(tracking_uri)}")
    if results.search is not None and results.search.command:
        lines.append(f"best      {redact(results.search.command)}")
    return "\n".join(lines)


def _judgement(results: Results) -> list[str]:
    found = results.judgement
    if found is None:
        return []
    lines = ["", "Figure 4: each arm's noise level, chosen on dev tunes and judged on test tunes"]
    lines += tables.aligned(pitch_tables.ARMS_HEADER, pitch_tables.arm_rows(results))
    lines += [f"  {what}: {verdict.words}" for what, verdict in pitch_tables.verdicts(found)]
    known = [f"{name} {cell}" for name, cell in pitch_tables.baseline_rows(found)]
    lines += [f"Without audio (Spearman ρ): {', '.join(known)}."] if known else []
    return [*lines, pitch_tables.CAVEATS]


def _solver(results: Results) -> list[str]:
    header, rows = tables.error_rows(results)
    warned = warning(precisions(results))
    return ["", *tables.aligned(header, rows), *([warned] if warned else [])] if rows else []


def _notes(results: Results) -> list[str]:
    notes = []
    if results.groups:
        who = "simulated listeners" if results.simulated else "subjects"
        notes.append(f"Mean ± SE over {who}. Δr (paper): against the envelope alone; no claim, no p.")
    if any(results.degenerate(variant, 0.0) for variant in results.variants):
        notes.append("* degenerate: clean latents behind a layer norm lie on a sphere.")
    return notes


def _missing(results: Results) -> list[str]:
    by_reason: dict[str, dict[str, None]] = {}
    for group in results.groups:
        for entry in group.missing:
            by_reason.setdefault(entry.reason, {})[entry.subject] = None
    found = [Absence(some(list(subjects), 8), f"not in the group: {why}") for why, subjects in by_reason.items()]
    found += results.absences
    found += [Absence(item.what, f"left out: {item.why}") for item in results.exclusions]
    if not found:
        return []
    lines = ["", "missing, and why", *(f"  {item.what}: {item.why}" for item in found[:MOST_LINES])]
    if len(found) > MOST_LINES:
        lines.append(f"  and {len(found) - MOST_LINES} more (report.html names them all)")
    return lines
