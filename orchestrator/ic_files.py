"""IC as files for people and other programs: a table per recording, and beside it what the numbers mean."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.graph import CellSpec
from orchestrator.ledger import CorruptArtefact, Ledger
from orchestrator.local_files import Replacing
from orchestrator.models import Model
from orchestrator.paths import check_name
from orchestrator.provenance import UNKNOWN
from orchestrator.reading import UsageError
from orchestrator.stages import STAGES
from orchestrator.status import Status, StatusDamaged
from tasks.audio.sources import file_name
from tasks.contract import Artefact, TaskError
from tasks.ic import FRAME_SAMPLES, SAMPLE_RATE_HZ, IcSeries, Stamp, Table, read_ic, tabulate, write_csv, write_parquet

Format = Literal["csv", "parquet"]

_STAMPS = {
    "start": "start of the frame",
    "end": "end of the frame: the first sample after it",
    "published": "4096 (row + 1) samples, as CPJKU/pa-audioic stamps its rows",
}
_MISSING = {
    "start": "silence at either end, and frame 0, which has no context",
    "end": "silence at either end, and frame 0, which has no context",
    "published": "silence at either end; frame 0, which has no context, has no row",
}


@dataclass(frozen=True)
class Level:
    """The IC of all recordings at one noise level, as it was typed and as the ledger has it."""

    typed: str
    value: float
    cell: CellSpec
    status: Status
    about: Mapping[str, Any]
    series: Mapping[str, IcSeries]

    def solver_error_nats(self, recording: str) -> float | None:
        """The solver's estimate of its own error for a recording, where it makes one; else for the whole cell."""
        own = self.about["recordings"].get(recording, {}).get("solver_error_nats")
        whole = self.about.get("solver_error_nats", self.status.metrics.get("solver_error_nats"))
        if isinstance(whole, Mapping):
            whole = whole.get(recording)
        error = whole if own is None else own
        return float(error) if isinstance(error, int | float) and math.isfinite(error) else None


@dataclass(frozen=True)
class Asked:
    """A recording as it was asked for: its own cells, `wanted` by level as typed, and what its table is called.

    `id` is what its own cells call it; `name` differs from it where another recording asked for has the same.
    """

    name: str
    id: str
    path: str
    corpus: CellSpec
    latents: CellSpec
    wanted: Mapping[str, tuple[float, CellSpec]]

    @property
    def cells(self) -> list[CellSpec]:
        """All of them, each after those that it reads."""
        return [self.corpus, self.latents, *(cell for _, cell in self.wanted.values())]


def gather(ledger: Ledger, asked: Asked) -> tuple[list[Level], list[str]]:
    """Read the finished levels of a recording, and why others, or parts of them, are left out."""
    for cell, called in ((asked.corpus, file_name(asked.path)), (asked.latents, asked.id)):
        status = _status(ledger, cell)
        if status is not None and status.failure:
            return [], [_reason(status.failure, called)]
    levels: list[Level] = []
    said: dict[str, list[str]] = {}
    for typed, (value, cell) in asked.wanted.items():
        level, reasons = _read_level(ledger, asked.id, typed, value, cell)
        levels += [level] if level is not None else []
        for reason in reasons:
            said.setdefault(_reason(reason, asked.id), []).append(typed)
    every = list(asked.wanted)
    return levels, [
        reason if typed == every else f"noise level {', '.join(typed)}: {reason}" for reason, typed in said.items()
    ]


def _reason(failure: str, called: str) -> str:
    """What a stage says of the recording it calls so, without the words before."""
    _, is_named, reason = f" {failure}".partition(f" {called}: ")
    return reason if is_named else failure


