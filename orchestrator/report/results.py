"""What a study found: typed, without figures or words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from orchestrator.graph import Graph
from orchestrator.reasons import Reason, State
from orchestrator.report.eeg_results import (
    Between,
    Ceiling,
    Chosen,
    Cluster,
    Contrast,
    Explored,
    Intermediate,
    Interval,
    Kernels,
    N,
)
from orchestrator.report.quality import SubjectQuality

if TYPE_CHECKING:
    from orchestrator.ledger import Status
    from orchestrator.report.pitch_judgement import Judgement

States = Mapping[str, tuple[State, Reason, "Status | None"]]

PAPER_MODEL = "envelope/hold"


class Condition(BaseModel):
    """One variant at one noise level, as the group stage judged it; p-values are corrected."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    variant: str
    noise_level: float
    delta_r_mean: float | None = None
    delta_r_se: float | None = None
    delta_r_ci: Interval = None
    by_subject: dict[str, float | None] = {}
    delta_r_max_mean: float | None = None
    r_reduced_mean: float | None = None
    r_full_mean: float | None = None
    by_channel: tuple[float | None, ...] = ()
    excess_delta_r_mean: float | None = None
    excess_delta_r_se: float | None = None
    excess_delta_r_ci: Interval = None
    excess_by_subject: dict[str, float | None] = {}
    excess_by_channel: tuple[float | None, ...] = ()
    p_stimulus: float | None = None
    p_stimulus_ci: tuple[float | None, float | None] | None = None
    p_subject: float | None = None
    p: float | None = None
    claimed: bool = False
    significant_channels: tuple[str, ...] = ()
    p_exploratory_by_channel: tuple[float, ...] = ()
    q_exploratory_by_channel: tuple[float, ...] = ()


class Missing(BaseModel):
    """A subject who is not in a group, and why."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    subject: str
    reason: str


class Group(BaseModel):
    """All conditions of one model comparison."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    tested: bool = False
    alpha: float = 0.05
    n_subjects: int = 0
    subjects: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    n_permutations: int = 0
    null: str = "residual_shift"
    calibrated: bool = True
    simulated: bool = False
    channels: tuple[str, ...] = ()
    positions: tuple[tuple[float, float, float], ...] | None = None
    conditions: tuple[Condition, ...] = ()
    n: N | None = None
    notes: tuple[str, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    intermediate: tuple[Intermediate, ...] = ()
    chosen_level: tuple[Chosen, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    between: Between | None = None
    exploratory: Explored | None = None
    ceiling: Ceiling | None = None
    kernels: Kernels | None = None
    verdict: str = ""

    def at(self, variant: str, level: float) -> Condition | None:
        """The condition of `variant` at noise level `level`, if it was computed."""
        return next((c for c in self.conditions if c.variant == variant and c.noise_level == level), None)


class Canaries(BaseModel):
    """Whether listeners whose verdict is known beforehand got it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    verdict: str
    sentence: str = ""
    listeners: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Score:
    """One cell's metrics and per-item rows, at one noise level or SNR (`x`) of one variant, on one recording set."""

    variant: str
    x: str
    metrics: Mapping[str, Any]
    rows: tuple[Mapping[str, str], ...] = ()
    role: str = ""


@dataclass(frozen=True)
class SubjectScore:
    """One subject's encoding models in one condition."""

    variant: str
    noise_level: str
    model: str
    subject: str
    simulated: bool
    signature: str
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Absence:
    """Something that is not in these results, and the sentence that says why."""

    what: str
    why: str


Point = tuple[int, float | None, float, str]
"""A trial's number, the value of the only numeric key (if there is one), its score, its state."""


@dataclass(frozen=True)
class SearchResults:
    """The trials of a search, the best first, and what to type to run the best of them."""

    title: str
    summary: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...]
    csv: tuple[Mapping[str, Any], ...]
    points: tuple[Point, ...]
    axis: str | None
    log: bool
    maximise: bool
    best: str | None
    command: str | None
    material: str


@dataclass(frozen=True)
class Results:
    """Everything the figures, tables and words are made of.

    `pitch` is of the melodies on which noise levels are judged, `pitch_dev` of those on which they are chosen.
    """

    study: str
    variants: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    canaries: Canaries | None = None
    pitch: tuple[Score, ...] = ()
    pitch_dev: tuple[Score, ...] = ()
    reconstruction: tuple[Score, ...] = ()
    audit: tuple[Score, ...] = ()
    solver_audit: tuple[Score, ...] = ()
    definitions: tuple[Score, ...] = ()
    surprisal: tuple[Score, ...] = ()
    subjects: tuple[SubjectScore, ...] = ()
    quality: tuple[SubjectQuality, ...] = ()
    absences: tuple[Absence, ...] = ()
    exclusions: tuple[Absence, ...] = ()
    simulated: bool = False
    bottlenecks: Mapping[str, str] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    done: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    provenance: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    configs: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    search: SearchResults | None = None
    judgement: Judgement | None = None
    exploratory: str = ""
    long: str = ""

    @property
    def tested(self) -> Group | None:
        """The group that may carry a claim."""
        return next((group for group in self.groups if group.tested), None)

    @property
    def paper(self) -> Group | None:
        """The group of the paper's definition, delta r against the envelope alone."""
        return next((group for group in self.groups if group.model == PAPER_MODEL), None)

    @property
    def red(self) -> bool:
        """Whether the canaries failed, so that nothing may be claimed."""
        return self.canaries is not None and self.canaries.verdict != "green"

    def degenerate(self, variant: str, level: float) -> bool:
        """True where the density lies on a sphere: clean latents behind a layer norm."""
        return level == 0 and self.bottlenecks.get(variant) == "layernorm"


def simulates(graph: Graph) -> bool:
    """True when any listener (canaries aside) is a simulation."""
    return any(cell.stage == "eeg" and cell.config.get("kind") == "listener" for cell in graph)


def some(names: list[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
