"""Reads what a study left in the ledger: missing stages, failures and damaged files become sentences, never errors."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.graph import CellSpec, Graph
from orchestrator.reasons import SENTENCES, Reason, State
from orchestrator.report.quality import SubjectQuality
from orchestrator.report.results import (
    Absence,
    Canaries,
    Group,
    Results,
    Score,
    States,
    SubjectScore,
    simulates,
    some,
)
from orchestrator.standing import stand

if TYPE_CHECKING:
    from orchestrator.ledger import Ledger, Status

Parsed = TypeVar("Parsed", bound=BaseModel)
LONG = "long.csv"
OLDER = "these results were computed before they were kept with them, so they are not shown"


def gather(graph: Graph, ledger: Ledger, study: str, states: States | None = None) -> Results:
    """Read what the study's cells left in the ledger; whatever can't be read becomes an `Absence`."""
    graph, states = stand(graph, ledger, states)
    reader = _Reader(graph, ledger, states)
    variants = tuple(dict.fromkeys(cell.labels["variant"] for cell in graph if "variant" in cell.labels))
    arms = {c.labels["variant"]: c.config for c in graph if c.stage == "autoencoder" and "variant" in c.labels}
    arms |= {c.labels["variant"]: arms[c.labels["trained"]] for c in graph if c.labels.get("trained") in arms}
    groups = tuple(filter(None, map(reader.group, reader.done("group"))))
    canaries = next(filter(None, map(reader.canaries, reader.done("canaries"))), None)
    subjects, quality = reader.subjects(), reader.quality()
    long = reader.long()
    return Results(
        study=study,
        variants=variants,
        groups=groups,
        canaries=canaries,
        pitch=tuple(reader.pitch("melodies")),
        pitch_dev=tuple(reader.pitch("melodies_dev")),
        reconstruction=tuple(reader.score(cell, "snr", "scores.csv") for cell in reader.done("reconstruction")),
        audit=tuple(reader.score(cell, "noise_level", "audit.csv") for cell in reader.done("causal_audit")),
        solver_audit=tuple(reader.score(cell, "noise_level", "audit.csv") for cell in reader.done("solver_audit")),
        definitions=tuple(reader.score(cell, "noise_level", "definitions.csv") for cell in reader.compared()),
        surprisal=tuple(reader.score(cell, "noise_level") for cell in reader.done("surprisal")),
        subjects=subjects,
        quality=quality,
        absences=(*reader.absences, *reader.not_done(), *_of_groups(groups), *_not_asked(graph)),
        exclusions=reader.exclusions(),
        simulated=any(g.simulated for g in groups) or any(s.simulated for s in subjects) or simulates(graph),
        bottlenecks={variant: _bottleneck(variant, arms.get(variant)) for variant in variants},
        arms=arms,
        done=reader.counts(),
        provenance=reader.provenance(),
        configs=_configs(graph),
        long=long,
    )


def _bottleneck(variant: str, arm: Mapping[str, Any] | None) -> str:
    return str(arm["bottleneck"]) if arm and "bottleneck" in arm else variant.split(" ")[0]


class _Reader:
    """Reads finished cells, and keeps what could not be read."""

    def __init__(self, graph: Graph, ledger: Ledger, states: States) -> None:
        self.graph, self.ledger, self.states = graph, ledger, states
        self.absences: list[Absence] = []

    def status(self, cell: CellSpec) -> Status | None:
        found = self.states.get(cell.signature)
        return found[2] if found and found[0] is State.CACHED else None

    def done(self, stage: str) -> list[CellSpec]:
        return [cell for cell in self.graph if cell.stage == stage and self.status(cell)]

    def compared(self) -> list[CellSpec]:
        """The audits of the solver that compare the definitions of IC."""
        return [cell for cell in self.done("solver_audit") if cell.config.get("definitions")]

    def text(self, cell: CellSpec, name: str) -> str | None:
        try:
            return self.ledger.artefact(cell.stage, cell.signature, None).read_bytes(name).decode()
        except Exception as error:  # any file system's error, or a wrong checksum: the report says so and goes on
            self.absences.append(Absence(f"{name} of {cell.name}", _sentence(error)))
            return None

    def _parsed(self, cell: CellSpec, name: str, kind: type[Parsed], **extra: Any) -> Parsed | None:
        text = self.text(cell, name)
        try:
            return None if text is None else kind.model_validate({**json.loads(text), **extra})
        except (ValueError, TypeError, ValidationError) as error:
            self.absences.append(Absence(f"{name} of {cell.name}", f"it cannot be read: {_sentence(error)}"))
            return None

    def group(self, cell: CellSpec) -> Group | None:
        label = cell.labels.get("model")
        return self._parsed(cell, "group.json", Group, **({"model": label} if label else {}))

    def long(self) -> str:
        """The long tables of all groups under one header, in the order of their models."""
        cells = [cell for cell in self.done("group") if LONG in getattr(self.status(cell), "files", {})]
        texts = [self.text(cell, LONG) for cell in sorted(cells, key=lambda cell: cell.labels.get("model", ""))]
        parts = [text.split("\n", 1) for text in texts if text]
        return "\n".join([parts[0][0], "".join(rows for _, rows in parts)]) if parts else ""

    def canaries(self, cell: CellSpec) -> Canaries | None:
        return self._parsed(cell, "canaries.json", Canaries)

    def score(self, cell: CellSpec, axis: str, table: str | None = None) -> Score:
        """The cell's metrics, and the rows of its table where it has one."""
        text, status = self.text(cell, table) if table else None, self.status(cell)
        rows = tuple(csv.DictReader(io.StringIO(text))) if text else ()
        labels = cell.labels
        metrics = status.metrics if status else {}
        return Score(labels.get("variant", ""), labels.get(axis, ""), metrics, rows, labels.get("role", ""))

    def pitch(self, role: str) -> Iterator[Score]:
        """Correlations with pitch surprisal on one recording set."""
        for cell in self.done("pitch"):
            if cell.labels.get("role", "melodies") == role:
                yield self.score(cell, "noise_level", "correlation.csv")

    def subjects(self) -> tuple[SubjectScore, ...]:
        scores = []
        for cell in self.done("trf"):
            status, subject = self.status(cell), cell.labels.get("subject", "")
            if status is None or subject.startswith("canary-"):
                continue
            eeg = self.states.get(str(cell.inputs.get("eeg", "")))
            simulated = bool(eeg and eeg[2] and eeg[2].metrics.get("simulated"))
            labels = (cell.labels.get("variant", ""), cell.labels.get("noise_level", ""), cell.labels.get("model", ""))
            scores.append(SubjectScore(*labels, subject, simulated, cell.signature, status.metrics))
        return tuple(scores)

    def quality(self) -> tuple[SubjectQuality, ...]:
        """How good each subject's EEG was, by name; canaries aside, and simulations of which nothing is to be said."""
        cells = [cell for cell in self.done("eeg") if not cell.labels.get("subject", "").startswith("canary-")]
        told = [cell for cell in cells if "eeg.json" in getattr(self.status(cell), "files", {})]
        found = filter(None, (self._parsed(cell, "eeg.json", SubjectQuality) for cell in told))
        return tuple(sorted((part for part in found if part.worth_showing), key=lambda part: part.subject))

    def not_done(self) -> tuple[Absence, ...]:
        """Failures by their own sentence (each once); what waits for them or was never run by number."""
        failures: dict[tuple[str, str], list[str]] = {}
        waiting: dict[tuple[str, str], int] = {}
        for cell in self.graph:
            _, reason, status = self.states.get(cell.signature, (State.TO_DO, Reason.NEW, None))
            if status is not None and status.state == "failed":
                sentence = status.failure or SENTENCES[reason]
                failures.setdefault((cell.stage, sentence), []).append(cell.name)
            elif self.status(cell) is None:
                why = f"{SENTENCES[Reason.DATA_MISSING]}: {cell.missing}" if cell.missing else SENTENCES[reason]
                waiting[cell.stage, why] = waiting.get((cell.stage, why), 0) + 1
        named = [Absence(f"{stage}: {some(names)}", sentence) for (stage, sentence), names in failures.items()]
        rest = [Absence(f"{stage}: {_cells(n)}", why) for (stage, why), n in waiting.items()]
        return (*named, *rest)

    def exclusions(self) -> tuple[Absence, ...]:
        """Parts of the data that a stage left out and named."""
        found: dict[Absence, None] = {}
        for cell in self.graph:
            status = self.status(cell)
            skipped = status.metrics.get("skipped") if status else None
            for line in skipped if isinstance(skipped, list) else ():
                found[Absence(cell.name, str(line))] = None
        return tuple(found)

    def counts(self) -> dict[str, tuple[int, int]]:
        counts: dict[str, tuple[int, int]] = {}
        for cell in self.graph:
            done, total = counts.get(cell.stage, (0, 0))
            counts[cell.stage] = (done + (self.status(cell) is not None), total + 1)
        return counts

    def provenance(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {}
        for cell in self.graph:
            status = self.status(cell)
            for key, value in (status.provenance if status else {}).items():
                if key not in ("started", "finished", "pid"):
                    found.setdefault(key, set()).add(str(value))
        return {key: tuple(sorted(values)) for key, values in sorted(found.items())}


def _cells(n: int) -> str:
    return f"{n} cell" if n == 1 else f"{n} cells"


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _of_groups(groups: Iterable[Group]) -> tuple[Absence, ...]:
    """What the groups' tests are without, each once, and that there is no map where channels have no positions."""
    notes = dict.fromkeys(note for group in groups for note in group.notes)
    maps = ("figure scalp_maps", "the channels have no positions, so there is no map of them")
    tested = any(group.tested and group.conditions and not group.positions for group in groups)
    older = any(group.kernels is None for group in groups)
    found = [Absence(*maps)] if tested else []
    found += [Absence("figure kernels, noise ceiling", OLDER)] if older else []
    return (*(Absence("group", note) for note in notes), *found)


def _not_asked(graph: Graph) -> tuple[Absence, ...]:
    stages = {cell.stage for cell in graph}
    rows: Iterable[tuple[str, str, str]] = (
        ("eeg", "EEG", "the study has no EEG data, so nothing is said about listeners"),
        ("pitch", "pitch correlation", "the study has no melodies with known notes"),
        ("reconstruction", "reconstruction", "the study has no recordings to reconstruct"),
        ("canaries", "canaries", "the study has no listeners whose verdict is known beforehand"),
    )
    asked = (row for row in rows if row[0] not in stages and (row[0] != "canaries" or "eeg" in stages))
    notes = (Absence("plan", note) for note in graph.notes if "the study has no" not in note)
    return (*(Absence(what, why) for _, what, why in asked), *notes)


def _configs(graph: Graph) -> dict[str, tuple[Mapping[str, Any], ...]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell in graph:
        kept = found.setdefault(cell.stage, [])
        if cell.config not in kept and len(kept) < 64:
            kept.append(cell.config)
    return {stage: tuple(configs) for stage, configs in found.items()}
