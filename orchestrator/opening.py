"""From the words of a command to a study that can be planned, run or shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.experiment import Experiment
from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger, Status
from orchestrator.manifest import resolve
from orchestrator.planner import build
from orchestrator.reading import UsageError, load_experiment
from orchestrator.reasons import Reason, State
from orchestrator.stages import STAGES
from orchestrator.storage import Storage

Surveyed = tuple[State, Reason, Status | None]


@dataclass(frozen=True)
class Study:
    """An experiment, its graph, and the ledger that remembers its results."""

    experiment: Experiment
    origins: Mapping[str, str]
    graph: Graph
    ledger: Ledger

    @property
    def tracking_uri(self) -> str:
        """The MLflow store: as configured, else sqlite in a local ledger (or in ./results for a remote one)."""
        configured = self.experiment.execution.tracking_uri
        if configured is not None:
            return configured
        return f"sqlite:///{self.local_root / 'mlflow.db'}"

    @property
    def local_root(self) -> Path:
        """A folder on this machine for what people look at: the ledger itself where it is a folder."""
        return Path(self.ledger.storage.root) if self.ledger.storage.is_local else Path("results")

    @property
    def report_dir(self) -> Path:
        """Where figures and tables of this study go."""
        return self.local_root / "reports" / self.experiment.name


def open_study(path: str, overrides: Sequence[str] = (), ledger: str | None = None) -> Study:
    """Read the experiment, look at its data, draw its graph.

    Raises
    ------
    UsageError
        In one line, for anything wrong with the experiment.
    """
    given = [f"execution.ledger={ledger}", *overrides] if ledger is not None else list(overrides)
    loaded = load_experiment(path, given)
    storage = Storage(loaded.experiment.execution.ledger)
    try:
        graph = build(loaded.experiment, resolve(loaded.experiment, storage))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    return Study(loaded.experiment, loaded.origins, graph, Ledger(storage))


def survey(study: Study, full: bool) -> dict[str, Surveyed]:
    """State and reason of every cell, with what its inputs mean for it."""
    own = study.ledger.survey(study.graph, full=full)
    seen: dict[str, Surveyed] = {}
    for cell in study.graph:
        seen[cell.signature] = _with_inputs(cell, own[cell.signature], seen)
    return seen


def _with_inputs(cell: CellSpec, own: Surveyed, seen: Mapping[str, Surveyed]) -> Surveyed:
    if cell.missing is not None:
        return State.BLOCKED, Reason.DATA_MISSING, None
    if own[0] is not State.TO_DO:
        return own
    lost = [seen[parent][0] in (State.FAILED, State.BLOCKED) for parent in cell.parents]
    if all(lost) if STAGES[cell.stage].aggregate else any(lost):
        return State.BLOCKED, Reason.INPUT_FAILED, None
    return own
