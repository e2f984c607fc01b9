"""The reduced model of a comparison: acoustic features, features of one's own, and regressors of the variant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load

from tasks.audio.recording import Recording
from tasks.contract import Cell, TaskError
from tasks.eeg.feature_config import ACOUSTICS
from tasks.eeg.latent_step import read_latent_step
from tasks.eeg.masks import Spans, merged
from tasks.eeg.regressors import FitModel, Floats, ic_regressor, read_reduced, standardised, whole_ic

ROLES = {"ic_null": "ic_null", "latent_step": "latents"}
"""The input that a regressor of the variant is read from."""


def inputs_of(model: FitModel) -> tuple[str, ...]:
    """Roles of the inputs that the reduced model is read from."""
    roles = [ROLES[name] for name in model.parts if name in ROLES]
    own = any(name not in (*ROLES, *ACOUSTICS) for name in model.parts)
    return ("features", "corpus", *roles, *(("own",) if own else ()))


@dataclass(frozen=True)
class Parts:
    """Columns of the reduced model by recording, shape (T, F), and samples at which one of them has no value.

    The last `n_beside` columns are no acoustics: features of one's own, then what stands in for IC.
    """

    values: Mapping[str, Floats]
    missing: Mapping[str, Spans]
    n_beside: int = 0


def read_parts(cell: Cell, model: FitModel, known: Mapping[str, Recording], rate: int) -> Parts:
    """Features of the reduced model beside each other, of the recordings that all parts have.

    Every column has mean 0 and standard deviation 1 over all stimuli. ``ic_null`` and ``latent_step`` have the form
    that the model gives to IC (held, or impulses at onsets), as that is what they stand in for.

    Parameters
    ----------
    cell : Cell
        Inputs ``features``, and ``ic_null``, ``latents`` and ``own`` where the model asks for them.
    model : FitModel
    known : mapping of recording to Recording
    rate : int
        Samples per second of the EEG.

    Raises
    ------
    TaskError
        If a part has another sample rate, is constant, or has another length than the acoustic features.
    """
    features = cell.input("features")
    acoustic = [name for name in model.parts if name in ACOUSTICS]
    first = read_reduced(features, (acoustic or ["envelope"])[0], rate)
    lengths = {key: len(values) for key, values in first.items() if key in known}
    blocks = [first if name == acoustic[0] else read_reduced(features, name, rate) for name in acoustic]
    n_acoustic = len(blocks)
    blocks += _own(cell, model, lengths, rate)
    notes = {key: recording.notes for key, recording in known.items()}
    form, missing = "hold" if model.regressor == "hold" else "onset", dict[str, Spans]()
    for name in model.plus:
        if name == "ic_null":
            series = whole_ic(cell.input("ic_null"))
            own = ic_regressor(series, lengths, notes, form, rate, "IC without context")
        elif name == "latent_step":
            series = read_latent_step(cell.input("latents"))
            own = ic_regressor(series, lengths, notes, form, rate, "the step of the latents", "SD")
        else:
            continue
        blocks.append({key: column[:, None] for key, column in own.values.items()})
        for key, spans in own.missing.items():
            missing[key] = merged((*missing.get(key, ()), *spans), lengths[key])
    n_beside = sum(next(iter(block.values())).shape[1] for block in blocks[n_acoustic:])
    if len(blocks) == 1:
        return Parts({key: blocks[0][key] for key in lengths}, missing, n_beside)
    together = {
        key: np.concatenate([block[key] for block in blocks], axis=1)
        for key in lengths
        if all(key in block for block in blocks)
    }
    return Parts(together, missing, n_beside)


def _own(cell: Cell, model: FitModel, lengths: Mapping[str, int], rate: int) -> list[dict[str, Floats]]:
    """Features of one's own, in the order of their names in the model."""
    if "own" not in inputs_of(model):
        return []
    found = {}
    for artefact in cell.collection("own"):
        described = json.loads(artefact.read_bytes("features.json"))
        name = described["own"]
        if described["sample_rate_hz"] != rate:
            raise TaskError(
                f"{name}: sampled at {described['sample_rate_hz']} Hz, the TRF wants {rate} Hz; both must follow "
                "eeg.preprocessing.sample_rate_hz"
            )
        arrays = load(artefact.read_bytes("features.safetensors"))
        own = {key: arrays[f"{key}/{name}"].astype(np.float64) for key in lengths}
        odd = next((key for key in lengths if len(own[key]) != lengths[key]), None)
        if odd is not None:
            raise TaskError(
                f"{name}: {len(own[odd])} samples of {odd}, and the acoustic features have {lengths[odd]}; the stage "
                "features must be repeated for these stimuli"
            )
        found[name] = standardised(own)
    return [found[name] for name in model.parts if name in found]
