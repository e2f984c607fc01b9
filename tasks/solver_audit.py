"""Stage ``solver_audit``: how far IC can be relied on, measured on a few frames of every recording.

`solver_error_nats` of the stage ``surprisal`` is an estimate from frames that the flow generates. Here the study's own
frames are solved again, some drawn at random from every recording, in the contexts that they have in their recordings:

- with two seeds of their own: the correlation of the two is IC's reliability, what its ranks can be worth to anything;
- with a fine rule: the quadrature with the exact divergence, as many nodes as the solver ``exact`` has or twice the
  study's own, whichever is more, and 16 at least from any level. The difference is the solver's error. The way along
  the probability flow from the clean frame to the level is the same in both, unless the study's solver is ``euler``;
- with twice the nodes (8 at least from any level) and twice the probes in all, so that a node has as many as before; or
  with twice the steps of ``euler`` and the same probes. IC must not change much: at s = 0 latents behind a layer norm
  have a degenerate density, and IC is partly what the solver makes of it. The constant that the quadrature adds for
  what its rule gets wrong is then of the finer rule: it is told beside this, for the change doesn't show it;
- by the other definitions of IC: the rank table, in the context that each has by default. They share probes and noise,
  so that what differs is the definition; read a correlation beside the reliability.

Where a definition draws noise, the two seeds draw it anew; all else has the noise of the first.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from tasks.config import ProbeFile, SurprisalCell
from tasks.contract import Cell, Context, Result, Stopped, TaskError
from tasks.flow.contexts import contexts, windows
from tasks.flow.information import BLOCK_FRAMES, InformationContent
from tasks.seeds import numpy_stream
from tasks.surprisal import Surprisal

OWN = "study"
"""The study's IC in the rank table, where it is by none of the definitions as they are compared."""
FINE_NODES = 48
LEAST_FINE, LEAST_DOUBLED = 16, 8
"""Nodes from any level, where the share of the whole path's that lies before it is fewer."""
COLUMNS = (
    "role",
    "recording",
    "n_frames",
    "reliability",
    "reliability_pearson",
    "rmse_nats",
    "bias_nats",
    "doubling_nats",
    "doubling_mean_nats",
    "ic_sd",
)
PAIR_COLUMNS = ("role", "definition_a", "definition_b", "spearman", "spearman_pooled")

