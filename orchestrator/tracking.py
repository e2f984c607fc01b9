"""A study's runs in an MLflow store: the only room that knows MLflow. Whatever is written twice is there once."""

from __future__ import annotations

import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator import mirror
from orchestrator.mirror import Curve, RunContent
from orchestrator.reasons import Reason

SQLITE = "sqlite:///"
BATCH = 1000
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}


EXPERIMENT_TAGS = {"orchestrator": "study", "mlflow.experimentKind": "custom_model_development"}
"""The second opens MLflow's pages for trainings, not those for language models."""


class Store:
    """One study's experiment in an MLflow store: runs found by identity, each thing written once."""

    def __init__(self, uri: str, study: str, tags: Mapping[str, str]) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)  # it tells of every try to connect
        if uri.startswith(SQLITE):
            Path(uri.removeprefix(SQLITE)).absolute().parent.mkdir(parents=True, exist_ok=True)
        from mlflow import MlflowClient

        self._client = MlflowClient(uri)
        self._study, self._tags = study, dict(tags)
        self._experiment = self._open_experiment(uri, study)
        self._logged: dict[str, dict[str, dict[int, float]]] = {}
        self._runs = {_key(run): run for run in self._search() if _is_ours(run, study)}

    def _open_experiment(self, uri: str, study: str) -> str:
        found = self._client.get_experiment_by_name(study)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        place = None
        if uri.startswith(SQLITE):
            place = (Path(uri.removeprefix(SQLITE)).absolute().parent / "mlartifacts" / study).as_uri()
        return str(self._client.create_experiment(study, artifact_location=place, tags=EXPERIMENT_TAGS))

    def _search(self, wanted: str = "") -> list[Any]:
        runs: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], wanted, max_results=1000, order_by=["attributes.start_time DESC"], page_token=token
            )
            runs += page
            token = page.token
            if not token:
                return runs  # newest first: of two runs with one identity (made by hand), a dict keeps the oldest

    def close_dead(self, alive: Iterable[str]) -> None:
        """End runs that drivers who are gone left RUNNING, and second runs of one identity."""
        living = set(alive)
        for run in self._search("attributes.status = 'RUNNING'"):
            if _is_ours(run, self._study) and run.data.tags.get("driver") not in living:
                self._write(run, {"stop_reason": Reason.LOST_PROCESS.value}, {})
                self._client.set_terminated(run.info.run_id, "KILLED")
                if run.info.run_id == self._runs[_key(run)].info.run_id:
                    self._refresh(_key(run))

    def others_run(self, driver: str) -> bool:
        """True while runs of other drivers of this study are RUNNING."""
        running = self._search("attributes.status = 'RUNNING'")
        return any(_is_ours(run, self._study) and run.data.tags.get("driver") != driver for run in running)

    def found(self, key: tuple[str, str]) -> tuple[str, Mapping[str, str]] | None:
        """Status and tags of a run, None when there is none yet."""
        run = self._runs.get(key)
        return (run.info.status, run.data.tags) if run is not None else None

    def run_id(self, key: tuple[str, str]) -> str:
        return str(self._runs[key].info.run_id)

    def begin(self, content: RunContent, tags: Mapping[str, str]) -> None:
        """The run of this identity, RUNNING: made if there is none, else taken up again."""
        wanted = {**content.tags, **self._tags, **tags, **self._under(content)}
        if content.key not in self._runs and not self._find(content):
            self._create(content, wanted)
            return
        run = self._runs[content.key]
        if run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")
        for stale in {"stop_reason", "failure"} & set(run.data.tags) - set(wanted):
            self._client.delete_tag(run.info.run_id, stale)
        self._write(run, wanted, content.params)
        if not run.inputs.dataset_inputs:
            self._log_inputs(run.info.run_id, content.inputs)
        self._refresh(content.key)

    def _under(self, content: RunContent) -> dict[str, str]:
        parent = (mirror.PARENT, self._study)
        return {} if content.kind == mirror.PARENT else {"mlflow.parentRunId": self.run_id(parent)}

    def _find(self, content: RunContent) -> bool:
        """Take up a run that another driver made since this store was opened: an identity has one run."""
        found = self._twins(content)
        if found:
            self._runs[content.key] = found[0]
        return bool(found)

    def _twins(self, content: RunContent) -> list[Any]:
        """All runs of one identity; every driver finds the same one first."""
        wanted = f"tags.kind = '{content.kind}'"
        if "'" not in content.identity:
            wanted += f" and tags.identity = '{content.identity}'"
        found = [run for run in self._search(wanted) if _is_ours(run, self._study) and _key(run) == content.key]
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def _create(self, content: RunContent, tags: Mapping[str, str]) -> None:
        """Make the run; of several that drivers made at the same time the first stays, and the others are deleted.

        Whoever comes second sees both. A driver whose run is deleted so meets an error, opens the store anew, and
        finds the one that stayed.
        """
        own = {"study": self._study, "kind": content.kind, "identity": content.identity}
        run = self._client.create_run(self._experiment, tags={**tags, **own}, run_name=content.name)
        first, *others = self._twins(content) or [run]
        for other in others:
            self._client.delete_run(other.info.run_id)
        self._runs[content.key] = first
        if first.info.run_id == run.info.run_id:
            self._logged[run.info.run_id] = {}
        self._write(first, {}, content.params)
        if not first.inputs.dataset_inputs:
            self._log_inputs(first.info.run_id, content.inputs)
        self._refresh(content.key)

    def _refresh(self, key: tuple[str, str]) -> None:
        self._runs[key] = self._client.get_run(self.run_id(key))

    def _write(self, run: Any, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        news = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
        added = [Param(key, value) for key, value in params.items() if key not in run.data.params]
        for first in range(0, max(len(news), len(added)), 100):
            part = slice(first, first + 100)
            self._client.log_batch(run.info.run_id, tags=news[part], params=added[part])

    def _log_inputs(self, run_id: str, inputs: Mapping[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        rows = []
        for role, signature in inputs.items():
            dataset = Dataset(role, signature, "ledger", json.dumps({"signature": signature}))
            rows.append(DatasetInput(dataset, [InputTag("mlflow.data.context", role)]))
        if rows:
            self._client.log_inputs(run_id, rows)

    def log(self, key: tuple[str, str], rows: Curve, rewrite: bool = False) -> None:
        """Write what the run doesn't hold yet: each step of a curve once; `rewrite`: again when its value changed."""
        from mlflow.entities import Metric

        run_id, now = self.run_id(key), int(1000 * time.time())
        news = []
        for step, values in rows:
            for name, value in values.items():
                known = self._history(run_id, name)
                if step not in known or (rewrite and known[step] != value):
                    known[step] = value
                    news.append(Metric(name, value, now, step))
        for first in range(0, len(news), BATCH):
            self._client.log_batch(run_id, metrics=news[first : first + BATCH])

    def _history(self, run_id: str, name: str) -> dict[int, float]:
        known = self._logged.get(run_id)
        if known is None:  # a run of an earlier driver
            known = self._logged[run_id] = {}
            for metric in self._client.get_run(run_id).data.metrics:
                known[metric] = {point.step: point.value for point in self._client.get_metric_history(run_id, metric)}
        return known.setdefault(name, {})

    def end(self, key: tuple[str, str], status: str, tags: Mapping[str, str]) -> None:
        """Give a run its last status."""
        self._write(self._runs[key], tags, {})
        self._client.set_terminated(self.run_id(key), status)
        self._refresh(key)

    def running(self, driver: str) -> list[tuple[str, str]]:
        """Runs of this driver that nobody ended yet."""
        open_runs = ((key, run) for key, run in self._runs.items() if run.info.status == "RUNNING")
        return [key for key, run in open_runs if run.data.tags.get("driver") == driver]

    def tag(self, key: tuple[str, str], tags: Mapping[str, str]) -> None:
        self._write(self._runs[key], tags, {})

    def study_that_computed(self, signature: str) -> str | None:
        """Another study of this store that has a run of this training."""
        others = [e for e in self._client.search_experiments() if str(e.experiment_id) != self._experiment]
        names = {str(experiment.experiment_id): str(experiment.name) for experiment in others}
        if not names:
            return None
        page = self._client.search_runs(list(names), f"tags.signature = '{signature}'", max_results=1)
        return names[str(page[0].info.experiment_id)] if page else None

    def put_files(self, key: tuple[str, str], folder: Path) -> None:
        self._client.log_artifacts(self.run_id(key), str(folder), "report")

    def put_text(self, key: tuple[str, str], text: str, name: str) -> None:
        self._client.log_text(self.run_id(key), text, name)


def _key(run: Any) -> tuple[str, str]:
    return run.data.tags["kind"], run.data.tags["identity"]


def _is_ours(run: Any, study: str) -> bool:
    tags = run.data.tags
    return tags.get("study") == study and "kind" in tags and "identity" in tags


PROBE = "orchestrator-doctor"


def probe(uri: str) -> None:
    """Write a run with a tiny artefact, read both back, and delete them; whatever goes wrong is raised."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client, content = MlflowClient(uri), secrets.token_hex(8)
    found = client.get_experiment_by_name(PROBE)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    experiment = client.create_experiment(PROBE) if found is None else found.experiment_id
    run = client.create_run(experiment, run_name="probe").info
    try:
        client.log_text(run.run_id, content, "probe.txt")
        artifacts = get_artifact_repository(run.artifact_uri, tracking_uri=uri)
        with tempfile.TemporaryDirectory() as folder:
            if Path(artifacts.download_artifacts("probe.txt", folder)).read_text() != content:
                raise OSError("an artefact does not read back as it was written")
        artifacts.delete_artifacts("probe.txt")
    finally:
        client.delete_run(run.run_id)
        client.delete_experiment(experiment)
