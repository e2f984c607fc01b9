"""IC of any recordings with a model from the ledger: a small study of its own, so that it resumes like one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger
from orchestrator.manifest import AUDIO_SUFFIXES, File, Fingerprints
from orchestrator.opening import open_ledger
from orchestrator.outside import list_files
from orchestrator.paths import check_name
from orchestrator.reading import UsageError
from orchestrator.reasons import SENTENCES, State
from orchestrator.redaction import has_user
from orchestrator.signature import SHORT, canonical, sign
from orchestrator.stages import STAGES
from orchestrator.storage import Storage
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
    ledger = open_ledger(ledger_root)
    levels = _levels(noise_levels)
    flow = _find_flow(ledger, model)
    trained_on = _recorded(ledger, "latents", _input(flow, "train"))
    codec = _recorded(ledger, "autoencoder", _input(trained_on, "autoencoder"))
    _check_whole(ledger, flow, codec)
    recordings = _corpus(ledger.storage, files)
    latents = _cell(
        "latents", "latents files", {"role": "files"}, {"autoencoder": codec.signature, "corpus": recordings.signature}
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
    cells = [codec, flow, recordings, latents, *wanted.values()]
    graph = Graph({cell.signature: cell for cell in cells})
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
    """A cell as the ledger remembers it, when the code that would go on from it is the code that made it."""
    try:
        config = ledger.config(stage, signature)
        inputs = {role: value if isinstance(value, str) else tuple(value) for role, value in config["inputs"].items()}
        cell = CellSpec(stage, config["name"], config["config"], inputs, signature, config.get("labels", {}))
        version = config["version"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{stage} {signature[:SHORT]}: the ledger has no readable config.json of it; {_again(ledger)}"
        ) from None
    if version != STAGES[stage].version:
        raise UsageError(
            f"{cell.name} ({signature[:SHORT]}): made by version {version} of the stage {stage}, this is version "
            f"{STAGES[stage].version}; {_again(ledger)}, and give the new signature"
        )
    return cell


def _check_whole(ledger: Ledger, *cells: CellSpec) -> None:
    """Models are never trained on the way: they are in the ledger, or that is said."""
    found = ledger.survey(cells, full=True)
    for cell in cells:
        state, reason, _ = found[cell.signature]
        if state is not State.CACHED:
            raise UsageError(f"{cell.name} ({cell.signature[:SHORT]}): {SENTENCES[reason]}; {_again(ledger)}")


def _again(ledger: Ledger) -> str:
    return f"run its study again: orchestrator run EXPERIMENT --ledger {shlex.quote(ledger.storage.root)}"


def _input(cell: CellSpec, role: str) -> str:
    value = cell.inputs[role]
    assert isinstance(value, str)
    return value


def _cell(stage: str, name: str, config: dict[str, Any], inputs: dict[str, str]) -> CellSpec:
    signature = sign(stage, STAGES[stage].version, config, inputs)
    return CellSpec(stage, name, canonical(config), inputs, signature, {"role": "files", "variant": "files"})


def _corpus(storage: Storage, files: Sequence[str]) -> CellSpec:
    fingerprints = Fingerprints(storage)
    described: dict[str, File] = {}
    for name in files:
        if has_user(name):
            raise UsageError(
                f"{name}: a path is written into the ledger, so it can't hold a password; use the environment"
            )
        try:
            found = list_files(name, AUDIO_SUFFIXES, storage.options)
        except FileNotFoundError:
            raise UsageError(f"{name}: no such recording or folder") from None
        if not found:
            raise UsageError(f"{name}: no recordings there (allowed: {', '.join(AUDIO_SUFFIXES)})")
        described |= {file.path: fingerprints.of(file, name) for file in found if file.path not in described}
    fingerprints.keep()
    config = {
        "role": "files",
        "dataset": DataSet(source="audio", path=files[0]).model_dump(mode="json"),
        "seed": 0,
        "split": SplitConfig().model_dump(mode="json"),
        "allow_overlap": True,
        "files": list(described.values()),
    }
    return _cell("corpus", "corpus files", config, {})


def _compute_and_write(
    graph: Graph, ledger: Ledger, wanted: dict[float, CellSpec], recordings: CellSpec, out: Path
) -> int:
    from orchestrator.progress import Progress
    from orchestrator.study import Execution, run_study
    from tasks.ic import IcSeries, read_ic, write_csv

    outcome = run_study(graph, ledger, Execution(inline=True, retry_failed=True), [Progress()])
    if outcome.stopped:
        sys.stderr.write(f"stopped; nothing done is lost. To go on: {shlex.join(sys.argv)}\n")
    if outcome.exit_code not in (0, 1):
        return outcome.exit_code
    by_recording: dict[str, dict[float, IcSeries]] = {}
    for level, cell in wanted.items():
        status = ledger.status("surprisal", cell.signature)
        if status is None or status.state != "done":
            return 1  # the progress has said why
        for name, series in read_ic(ledger.artefact("surprisal", cell.signature, None)).items():
            by_recording.setdefault(name, {})[level] = series
    out.mkdir(parents=True, exist_ok=True)
    for name, series_of in by_recording.items():
        check_name(name)  # it comes from the ledger
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