Floats = npt.NDArray[np.float64]
Posed = list[tuple[Tensor, Tensor]]
"""Frames (N, D) as they are at a noise level and their contexts (N, C), for each draw of noise."""


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Audit the IC of every usable recording at the noise level of each cell.

    Inputs ``flow`` and ``latents``. Files: ``audit.csv``, a row per recording, and, where definitions are compared,
    ``definitions.csv``, a row per pair of them with the rank correlation (mean within recordings, and pooled). Metrics:
    ``reliability_mean``, the rank correlation of IC with two seeds within recordings, its ``reliability_se`` over
    recordings, ``reliability_pooled`` over all frames, ``reliability_pearson_mean`` and ``reliability_pearson_pooled``;
    ``rmse_nats`` and ``bias_nats`` of IC against a fine rule, ``rmse_over_sd``; ``rule_constant_nats``, what the
    study's solver adds to every frame for what its rule gets wrong of generated frames (None where it adds nothing),
    and its standard error ``rule_constant_se_nats``; ``doubling_nats``, the RMS change of IC
    with twice the nodes or steps, and ``doubling_mean_nats``; ``ic_sd`` of the same frames; ``spearman_NAME``, of the
    study's IC with that of each definition; ``n_frames``, ``n_recordings`` and ``skipped``. A correlation is None
    where IC doesn't vary, and so is ``rmse_over_sd``.

    Raises
    ------
    Stopped
        When the study was asked to stop.
    """
    loaded: tuple[tuple[Any, ...], Audit] | None = None
    for done, cell in enumerate(cells):
        drawn = (cell.config["seed"], cell.config["frames_per_recording"])
        key = (cell.input("flow").signature, cell.input("latents").signature, *drawn)
        try:
            if loaded is None or loaded[0] != key:
                loaded = (key, Audit(cell))
            yield loaded[1].judge(cell, context)
        except TaskError as problem:
            yield Result(cell.signature, failure=str(problem))
        context.progress(done + 1, len(cells), {})


class Audit:
    """One recording set of one variant: its flow, its latents, and which frames of each recording are audited.

    Which frames depends on the seed and the recording, so that all levels and variants of a study audit the same.
    """

    def __init__(self, cell: Cell) -> None:
        self.of = Surprisal(cell.input("flow"), cell.input("latents"))
        self.device = self.of.flow.head.out.weight.device
        seed, most = int(cell.config["seed"]), int(cell.config["frames_per_recording"])
        self.drawn = {name: drawn_frames(len(frames), most, seed, name) for name, frames in self.of.recordings.items()}

    @torch.inference_mode()
    def judge(self, cell: Cell, context: Context) -> Result:
        """Solve the frames again at the level of one cell, and write the tables."""
        role, config = str(cell.config["role"]), SurprisalCell.model_validate(cell.config["surprisal"])
        if isinstance(config.probes, ProbeFile):
            raise TaskError("solver_audit: given probes aren't audited, there is one set of them; drawn and exact are")
        if not self.drawn:
            raise TaskError("No recording has latents to audit: " + ("; ".join(self.of.skipped[:5]) or "none given"))
        compared = {name: SurprisalCell.model_validate(one) for name, one in cell.config["definitions"].items()}
        measured, by_definition, constant = self.solve(config, compared, cell.signature, context)
        rows, kept, left_out = [], np.zeros(len(measured[0]), dtype=bool), []
        parts = self.parts()
        for name, part in parts.items():
            if np.isfinite(np.stack([*measured, *by_definition.values()])[:, part]).all():
                rows.append({"role": role, "recording": name, **compare(*(values[part] for values in measured))})
                kept[part] = True
            else:
                left_out.append(f"{name}: IC isn't finite")
        skipped = self.of.skipped + left_out
        if not rows:
            raise TaskError("No recording could be audited: " + "; ".join(skipped[:5]))
        pairs = rank_table(by_definition, [parts[row["recording"]] for row in rows])
        (cell.out_dir / "audit.csv").write_text(_table(COLUMNS, rows), encoding="utf-8")
        if compared:
            table = _table(PAIR_COLUMNS, [{"role": role, **pair} for pair in pairs])
            (cell.out_dir / "definitions.csv").write_text(table, encoding="utf-8")
        metrics = _summary(rows, *(values[kept] for values in measured)) | _of_own(config, compared, pairs)
        metrics |= dict(zip(("rule_constant_nats", "rule_constant_se_nats"), constant or (None, None), strict=True))
        return Result(cell.signature, {**metrics, "n_skipped": len(skipped), "skipped": skipped[:20]})

    def parts(self) -> dict[str, slice]:
        """Where the frames of each recording lie among all that are audited."""
        ends = np.cumsum([len(frames) for frames in self.drawn.values()])
        return {name: slice(end - len(self.drawn[name]), end) for name, end in zip(self.drawn, ends, strict=True)}

    def solve(
        self, config: SurprisalCell, compared: Mapping[str, SurprisalCell], signature: str, context: Context
    ) -> tuple[tuple[Floats, Floats, Floats, Floats], dict[str, Floats], tuple[float, float] | None]:
        """IC (N,) in nats of all frames: the study's, with another seed, by a fine rule, with twice the nodes; by each
        definition, the study's own last where it is none of them; and the constant of the study's solver."""
        seed, other = (f"{signature} {which}" for which in ("first", "second"))

        def solver(cell: SurprisalCell, seed: str = seed) -> InformationContent:
            return InformationContent(self.of.flow, self.of.window, cell, seed)

        study, again = solver(config), solver(config, other)
        posed = self.posed(study)
        noisy = config.noise_level > 0 and config.definition in ("monte_carlo", "expected")
        ic = self.ic(study, posed, context)
        repeated = self.ic(again, self.posed(again) if noisy else posed, context)
        finely, doubled = (self.ic(solver(cell), posed, context) for cell in (fine(config), twice(config)))
        by_definition: dict[str, Floats] = {}
        for name, cell in compared.items():
            one = solver(cell)
            by_definition[name] = ic if cell == config else self.ic(one, self.posed(one), context)
        if compared and config not in compared.values():
            by_definition[OWN] = ic
        return (ic, repeated, finely, doubled), by_definition, study.rule_constant_nats

    def posed(self, solver: InformationContent) -> Posed:
        """The frames as they are at the solver's level, with what precedes them in their recordings."""
        found = []
        for draw in range(solver.n_draws):
            targets, seen = [], []
            for name, frames in self.drawn.items():
                latents = self.of.recordings[name]
                noised = solver.noised(latents, (name, draw))
                targets.append(noised[torch.from_numpy(frames).to(self.device)])
                clean = torch.from_numpy(latents).to(noised)
                seen.append(self._contexts(solver, noised if solver.cell.context == "transformed" else clean, frames))
            found.append((torch.cat(targets), torch.cat(seen)))
        return found

    def _contexts(self, solver: InformationContent, before: Tensor, frames: npt.NDArray[np.int64]) -> Tensor:
        """Contexts (n, C) of `frames` of one recording ``before (T, D)``."""
        if solver.cell.context == "none":
            return self.of.flow.null_contexts(len(frames))
        every = windows(("", 0), before, self.of.window)
        shown = [one for one in every if ((frames >= one.first) & (frames < one.start + len(one.frames))).any()]
        parts = []
        for window, rows in contexts(self.of.flow, shown):
            here = frames[(frames >= window.first) & (frames < window.first + len(rows))] - window.first
            parts.append(rows[torch.from_numpy(here).to(rows.device)])
        return torch.cat(parts)

    def ic(self, solver: InformationContent, posed: Posed, context: Context) -> Floats:
        """IC (N,) of all frames, the mean over draws; probes go by a frame's place among those of the set."""
        count, size = len(posed[0][0]), BLOCK_FRAMES[self.device.type]
        total = np.zeros(count)
        for draw, (targets, seen) in enumerate(posed):
            for start in range(0, count, size):
                if context.should_stop():
                    raise Stopped
                part = slice(start, min(start + size, count))
                frames = range(part.start, part.stop)
                total[part] += solver.given(f"frames {draw}", count, frames, targets[part], seen[part])
        return total / len(posed)


