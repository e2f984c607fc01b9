"""Figures, tables and a page from what the ledger holds."""

from __future__ import annotations

from orchestrator.opening import Study
from orchestrator.report import build


def report(study: Study) -> str:
    """Build the report; returns the text for the console."""
    name = study.experiment.name
    return build(study.graph, study.ledger, name, study.report_dir, tracking_uri=study.tracking_uri).text
