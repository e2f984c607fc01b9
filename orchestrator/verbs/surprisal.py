"""IC of any recordings with a trained model: a small study of its own, so that it resumes like one."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from orchestrator.graph import CellSpec, Graph
from orchestrator.ic_files import Asked, Format, check_replaceable, gather, write
from orchestrator.ledger import Ledger
from orchestrator.manifest import AUDIO_SUFFIXES, File, Fingerprints
from orchestrator.models import Model, find_model, opened
from orchestrator.opening import open_ledger
from orchestrator.outside import OutsideFile, list_files
from orchestrator.paths import local_folder
from orchestrator.reading import UsageError
from orchestrator.redaction import has_user
from orchestrator.signature import canonical, sign
from orchestrator.stages import STAGES
from orchestrator.storage import Storage
from tasks.audio.config import DataSet, SourceFile, SplitConfig
from tasks.audio.sources import identifiers
from tasks.config import SurprisalConfig
from tasks.ic import Stamp

OPTIONS = {
    "noise_levels": "--noise-levels",
    "definition": "--definition",
    "context": "--context",
    "n_draws": "--n-draws",
    "solver": "--solver",
    "n_steps": "--n-steps",
    "n_nodes": "--n-nodes",
    "n_probes": "--n-probes",
    "order": "--order",
    "precision": "--precision",
    "probes": "--probes",
}
"""Keys of `SurprisalConfig`, which says what is allowed, and the option that sets each."""


@dataclass(frozen=True)
class Wish:
    """What the command asks for: a model, how IC is computed (`solved`, by config key), and the form of the files."""

    files: Sequence[str]
    model: str
    autoencoder: str | None = None
    noise_levels: str = "0.0"
    solved: Mapping[str, str | int | None] = field(default_factory=dict)
    out: str = "."
    format: str = "csv"
    stamp: str = "start"


def surprisal(wish: Wish, ledger_root: str) -> int:
    """Write a table per recording; exit code 1 when a recording, or a level, had to be left out.

    Raises
    ------
    UsageError
        In one line, for an unknown model, an impossible level or option, or files that are not there.
    """
    for option, value, allowed in (("--format", wish.format, Format), ("--stamp", wish.stamp, Stamp)):
        if value not in get_args(allowed):
            raise UsageError(f"{option} {value!r}: allowed: {', '.join(get_args(allowed))}")
    levels = _levels(wish.noise_levels)
    ledger = open_ledger(ledger_root)
    probes = probes_by_content(wish.solved.get("probes"), ledger.storage)
    settings = _settings(list(levels.values()), {**wish.solved, "probes": probes})
    model = find_model(ledger, wish.model, wish.autoencoder)
    files, unreadable = _found(ledger.storage, wish.files)
    configs = {typed: (level, settings.cell(level)) for typed, level in zip(levels, settings.noise_levels, strict=True)}
    asked = chains(files, model, configs, settings.places)
    kind: Format = "parquet" if wish.format == "parquet" else "csv"
    for recording in asked:
        check_replaceable(Path(wish.out), recording.name, kind)
    out = _folder(wish.out)
    cells = [model.codec, model.flow, *(cell for recording in asked for cell in recording.cells)]
    code = _compute(Graph({cell.signature: cell for cell in cells}), ledger)
    if code not in (0, 1):
        return code
    return max(code, _write(ledger, model, asked, out, wish, unreadable))


def _levels(text: str) -> dict[str, float]:
    """Noise levels by the words they were typed as."""
    words = [word.strip() for word in text.split(",")]
    try:
        levels = {word: float(word) for word in words}
    except ValueError:
        levels = {}
    if not levels or not all(0 <= level <= 1 for level in levels.values()):
        raise UsageError(f"--noise-levels {text!r}: comma-separated numbers in [0, 1], such as 0,0.3,0.6")
    if len(levels) < len(words):
        raise UsageError(f"--noise-levels {text!r}: each level is allowed once")
    return levels


def probes_by_content(value: str | int | None, storage: Storage) -> str | int | dict[str, str] | None:
    """What ``--probes`` means to the config: a word as it is, a file by its place and content.

    Raises
    ------
    UsageError
        In one line, when there is no such file.
    """
    if not isinstance(value, str) or not value.lower().endswith(".npy"):
        return value
    with opened(value, storage.options) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    local = local_folder(value)
    return {"path": value if local is None else str(local), "sha256": digest}


def _settings(levels: Sequence[float], given: Mapping[str, Any]) -> SurprisalConfig:
    """The config that the options ask for; whatever it refuses is told by the option's name."""
    asked = {key: value for key, value in given.items() if value is not None}
    unknown = next((key for key in asked if key not in SurprisalConfig.model_fields), None)
    if unknown is not None:
        known = ", ".join(option for key, option in OPTIONS.items() if key in SurprisalConfig.model_fields)
        raise UsageError(f"{OPTIONS[unknown]} {asked[unknown]!r}: this version has no such setting (it has {known})")
    try:
        return SurprisalConfig.model_validate({"noise_levels": levels, **asked})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = first["msg"].removeprefix("Value error, ")
        key = str(first["loc"][0]) if first["loc"] else ""
        where = f"{OPTIONS[key]} {asked[key]!r}: " if key in asked else f"{OPTIONS[key]}: " if key in OPTIONS else ""
        raise UsageError(where + said[:1].lower() + said[1:]) from None


