"""A made-up study, a store of MLflow that is empty, and what is read of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace

import made_up_study

from orchestrator.graph import Graph
from orchestrator.report import Report, build
from orchestrator.tracker import Tracking

ROOT = Path(__file__).parents[2]


STUDY = "demo"


def empty_store(folder: Path) -> Path:
    """A store whose schema exists: making one takes seconds."""
    tracking_of(f"sqlite:///{folder / 'mlflow.db'}", made_up_study.FakeLedger())._open()
    return folder / "mlflow.db"


def copy_of(store: Path, folder: Path) -> str:
    """The address of an own copy of an empty store."""
    (folder / "mlflow.db").write_bytes(store.read_bytes())
    _delete_experiment(folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


def _delete_experiment(path: Path) -> None:
    with sqlite3.connect(path) as store:
        store.execute("DELETE FROM experiment_tags")
        store.execute("DELETE FROM experiments WHERE name = ?", (STUDY,))
    store.close()


def tracking_of(uri, ledger, driver="one", study=STUDY, said=None):
    return Tracking(uri, study, ledger, driver, (said if said is not None else []).append)


def client_of(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs_of(uri, study=STUDY):
    client = client_of(uri)
    experiment = client.get_experiment_by_name(study)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}


def outcome(stopped=False, exit_code=0):
    return SimpleNamespace(stopped=stopped, exit_code=exit_code)


def small_study(**options):
    return made_up_study.make(("layernorm",), {"none": ("none", 0.0), "E+D m=0.0": ("encoder+decoder", 0.0)}, **options)


def mirror_all(tracking, graph, ledger, report=None):
    states = ledger.survey(graph, full=False)
    tracking.study_started(graph, states)
    for cell in graph:
        tracking.cell_finished(cell, states[cell.signature][2], True)
    tracking.study_finished(outcome())
    if report is not None:
        tracking.report_built(report)
    tracking.close()


def reported_study(folder: Path) -> tuple[Graph, made_up_study.FakeLedger, Report]:
    graph, ledger = small_study()
    return graph, ledger, build(graph, ledger, STUDY, folder)
