"""Trained models as a command names them: by signature in a ledger, or as a file of published weights."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.graph import CellSpec
from orchestrator.ledger import CorruptArtefact, Ledger
from orchestrator.outside import open_outside
from orchestrator.reading import UsageError
from orchestrator.reasons import SENTENCES, State
from orchestrator.redaction import has_user
from orchestrator.signature import SHORT
from orchestrator.stages import STAGES
from tasks.autoencoder.config import LATENT_CHANNELS

CODECS = ("autoencoder", "autoencoder_base")
FILE_SUFFIXES = (".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Model:
    """A flow, and the autoencoder whose latents it models."""

    flow: CellSpec
    codec: CellSpec


def find_model(ledger: Ledger, model: str, autoencoder: str | None) -> Model:
    """The flow that `model` names and its autoencoder; for an imported flow the one that `autoencoder` names.

    Raises
    ------
    UsageError
        In one line: nothing or more than one of that name, not whole, of another version, or not made for each other.
    """
    flow = _find_flow(ledger, model)
    own = _own_codec(ledger, flow)
    if own is not None:
        codec = own
        if autoencoder is not None and not own.signature.startswith(autoencoder):
            raise UsageError(
                f"--autoencoder {autoencoder!r}: {_told(flow)} models latents of {_told(own)}; leave the option out"
            )
    elif autoencoder is None:
        have = _have(ledger, CODECS)
        raise UsageError(f"{_told(flow)} was imported without an autoencoder: give --autoencoder SIGNATURE ({have})")
    else:
        codec = _recorded(ledger, *_find(ledger, "--autoencoder", autoencoder, CODECS))
    _check_whole(ledger, flow, codec)
    _check_latent_size(ledger, flow, codec)
    return Model(flow, codec)


def opened(file: str, options: Mapping[str, Any]) -> BinaryIO:
    """A file that a command names, local or behind a URL.

    Raises
    ------
    UsageError
        In one line, when it can't be opened.
    """
    if has_user(file):
        raise UsageError(f"{file}: a path can't hold a password here; use the environment")
    try:
        return open_outside(file, options=options)
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file") from None
    except OSError as error:
        raise UsageError(f"{file}: can't be opened ({error.strerror or error})") from error


def _find_flow(ledger: Ledger, model: str) -> CellSpec:
    if model.lower().endswith(FILE_SUFFIXES) or Path(model).is_file():
        from orchestrator.verbs.import_weights import import_flow

        return import_flow(ledger, model)[0]
    return _recorded(ledger, *_find(ledger, "--model", model, ("flow",)))


def _find(ledger: Ledger, option: str, prefix: str, stages: Sequence[str]) -> tuple[str, str]:
    """Stage and signature of the one cell of `stages` whose signature begins so."""
    found = [(stage, key) for stage in stages for key in ledger.signatures(stage) if key.startswith(prefix)]
    if len(found) != 1:
        trouble = f"no {stages[0]}" if not found else f"{len(found)} {stages[0]}s"
        raise UsageError(f"{option} {prefix!r}: {trouble} of that signature; {_have(ledger, stages)}")
    return found[0]


def _have(ledger: Ledger, stages: Sequence[str]) -> str:
    named = []
    for stage in stages:
        for signature in ledger.signatures(stage):
            try:
                named.append(f"{signature[:SHORT]} ({ledger.config(stage, signature)['name']})")
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                named.append(f"{signature[:SHORT]} (its config.json can't be read)")
    return f"the ledger has {', '.join(named) or 'none'}"


def _own_codec(ledger: Ledger, flow: CellSpec) -> CellSpec | None:
    """The autoencoder of the latents that a flow was trained on; None for an imported flow."""
    if "train" not in flow.inputs:
        return None
    trained_on = _recorded(ledger, "latents", _input(flow, "train"))
    return _recorded(ledger, "autoencoder", _input(trained_on, "autoencoder"))


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
            f"{_told(cell)}: made by version {version} of the stage {stage}, this is version "
            f"{STAGES[stage].version}; {_again(ledger, cell)}, and give the new signature"
        )
    return cell


def _check_whole(ledger: Ledger, *cells: CellSpec) -> None:
    """Models are never trained on the way: they are in the ledger, or that is said."""
    found = ledger.survey(cells, full=True)
    for cell in cells:
        state, reason, _ = found[cell.signature]
        if state is not State.CACHED:
            raise UsageError(f"{_told(cell)}: {SENTENCES[reason]}; {_again(ledger, cell)}")


def _check_latent_size(ledger: Ledger, flow: CellSpec, codec: CellSpec) -> None:
    """Refuse a flow of latents that the autoencoder doesn't make."""
    status = ledger.status("flow", flow.signature)
    if status is None or "flow.json" not in status.files:
        return  # the stage says what is wrong with such a cell
    try:
        about = json.loads(ledger.artefact("flow", flow.signature, None).read_bytes("flow.json"))
        size = about["architecture"]["latent_dim"]
    except (CorruptArtefact, ValueError, KeyError, TypeError):
        raise UsageError(f"{_told(flow)}: its flow.json can't be read; {_again(ledger, flow)}") from None
    if size != LATENT_CHANNELS:
        raise UsageError(
            f"{_told(flow)} models latents of {size} channels, {_told(codec)} makes {LATENT_CHANNELS}: "
            "give a model and an autoencoder of one size"
        )


def _told(cell: CellSpec) -> str:
    return f"{cell.name} ({cell.signature[:SHORT]})"


def _again(ledger: Ledger, cell: CellSpec | None = None) -> str:
    where = shlex.quote(ledger.storage.shown)
    if cell is not None and "imported" in cell.config:
        return f"import its file again: orchestrator import-weights FILE --ledger {where}"
    return f"run its study again: orchestrator run EXPERIMENT --ledger {where}"


def _input(cell: CellSpec, role: str) -> str:
    value = cell.inputs[role]
    assert isinstance(value, str)
    return value
