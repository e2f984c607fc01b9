"""Run a command of this project on the head of a cluster, as a Ray job."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cluster_file import ClusterFileMistake, read_cluster_file
from orchestrator.experiment import ExecutionConfig
from orchestrator.provenance import process_facts
from orchestrator.reading import Loaded, UsageError, check_exploratory, load_experiment
from orchestrator.redaction import redact

if TYPE_CHECKING:
    from orchestrator.jobs import Jobs

ROOT = Path(__file__).resolve().parents[2]
HEAD_TRACKING = "http://127.0.0.1:5000"
DATA_KEYS = ("path", "trials")


@dataclass(frozen=True)
class Command:
    """What runs on the head: the study's name, and the words after ``orchestrator``, with paths from `ROOT`."""

    study: str
    words: tuple[str, ...]
    files: Mapping[str, Path]


def submit(
    path: str,
    overrides: Sequence[str],
    ledger: str | None,
    address: str | None,
    retry: str | None,
    exploratory: bool = False,
) -> int:
    """Check what can be checked here, send the code, start the driver on the head; returns at once."""
    options = [*(() if retry is None else ("--retry", retry)), *(("--exploratory",) if exploratory else ())]
    command = prepare("run", path, overrides, ledger, options)
    from orchestrator.jobs import Jobs, JobTrouble

    try:
        job = send(Jobs(address), command, shlex.join(["orchestrator", *sys.argv[1:]]))
    except JobTrouble as error:
        sys.stderr.write(f"orchestrator: {error}\n")
        return error.code
    at = f" --address {shlex.quote(address)}" if address else ""
    print(job)
    print(f"  where it stands:  orchestrator status {job} --follow{at}")
    print(f"  what it prints:   orchestrator logs {job} --follow{at}")
    print(f"  to stop it:       orchestrator stop {job}{at}")
    return 0


def send(jobs: Jobs, command: Command, resume: str) -> str:
    """The name of the job that now runs `command`; `resume` is what goes on with its work."""
    from orchestrator.jobs import unfit

    if trouble := unfit(ROOT, command.files):
        raise UsageError(trouble)
    facts = process_facts()
    commit = facts["commit"] + ("+dirty" if facts["dirty"] == "true" else "")
    return jobs.submit(command.study, command.words, ROOT, commit, resume)


def prepare(verb: str, path: str, overrides: Sequence[str], ledger: str | None, options: Sequence[str] = ()) -> Command:
    """The command for the head; `UsageError` for what would fail, be lost or be seen by others there."""
    given = [f"execution.ledger={ledger}", *overrides] if ledger is not None else list(overrides)
    loaded = load_experiment(path, given)
    if verb == "run":
        check_exploratory(loaded.experiment, "--exploratory" in options)
    words = [*_from_environment(loaded), *given]
    _refuse_secrets(path, words)
    _refuse_paths(loaded)
    settings, file = loaded.experiment.execution, Path(path).resolve()
    files = {path: file}
    if settings.cluster is not None:
        try:
            read_cluster_file(settings.cluster)
        except ClusterFileMistake as error:
            raise UsageError(str(error)) from None
        if not Path(settings.cluster).is_absolute():
            files[settings.cluster] = Path(settings.cluster).resolve()
    travelling = str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else path
    return Command(loaded.experiment.name, (verb, travelling, *words, "--address", "auto", *options), files)


def _from_environment(loaded: Loaded) -> Iterator[str]:
    """Settings of this machine's environment as overrides: the head has another environment."""
    for name in ExecutionConfig.model_fields:
        if loaded.origins.get(f"execution.{name}", "").startswith("environment") and name != "address":
            value = loaded.experiment.execution.model_dump(mode="json")[name]
            yield f"execution.{name}={json.dumps(value)}"


def _refuse_secrets(path: str, words: Sequence[str]) -> None:
    """A job's command can be read by all who see the cluster's dashboard, and its code too."""
    text = Path(path).read_text(encoding="utf-8")
    for where, content in [(path, text), *(("the command line", word) for word in words)]:
        if redact(content, {}) != content:
            raise UsageError(
                f"{where}: a URL with a password would be readable in the job; leave it out, and give it on the head "
                "(orchestrator ui --serve takes MLFLOW_BACKEND_STORE_URI) or as credentials of the nodes"
            )


def _refuse_paths(loaded: Loaded) -> None:
    """Relative paths mean a job's own temporary folder on the head: nothing is found or kept there."""
    settings = loaded.experiment.execution
    if _is_relative(settings.ledger):
        raise UsageError(
            f"execution.ledger={settings.ledger}: it would lie in the job's temporary folder on the head; give "
            "s3://bucket/prefix, or file:///folder that all nodes share"
        )
    tracking = settings.tracking_uri
    if tracking is None and "://" in settings.ledger and not settings.ledger.startswith("file://"):
        raise UsageError(
            "execution.tracking_uri: without it the runs would be written to the job's temporary folder on the head; "
            f"give {HEAD_TRACKING} (orchestrator ui --serve there), or sqlite:////folder/mlflow.db"
        )
    if tracking is not None and ("://" not in tracking or re.match(r"sqlite:///[^/]", tracking)):
        raise UsageError(f"execution.tracking_uri={tracking}: it is relative to the job's temporary folder on the head")
    for key, value in _data_paths(loaded.experiment.science.model_dump(mode="json"), ""):
        if _is_relative(value):
            raise UsageError(
                f"{key}={value}: data never travels with a job, and a relative path would be looked for in its "
                "temporary folder; give the absolute path on the nodes, or a URL"
            )


def _is_relative(place: str) -> bool:
    return "://" not in place and not Path(place).is_absolute()


def _data_paths(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _data_paths(value, f"{prefix}{key}.")
        elif key in DATA_KEYS and isinstance(value, str):
            yield f"{prefix}{key}", value
