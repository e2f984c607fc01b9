"""What judges a trial: which cells, by which of their numbers, and which way is better."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.experiment import Science
from orchestrator.graph import CellSpec, Graph
from orchestrator.reasons import SENTENCES, State
from orchestrator.search.config import SearchConfig

if TYPE_CHECKING:
    from orchestrator.report.results import States

VALIDATION_LOSS = "validation_loss"


@dataclass(frozen=True)
class Objective:
    """One way of judging: `title` is for people, `needs` says what a study must have for it."""

    name: str
    stage: str
    title: str
    maximise: bool
    needs: str
    material: str = ""

    @property
    def exploratory(self) -> bool:
        """It chooses on held-out EEG."""
        return self.name == "delta_r"


OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective(
            "pitch_rho",
            "pitch",
            "Spearman ρ of IC with pitch surprisal, at its best level",
            True,
            "data.melodies with notes (chorales or midi) and a pitch section",
            "melodies",
        ),
        Objective(
            "log_spectral_distance",
            "reconstruction",
            "log-spectral distance above its floor (dB), mean over SNRs",
            False,
            "data.reconstruction and log_spectral_distance among reconstruction.metrics",
            "reconstruction",
        ),
        Objective(
            "delta_r",
            "trf",
            "Δr, mean over listeners, at its best level",
            True,
            "an eeg section with a tested model",
            "stimuli",
        ),
    )
}


def objective_of(config: SearchConfig) -> Objective:
    """The objective of a search: a stage has its validation loss, variants one by name."""
    if config.over != "variants":
        return Objective(VALIDATION_LOSS, config.over, f"validation loss of {config.over}", False, "")
    return OBJECTIVES[config.objective or "pitch_rho"]


def needed(science: Science, objective: Objective) -> Science:
    """The science without the sections that the objective can't depend on: less to plan, equal signatures."""
    without: dict[str, None] = {"causal_audit": None, "solver_audit": None}
    if not objective.exploratory:
        without["eeg"] = None
    if objective.stage != "reconstruction":
        without["reconstruction"] = None
    if objective.stage not in ("pitch", "trf"):
        without["pitch"] = None
    smaller = science.model_copy(update=without)
    smaller = smaller.model_copy(update={"data": smaller.data.model_copy(update={"melodies_dev": None})})
    if smaller.eeg is not None:
        smaller = smaller.model_copy(update={"eeg": smaller.eeg.model_copy(update={"canaries": None})})
    return smaller


def judges(graph: Graph, objective: Objective) -> tuple[CellSpec, ...]:
    """The cells of one trial's graph whose numbers judge it."""
    cells = [cell for cell in graph if cell.stage == objective.stage]
    if objective.name == "delta_r":
        cells = [cell for cell in cells if cell.labels.get("tested") == "true"]
        first = next((cell.labels["model"] for cell in cells), "")
        cells = [cell for cell in cells if cell.labels["model"] == first]
    if objective.name == "pitch_rho":
        cells = [cell for cell in cells if cell.labels.get("role") == objective.material]
    if objective.name == "log_spectral_distance":
        cells = [cell for cell in cells if objective.name in cell.config["metrics"]]
    return tuple(cells)


def with_ancestors(graph: Graph, signatures: Iterable[str], themselves: bool = True) -> Graph:
    """The part of a graph that some cells need; without the cells themselves when they are not wanted."""
    wanted, left = set[str](), list(signatures)
    leaves = set(left)
    while left:
        signature = left.pop()
        if signature not in wanted:
            wanted.add(signature)
            left += graph.cells[signature].parents
    wanted -= set() if themselves else leaves
    return Graph({key: cell for key, cell in graph.cells.items() if key in wanted}, graph.notes)


def score(objective: Objective, cells: Sequence[CellSpec], states: States) -> float | str:
    """A trial's score from its cells' metrics in the ledger, or the sentence that says why it has none."""
    numbers: dict[str, list[float]] = {}
    for cell in cells:
        state, reason, status = states[cell.signature]
        if status is None or state is not State.CACHED:
            failure = status.failure if status is not None and status.failure else SENTENCES[reason]
            return f"{cell.name}: {failure}"
        number = _number(objective, status.metrics)
        if number is None:
            return f"{cell.name}: it has no {objective.name}"
        numbers.setdefault(cell.labels.get("noise_level", ""), []).append(number)
    means = [statistics.fmean(found) for found in numbers.values()]
    return max(means) if objective.maximise else min(means)


def _number(objective: Objective, metrics: Mapping[str, object]) -> float | None:
    match objective.name:
        case "pitch_rho":
            return _float(metrics.get("spearman_mean"))
        case "log_spectral_distance":
            mean, floor = (_float(metrics.get(f"{objective.name}_{kind}mean")) for kind in ("", "floor_"))
            return None if mean is None or floor is None else mean - floor
        case name:
            return _float(metrics.get(name))


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value == value and abs(value) != float("inf") else None