def _read_level(
    ledger: Ledger, recording: str, typed: str, value: float, cell: CellSpec
) -> tuple[Level | None, list[str]]:
    status = _status(ledger, cell)
    if status is None or status.state != "done":
        failure = status.failure if status is not None else None
        return None, [failure or "it has no IC: the study ended before it; run the same command again"]
    try:
        artefact: Artefact = ledger.artefact(cell.stage, cell.signature, None)
        about = json.loads(artefact.read_bytes("ic.json"))
        series = read_ic(artefact)
    except (CorruptArtefact, TaskError) as error:
        return None, [str(error)]
    level = Level(typed, value, cell, status, about, series)
    return level if recording in series else None, list(about.get("skipped", []))


def _status(ledger: Ledger, cell: CellSpec) -> Status | None:
    try:
        return ledger.status(cell.stage, cell.signature)
    except StatusDamaged:
        return None


def check_replaceable(out: Path, name: str, kind: Format) -> None:
    """Refuse to replace what this command didn't write: a JSON that names no cells, a table without one beside it.

    Raises
    ------
    UsageError
        In one line, with the path.
    """
    sidecar, table = out / f"{name}.json", out / f"{name}.{kind}"
    there = next((path for path in (sidecar, table) if os.path.lexists(path)), None)
    if there is not None and not (there == sidecar and _is_ours(sidecar)):
        raise UsageError(f"{there}: not a file of this command's, so it isn't replaced; choose another folder by --out")


def _is_ours(sidecar: Path) -> bool:
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("cells"), dict)


def write(asked: Asked, levels: list[Level], model: Model, out: Path, kind: Format, stamp: Stamp) -> Path:
    """Write the table of a recording and its description into the folder `out`; give the path of the table."""
    check_name(asked.name)
    check_replaceable(out, asked.name, kind)
    table = tabulate({level.typed: level.series[asked.id] for level in levels}, stamp)
    described = describe(asked, levels, model, table, stamp)
    target = out / f"{asked.name}.{kind}"
    with Replacing(target) as part, Replacing(out / f"{asked.name}.json") as beside:  # a table is never there alone
        _write_table(part, table, kind)
        beside.write_text(json.dumps(described, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return target


def _write_table(path: Path, table: Table, kind: Format) -> None:
    if kind == "csv":
        with path.open("w", encoding="utf-8") as text:
            write_csv(text, table)
    else:
        with path.open("wb") as stream:
            write_parquet(stream, table)


def describe(asked: Asked, levels: list[Level], model: Model, table: Table, stamp: Stamp) -> dict[str, Any]:
    """What a table holds: units, time base, how the IC was computed, by what, and how wrong the solver may be."""
    first = levels[0]
    series = first.series[asked.id]
    solved = {key: value for key, value in first.cell.config.items() if key != "noise_level"}
    solved.setdefault("context", "clean" if solved["definition"] == "probability_flow" else "transformed")
    facts = first.status.provenance
    return {
        "recording": asked.name,
        "path": asked.path,
        "unit": "nats",
        "columns": {f"IC_{level.typed}": {"noise_level": level.value} for level in levels},
        "missing_values": _MISSING[stamp],
        "time": {
            "unit": "s",
            "stamp": _STAMPS[stamp],
            "first_stamp_s": f"{table.time_samples[0]}/{SAMPLE_RATE_HZ}" if len(table.time_samples) else None,
            "frame_period_s": f"{FRAME_SAMPLES}/{SAMPLE_RATE_HZ}",
            "lead_samples": series.lead_samples,
            "trail_samples": series.trail_samples,
            "n_frames": len(series.values),
            "sample_rate_hz": SAMPLE_RATE_HZ,
        },
        **solved,
        "solver_error_nats": {level.typed: level.solver_error_nats(asked.id) for level in levels},
        "model": {"name": model.flow.name, "signature": model.flow.signature},
        "autoencoder": {"name": model.codec.name, "signature": model.codec.signature},
        "cells": {level.typed: level.cell.signature for level in levels},
        "version": {"surprisal": STAGES["surprisal"].version, "commit": facts.get("commit", UNKNOWN)},
    }
