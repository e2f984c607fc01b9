"""Figures, tables and a page from what the ledger holds."""

from __future__ import annotations

from orchestrator.opening import Study
from orchestrator.report import Report, build
from orchestrator.report.results import SearchResults
from orchestrator.search.objective import OBJECTIVES, judges
from orchestrator.search.plan import Search
from orchestrator.search.records import peeked
from orchestrator.search.showing import EXPLORATORY, best, command, csv_rows, scored, settings_text, summary, table
from orchestrator.signature import SHORT


def report(study: Study) -> str:
    """Build the report; returns the text for the console."""
    return report_of(study).text


def report_of(study: Study) -> Report:
    """The report of a study or of a search, as the ledger has it now."""
    found = None if study.search is None else search_results(study.search)
    graph = study.now().graph
    name, uri = study.experiment.name, study.tracking_uri
    return build(
        graph, study.ledger, name, study.report_dir, tracking_uri=uri, search=found, exploratory=caution(study)
    )


def caution(study: Study) -> str:
    """Why what this study says of EEG is exploratory; empty when it isn't."""
    if study.search is not None:
        return EXPLORATORY if study.search.exploratory else ""
    tested = judges(study.graph, OBJECTIVES["delta_r"])
    listeners = {cell.signature for cell in tested if not cell.labels["subject"].startswith("canary-")}
    peek = peeked(study.ledger.storage, listeners)
    if peek is None:
        return ""
    return (
        f"EXPLORATORY: search {peek.search[:SHORT]} looked at {peek.looked_at} settings on this EEG, and this "
        f"study tests {peek.tested} of them; no p-value or claim here is corrected for that choice"
    )


def search_results(search: Search) -> SearchResults:
    """What a search found, for the report."""
    trials = search.trials()
    header, rows = table(search, trials)
    columns, csv = csv_rows(search, trials)
    leader = best(search, trials)
    numeric = [dimension for dimension in search.space if dimension.numeric]
    axis = numeric[0] if len(search.space) == 1 and numeric else None
    return SearchResults(
        title=search.objective.title,
        summary=tuple(summary(search, trials)),
        header=header,
        rows=tuple(rows),
        columns=columns,
        csv=tuple(csv),
        points=tuple(
            (trial.number, axis.number(trial.settings[axis.key]) if axis else None, trial.value, str(trial.state))
            for trial in trials
            if trial.value is not None
        ),
        axis=axis.key if axis else None,
        log=bool(axis and axis.log),
        maximise=search.objective.maximise,
        best=f"{settings_text(leader.settings)} ({scored(search, leader)}, trial {leader.number})" if leader else None,
        command=command(search, leader) if leader else None,
        material=_material(search),
    )


def _material(search: Search) -> str:
    """What the scores were measured on."""
    role = search.objective.material
    dataset = search.experiment.science.data.of(role) if role else None
    if dataset is None:
        return "data.validation"
    return f"data.{role} (split {dataset.split})"
