"""The report of a study: figures, tables, a page, and the text for the console."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.graph import Graph
from orchestrator.report.gathering import gather
from orchestrator.report.results import Results, SearchResults, States

if TYPE_CHECKING:
    from orchestrator.ledger import Ledger

__all__ = ["Report", "build"]


@dataclass(frozen=True)
class Report:
    """Where the report's files are (by name), the text for the console, and what both were made of."""

    paths: dict[str, Path]
    text: str
    headline: tuple[str, ...]
    results: Results


def build(
    graph: Graph,
    ledger: Ledger,
    study_name: str,
    out_dir: Path,
    states: States | None = None,
    tracking_uri: str | None = None,
    search: SearchResults | None = None,
    exploratory: str = "",
) -> Report:
    """Draw and write what the ledger holds of a study into `out_dir`; what is missing is said, and nothing fails.

    `states` is a survey of the ledger after the run (taken anew when not given). `exploratory` says why nothing here
    may be claimed, and marks every file.
    """
    from orchestrator.report import console, headline, html, methods, tables
    from orchestrator.report.figures import draw_all
    from orchestrator.report.pitch_judgement import judge

    results = replace(gather(graph, ledger, study_name, states), search=search, exploratory=exploratory)
    results = replace(results, judgement=judge(results))
    figures, broken = draw_all(results, out_dir / "figures")
    results = replace(results, absences=(*results.absences, *broken))
    paths = dict(figures)
    for name, content in tables.csv_tables(results).items():
        paths[name] = _write(out_dir / "tables" / name, content)
    sentences = headline.headline(results)
    files = [path.relative_to(out_dir).as_posix() for path in paths.values()]
    page = html.page(results, sentences, methods.methods(results), figures, files)
    paths["report.html"] = _write(out_dir / "report.html", page)
    text = console.text(results, sentences, paths, out_dir, tracking_uri)
    return Report(paths, text, sentences, results)


def _write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="\n")
    return path
