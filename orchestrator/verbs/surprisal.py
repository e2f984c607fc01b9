"""IC of any recordings with a model from the ledger: a small study of its own, so that it resumes like one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger
from orchestrator.manifest import AUDIO_SUFFIXES, Fingerprints
from orchestrator.reading import UsageError
from orchestrator.signature import SHORT, canonical, sign
from orchestrator.stages import STAGES
from orchestrator.storage import Storage, list_files
from tasks.audio.config import DataSet, SplitConfig
from tasks.config import SurprisalConfig


def surprisal(
    files: Sequence[str], model: str, noise_levels: str, out: str, ledger_root: str, n_steps: int, n_probes: int
) -> int:
    """Write one csv per recording into `out`; exit code 1 when a recording had to be skipped.

    Raises
    ------
    UsageError
        In one line, for an unknown model, an impossible level, or files that are not there.
    """
    storage = Storage(ledger_root)
    ledger = Ledger(storage)
    levels = _levels(noise_levels)
    flow = _find_flow(ledger, model)
    known = _ancestors(ledger, flow)
    train = _input(known[_input(flow, "train")], "autoencoder")
    recordings = _corpus(storage, files)
    latents = _cell(
        "latents", "latents files", {"role": "files"}, {"autoencoder": train, "corpus": recordings.signature}
    )
    shared = {"definition": "expectation", "solver": "euler", "n_steps": n_steps, "n_probes": n_probes}
    wanted = {
        level: _cell(
            "surprisal",
            f"IC files s={level!r}",
            {"noise_level": level, **shared},
            {"flow": flow.signature, "latents": latents.signature},
        )
        for level in levels
    }
    new = [recordings, latents, *wanted.values()]
    graph = Graph({**known, **{cell.signature: cell for cell in new}})
    return _compute_and_write(graph, ledger, wanted, recordings, Path(out))


def _levels(text: str) -> tuple[float, ...]:
    try:
        levels = tuple(float(part) for part in text.split(","))
        return SurprisalConfig(noise_levels=levels).noise_levels
    except ValueError:
        raise UsageError(f"--noise-levels {text!r}: comma-separated numbers in [0, 1], such as 0,0.3,0.6") from None


def _find_flow(ledger: Ledger, prefix: str) -> CellSpec:
    found = [signature for signature in ledger.signatures("flow") if signature.startswith(prefix)]
    if len(found) != 1:
        have = ", ".join(
            f"{signature[:SHORT]} ({ledger.config('flow', signature)['name']})"
            for signature in ledger.signatures("flow")
        )
        trouble = "no flow" if not found else f"{len(found)} flows"
        raise UsageError(f"--model {prefix!r}: {trouble} of that signature; the ledger has {have or 'none'}")
    return _recorded(ledger, "flow", found[0])


def _recorded(ledger: Ledger, stage: str, signature: str) -> CellSpec:
    """A cell as the ledger remembers it."""
    config = ledger.config(stage, signature)
    inputs = {role: value if isinstance(value, str) else tuple(value) for role, value in config["inputs"].items()}
    return CellSpec(stage, config["name"], config["config"], inputs, signature, config.get("labels", {}))


def _ancestors(ledger: Ledger, cell: CellSpec) -> dict[str, CellSpec]:
    places = {signature: stage for stage in STAGES for signature in ledger.signatures(stage)}
    found: dict[str, CellSpec] = {}

    def visit(spec: CellSpec) -> None:
        if spec.signature in found:
            return
        for parent in spec.parents:
            if parent not in places:
                raise UsageError(f"{spec.name}: its input {parent[:SHORT]} is not in the ledger; run its study again")
            visit(_recorded(ledger, places[parent], parent))
        found[spec.signature] = spec

    visit(cell)
    return found


def _input(cell: CellSpec, role: str) -> str:
    value = cell.inputs[role]
    assert isinstance(value, str)
    return value


def _cell(stage: str, name: str, config: dict[str, Any], inputs: dict[str, str]) -> CellSpec:
    signature = sign(stage, STAGES[stage].version, config, inputs)
    return CellSpec(stage, name, canonical(config), inputs, signature, {"role": "files", "variant": "files"})


def _corpus(storage: Storage, files: Sequence[str]) -> CellSpec:
    fingerprints = Fingerprints(storage)
    described = []
    for name in files:
        try:
            found = list_files(name, AUDIO_SUFFIXES)
        except FileNotFoundError:
            raise UsageError(f"{name}: no such recording or folder") from None
        described += [fingerprints.of(file, name) for file in found]
    if not described:
        raise UsageError(f"{', '.join(files)}: no recordings there ({', '.join(AUDIO_SUFFIXES)})")
    fingerprints.keep()
    config = {
        "role": "files",
        "dataset": DataSet(source="audio", path=files[0]).model_dump(mode="json"),
        "seed": 0,
        "split": SplitConfig().model_dump(mode="json"),
        "allow_overlap": True,
        "files": described,
    }
    return _cell("corpus", "corpus files", config, {})


def _compute_and_write(
    graph: Graph, ledger: Ledger, wanted: dict[float, CellSpec], recordings: CellSpec, out: Path
) -> int:
    from orchestrator.progress import Progress
    from orchestrator.study import Execution, run_study
    from tasks.ic import IcSeries, read_ic, write_csv

    outcome = run_study(graph, ledger, Execution(inline=True), [Progress()])
    if outcome.exit_code not in (0, 1):
        return outcome.exit_code
    by_recording: dict[str, dict[float, IcSeries]] = {}
    for level, cell in wanted.items():
        status = ledger.status("surprisal", cell.signature)
        if status is None or status.state != "done":
            reason = status.failure if status is not None else "no result"
            sys.stderr.write(f"orchestrator: {cell.name}: {reason}\n")
            return 1
        for name, series in read_ic(ledger.artefact("surprisal", cell.signature, None)).items():
            by_recording.setdefault(name, {})[level] = series
    out.mkdir(parents=True, exist_ok=True)
    for name, series_of in by_recording.items():
        with (out / f"{name}.csv").open("w", encoding="utf-8") as stream:
            write_csv(stream, series_of)
        print(out / f"{name}.csv")
    return _tell_skipped(ledger, graph, recordings, wanted)


def _tell_skipped(ledger: Ledger, graph: Graph, recordings: CellSpec, wanted: dict[float, CellSpec]) -> int:
    skipped: dict[str, None] = {}
    latents = str(next(iter(wanted.values())).inputs["latents"])
    for signature in (recordings.signature, latents):
        status = ledger.status(graph.cells[signature].stage, signature)
        if status is not None:
            skipped.update(dict.fromkeys(status.metrics.get("skipped", [])))
    for sentence in skipped:
        sys.stderr.write(f"orchestrator: skipped {sentence}\n")
    return 1 if skipped else 0
