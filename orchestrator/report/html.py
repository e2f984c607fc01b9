"""The report as one page that needs nothing else: figures inside, every name escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.report import eeg_tables, group_tables, pitch_tables, quality, solver_audit, tables
from orchestrator.report.figures import TITLES
from orchestrator.report.results import Results
from orchestrator.report.solver import precisions, warning

CAPTIONS = {
    "cortical_tracking": "Above, the paper's definition (against the envelope alone): no claim, no p. "
    "Below, the tested model: Δr minus its own null mean; ringed levels are claimed. Bars are 95 % intervals "
    "(bootstrap over subjects), thin lines single subjects.",
    "scalp_maps": "Excess Δr per channel, significant channels only: each variant's best claimed level, "
    "or its best level where nothing is claimed. Rings: a cluster extends over these channels; it says nothing of any "
    "one of them.",
    "kernels": "How the EEG answers to IC in time: weights of IC in the full model, mean over subjects (lines) and "
    "95 % intervals at each lag by itself (bands, bootstrap over subjects), at the channel of the largest excess Δr "
    "over all levels and variants. The channel was chosen by what is shown, so this is a picture and no test.",
    "pitch_correlation": "Spearman correlation of IC at note onsets with symbolic pitch surprisal, per piece; bars are "
    "95 % intervals over clusters of tunes (and seeds). Dashed: what needs no audio shares with pitch surprisal.",
    "pitch_levels": "One panel per arm, test tunes: mean Spearman correlation with its 95 % interval (band), each seed "
    "(thin), partial Spearman (dashed), and the mean on dev tunes (dotted), where the ringed level s* was chosen. "
    "Grey: what needs no audio shares with pitch surprisal.",
    "search": "Each point is one trial; the line is the best so far. Trials that were stopped early are hollow.",
    "reconstruction": "Log-spectral distance is the primary measure; SI-SDR is descriptive.",
}


def page(
    results: Results, sentences: tuple[str, ...], methods: list[str], figures: Mapping[str, Path], files: list[str]
) -> str:
    """The whole page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    embedded = [
        {
            "name": name,
            "title": TITLES[name],
            "caption": CAPTIONS[name],
            "data": base64.b64encode(path.read_bytes()).decode(),
        }
        for name, path in figures.items()
    ]
    header, rows = tables.reconstruction_rows(results)
    definition_header, definition_rows = solver_audit.definition_rows(results)
    return environment.get_template("report.html").render(
        results=results,
        sentences=sentences,
        red=results.canaries is not None and results.canaries.verdict != "green",
        methods=methods,
        figures=embedded,
        judgement=_judgement(results),
        compared=eeg_tables.sentences(results),
        contrast_header=eeg_tables.HEADER,
        contrast_rows=eeg_tables.rows(results),
        between_sentence=group_tables.between_sentence(results),
        between_header=group_tables.between_header(results),
        between_rows=group_tables.between_rows(results),
        ceiling_sentence=group_tables.ceiling_sentence(results),
        exploratory_sentence=group_tables.exploratory_sentence(results),
        header=tables.HEADER,
        rows=tables.condition_rows(results),
        reconstruction_header=header,
        reconstruction_rows=rows,
        audit_header=tables.AUDIT_HEADER,
        audit_rows=tables.audit_rows(results),
        surprisal_header=tables.SURPRISAL_HEADER,
        surprisal_rows=tables.surprisal_rows(results),
        solver_audit_header=solver_audit.HEADER,
        solver_audit_rows=solver_audit.rows(results),
        definition_header=definition_header,
        definition_rows=definition_rows,
        quality_header=quality.HEADER,
        quality_rows=quality.rows(results),
        solver_warning=warning(precisions(results)),
        missing=[(group.model, entry) for group in results.groups for entry in group.missing],
        files=files,
    )


def _judgement(results: Results) -> dict[str, Any]:
    """What the section beside Figure 4 shows; nothing where no level is chosen."""
    found = results.judgement
    if found is None:
        return {}
    return {
        "verdicts": pitch_tables.verdicts(found),
        "tables": [
            (pitch_tables.ARMS_HEADER, pitch_tables.arm_rows(results)),
            (pitch_tables.CONTRASTS_HEADER, pitch_tables.contrast_rows(found)),
            (("without audio", "Spearman ρ"), pitch_tables.baseline_rows(found)),
        ],
        "notes": [pitch_tables.NOTE, pitch_tables.CAVEATS, "* degenerate density (clean latents behind a layer norm)."],
    }