def _folder(out: str) -> Path:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: can't be made ({error.strerror})") from None
    return folder


def chains(
    files: Sequence[File],
    model: Model,
    configs: Mapping[str, tuple[float, Mapping[str, Any]]],
    places: Mapping[str, str] | None = None,
) -> list[Asked]:
    """The cells of each recording: a corpus of its own, its latents, and its IC at each level.

    Parameters
    ----------
    files : sequence of dict
        The recordings, each path once. What else is asked for, and in which order, changes no signature.
    model : Model
        The flow, and the autoencoder whose latents it judges.
    configs : mapping
        Noise level and config of a ``surprisal`` cell, by the level as it was typed.
    places : mapping, optional
        Where the files lie that these configs name by their content.
    """
    sources = {file["path"]: SourceFile(**file) for file in files}
    names = identifiers(list(sources.values()))
    dataset = DataSet(source="audio", path="-").model_dump(mode="json")
    split = SplitConfig().model_dump(mode="json")
    asked = []
    for file in files:
        path: str = file["path"]
        own = identifiers([sources[path]])[path]
        labels = {"role": path, "variant": "files"}
        listing = {
            "role": "files",
            "dataset": {**dataset, "path": path},
            "seed": 0,
            "split": split,
            "allow_overlap": True,
            "files": [file],
        }
        corpus = _cell("corpus", f"corpus {own}", listing, {}, labels)
        encoded = {"autoencoder": model.codec.signature, "corpus": corpus.signature}
        latents = _cell("latents", f"latents {own}", {"role": "files"}, encoded, labels)
        inputs = {"flow": model.flow.signature, "latents": latents.signature}
        wanted = {
            typed: (level, _cell("surprisal", f"IC {own} s={level!r}", config, inputs, labels, places))
            for typed, (level, config) in configs.items()
        }
        asked.append(Asked(names[path], own, path, corpus, latents, wanted))
    return asked


def _cell(
    stage: str,
    name: str,
    config: Mapping[str, Any],
    inputs: dict[str, str],
    labels: Mapping[str, str],
    places: Mapping[str, str] | None = None,
) -> CellSpec:
    signature = sign(stage, STAGES[stage].version, config, inputs)
    return CellSpec(stage, name, canonical(config), inputs, signature, labels, places=places or {})


def _found(storage: Storage, names: Sequence[str]) -> tuple[list[File], list[str]]:
    """Every recording there is, each once, and a sentence for each that can't be read."""
    fingerprints = Fingerprints(storage)
    described: dict[str, File] = {}
    unreadable: dict[str, None] = {}
    for name in names:
        for file in _listed(storage, name):
            path = _one_path(file.path)
            if path in described:
                continue
            try:
                described[path] = {**fingerprints.of(file, file.path), "path": path}
            except OSError as error:
                unreadable.setdefault(f"{path}: can't be read ({error.strerror or error})")
    fingerprints.keep()
    if not described:
        more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
        raise UsageError(next(iter(unreadable)) + more)
    return list(described.values()), list(unreadable)


def _one_path(path: str) -> str:
    """The same path for a file however its folder was written; its own name stays, though it may be a link."""
    local = local_folder(path)
    return path if local is None else str(local.parent.resolve() / local.name)


def _listed(storage: Storage, name: str) -> list[OutsideFile]:
    if has_user(name):
        raise UsageError(f"{name}: a path is written into the ledger, so it can't hold a password; use the environment")
    try:
        found = list_files(name, AUDIO_SUFFIXES, storage.options)
    except FileNotFoundError:
        raise UsageError(f"{name}: no such recording or folder") from None
    if not found:
        raise UsageError(f"{name}: no recordings there (allowed: {', '.join(AUDIO_SUFFIXES)})")
    return found


def _compute(graph: Graph, ledger: Ledger) -> int:
    from orchestrator.progress import Progress
    from orchestrator.study import Execution, run_study

    outcome = run_study(graph, ledger, Execution(inline=True, retry_failed=True), [Progress()])
    if outcome.stopped:
        sys.stderr.write(f"stopped; nothing done is lost. To go on: {shlex.join(sys.argv)}\n")
    return outcome.exit_code


def _write(
    ledger: Ledger, model: Model, asked: Sequence[Asked], out: Path, wish: Wish, unreadable: Sequence[str]
) -> int:
    kind: Format = "parquet" if wish.format == "parquet" else "csv"
    stamp = next(known for known in get_args(Stamp) if known == wish.stamp)
    skipped = list(unreadable)
    for recording in asked:
        levels, reasons = gather(ledger, recording)
        skipped += [f"{recording.path}: {reason}" for reason in reasons]
        if not levels:
            continue
        try:
            print(write(recording, levels, model, out, kind, stamp))
        except OSError as error:
            raise UsageError(f"--out {wish.out}: can't be written to ({error.strerror or error})") from None
    for sentence in skipped:
        sys.stderr.write(f"orchestrator: skipped {sentence}\n")
    return 1 if skipped else 0