def drawn_frames(n_frames: int, most: int, seed: int, recording: str) -> npt.NDArray[np.int64]:
    """At most `most` of the frames behind the first, rising."""
    random = numpy_stream("solver audit", seed, recording)
    return np.sort(random.choice(np.arange(1, n_frames), size=min(most, n_frames - 1), replace=False))


def fine(cell: SurprisalCell) -> SurprisalCell:
    """The rule that IC is held against: exact divergence, and at least twice the nodes."""
    nodes = _nodes(cell, max(FINE_NODES, 2 * cell.n_nodes), LEAST_FINE)
    better = {"solver": "quadrature", "n_nodes": nodes, "order": 3, "precision": "float32", "probes": "exact"}
    return cell.model_copy(update=better)


def twice(cell: SurprisalCell) -> SurprisalCell:
    """The same with twice the nodes and twice the probes in all, or with twice the steps."""
    if cell.solver == "euler":
        return cell.model_copy(update={"n_steps": 2 * cell.n_steps})
    nodes = _nodes(cell, 2 * cell.n_nodes, LEAST_DOUBLED)
    return cell.model_copy(update={"n_nodes": nodes, "n_probes": math.ceil(2 * cell.n_nodes * cell.n_probes / nodes)})


def _nodes(cell: SurprisalCell, nodes: int, least: int) -> int:
    """Nodes of the whole path: `nodes`, or so many that `least` of them lie before the level."""
    tau = 1 - cell.noise_level
    return max(nodes, math.ceil(least / tau)) if tau > 0 else nodes


def compare(ic: Floats, again: Floats, finely: Floats, doubled: Floats) -> dict[str, Any]:
    """What the IC of some frames, (n,) nats each, is worth: correlations with another seed, and errors."""
    return {
        "n_frames": len(ic),
        "reliability": correlation(ic, again, stats.spearmanr),
        "reliability_pearson": correlation(ic, again, stats.pearsonr),
        "rmse_nats": _rms(ic - finely),
        "bias_nats": float((ic - finely).mean()),
        "doubling_nats": _rms(doubled - ic),
        "doubling_mean_nats": float((doubled - ic).mean()),
        "ic_sd": float(ic.std()),
    }


def rank_table(by_definition: Mapping[str, Floats], parts: Sequence[slice]) -> list[dict[str, Any]]:
    """A row per pair of definitions: Spearman, the mean within the recordings `parts`, and over all their frames."""
    rows = []
    for first, second in combinations(by_definition, 2):
        a, b = by_definition[first], by_definition[second]
        within = [correlation(a[part], b[part], stats.spearmanr) for part in parts]
        every = [np.concatenate([values[part] for part in parts]) for values in (a, b)]
        found = {"spearman": _mean(within), "spearman_pooled": correlation(every[0], every[1], stats.spearmanr)}
        rows.append({"definition_a": first, "definition_b": second, **found})
    return rows


def correlation(first: Floats, second: Floats, of: Callable[[Floats, Floats], Any]) -> float | None:
    """The statistic `of` two series; None where one of them doesn't vary."""
    return float(of(first, second).statistic) if _varies(first) and _varies(second) else None


def _varies(values: Floats) -> bool:
    return bool(np.ptp(values) > 1e-9 * np.abs(values).max())


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _mean(values: Sequence[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return float(np.mean(given)) if given else None


def _summary(rows: Sequence[Mapping[str, Any]], *measured: Floats) -> dict[str, Any]:
    """The metrics of all recordings: errors over all frames, correlations within recordings and over all frames."""
    pooled = compare(*measured)
    within = [row["reliability"] for row in rows if row["reliability"] is not None]
    return {
        "reliability_mean": _mean(within),
        "reliability_se": float(np.std(within, ddof=1) / np.sqrt(len(within))) if len(within) > 1 else None,
        "reliability_pooled": pooled.pop("reliability"),
        "reliability_pearson_mean": _mean([row["reliability_pearson"] for row in rows]),
        "reliability_pearson_pooled": pooled.pop("reliability_pearson"),
        **pooled,
        "rmse_over_sd": pooled["rmse_nats"] / pooled["ic_sd"] if _varies(measured[0]) else None,
        "n_recordings": len(rows),
    }


def _of_own(
    config: SurprisalCell, compared: Mapping[str, SurprisalCell], pairs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Rank correlations of the study's IC with that of each other definition."""
    own = next((name for name, cell in compared.items() if cell == config), OWN)
    found = {}
    for pair in pairs:
        names = [pair["definition_a"], pair["definition_b"]]
        if own in names:
            names.remove(own)
            found[f"spearman_{names[0]}"] = pair["spearman"]
    return found


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return stream.getvalue()
