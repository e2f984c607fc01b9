"""From the words of a command to a study that can be planned, run or shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.experiment import Experiment
from orchestrator.graph import Graph
from orchestrator.ledger import Ledger
from orchestrator.manifest import resolve
from orchestrator.planner import build
from orchestrator.reading import UsageError, load_experiment
from orchestrator.remote import s3_endpoint
from orchestrator.standing import stand
from orchestrator.storage import Storage
from orchestrator.trouble import described

if TYPE_CHECKING:
    from orchestrator.report.results import States
    from orchestrator.search.plan import Search


class LedgerTrouble(Exception):
    """The ledger does not answer: one sentence."""


@dataclass(frozen=True)
class Study:
    """An experiment, its graph (of a search: the cells of the trials so far), and the ledger that remembers both."""

    experiment: Experiment
    origins: Mapping[str, str]
    graph: Graph
    ledger: Ledger
    search: Search | None = None

    @property
    def scope(self) -> Graph:
        """Whatever a run may compute; of a search one trial's cells stand for those of all."""
        return self.graph if self.search is None else self.search.sample.graph

    def now(self) -> Study:
        """The study as it is by now: a search may have more trials."""
        return self if self.search is None else replace(self, graph=self.search.graph(self.search.trials()))

    @property
    def tracking_uri(self) -> str:
        """The MLflow store: as configured, else sqlite in a local ledger (or in ./results for a remote one)."""
        configured = self.experiment.execution.tracking_uri
        return tracking_store(self.ledger.storage) if configured is None else configured

    @property
    def report_dir(self) -> Path:
        """Where figures and tables of this study go."""
        return local_home(self.ledger.storage) / "reports" / self.experiment.name


def open_study(path: str, overrides: Sequence[str] = (), ledger: str | None = None) -> Study:
    """Read the experiment, look at its data, draw its graph.

    Raises
    ------
    UsageError
        In one line, for anything wrong with the experiment.
    LedgerTrouble
        In one line, when the ledger cannot be read.
    """
    given = [f"execution.ledger={ledger}", *overrides] if ledger is not None else list(overrides)
    loaded = load_experiment(path, given)
    execution = loaded.experiment.execution
    book = open_ledger(execution.ledger, execution.s3_endpoint_url)
    if loaded.experiment.search is not None:
        from orchestrator.search.plan import Search

        search = Search(loaded.experiment, book, path, given)
        return Study(loaded.experiment, loaded.origins, search.graph(search.trials()), book, search)
    try:
        graph = build(loaded.experiment, resolve(loaded.experiment, book.storage))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    return Study(loaded.experiment, loaded.origins, graph, book)


def survey(study: Study, full: bool) -> States:
    """State and reason of every cell, as planned and as reduced, with what its inputs mean for it."""
    return stand(study.graph, study.ledger, full=full)[1]


def local_home(storage: Storage) -> Path:
    """A folder on this machine for what people look at: the ledger itself where it is a folder, else ./results."""
    return Path(storage.root) if storage.is_local else Path("results")


def tracking_store(storage: Storage) -> str:
    """The MLflow store of a ledger for which none is configured."""
    return f"sqlite:///{local_home(storage) / 'mlflow.db'}"


def ledger_storage(root: str, s3_endpoint_url: str | None = None) -> Storage:
    """Where a ledger is; its endpoint is taken along to nodes whose environment doesn't name it."""
    endpoint = s3_endpoint(s3_endpoint_url)
    return Storage(root, {"endpoint_url": endpoint} if endpoint else {})


def open_ledger(root: str, s3_endpoint_url: str | None = None) -> Ledger:
    """The ledger at a folder or URL, once it has answered; the endpoint may also come from the environment.

    Raises
    ------
    LedgerTrouble
        It cannot be read: no folder, no bucket, no rights, no credentials, no such protocol or host.
    """
    storage = ledger_storage(root, s3_endpoint_url)
    try:
        if storage.is_local and Path(storage.root).exists() and not Path(storage.root).is_dir():
            raise NotADirectoryError("it is a file, not a folder")
        storage.names("")
    except Exception as error:  # each file system has errors of its own
        raise LedgerTrouble(f"ledger {storage.shown}: {_alone(described(error), storage)}") from error
    return Ledger(storage)


def check_writable(ledger: Ledger) -> None:
    """Write to a remote ledger before anything is started.

    Raises
    ------
    LedgerTrouble
        It can be read but not written to.
    """
    try:
        ledger.storage.probe()
    except Exception as error:
        shown = ledger.storage.shown
        raise LedgerTrouble(
            f"ledger {shown} can't be written to: {_alone(described(error), ledger.storage)}"
        ) from error


def _alone(sentence: str, storage: Storage) -> str:
    """A sentence about a store without its name, which is said already."""
    return sentence.removeprefix(f"{storage.shown}: ")
