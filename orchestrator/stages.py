"""Every stage of a study: what computes it, which version of its results this is, and what a process needs for it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import cast

from tasks.contract import Run


@dataclass(frozen=True)
class Stage:
    """One row of the house: `entry` is ``module:function``; `version` rises when results change.

    A training is one trial of Ray Tune; other cells with equal values of `grouped_by` labels are one fan-out task.
    `aggregate` stages go on with the inputs that succeeded and name the rest.
    """

    name: str
    entry: str
    summary: str
    version: int = 1
    training: bool = False
    aggregate: bool = False
    grouped_by: tuple[str, ...] = ()
    cells_per_task: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    threads: int = 1

    def load(self) -> Run:
        """Import the entry point: this is where torch or mne come in, in the process that computes."""
        module, function = self.entry.split(":")
        return cast(Run, getattr(importlib.import_module(module), function))


_ROWS = (
    Stage("tunes", "tasks.audio.melodies:run", "melodies of a source, clustered and split"),
    Stage("corpus", "tasks.audio.corpus:run", "recordings of one role, rendered or read, with fingerprints"),
    Stage("autoencoder_base", "tasks.autoencoder.training:run", "autoencoder without latent noise", training=True),
    Stage("autoencoder", "tasks.autoencoder.training:run", "arm fine-tuned from its base", training=True),
    Stage("latents", "tasks.autoencoder.codec:run", "standardised latents of a recording set"),
    Stage("flow", "tasks.flow.training:run", "rectified-flow model of a variant's latents", training=True),
    Stage(
        "surprisal",
        "tasks.surprisal:run",
        "information content at one noise level",
        grouped_by=("variant", "role"),
        cells_per_task=16,
    ),
    Stage(
        "reconstruction",
        "tasks.reconstruction:run",
        "what survives noise at one SNR",
        grouped_by=("variant",),
        cells_per_task=8,
    ),
    Stage("pitch_surprisal", "tasks.pitch:run_surprisal", "symbolic pitch surprisal of a recording set"),
    Stage(
        "pitch",
        "tasks.pitch:run_correlation",
        "correlation of note-aligned IC with pitch surprisal",
        grouped_by=("variant",),
        cells_per_task=16,
    ),
    Stage("features", "tasks.eeg.features:run", "acoustic features of the stimuli at the EEG's rate"),
    Stage("eeg", "tasks.eeg.recordings:run", "one subject's EEG, preprocessed"),
    Stage(
        "trf",
        "tasks.eeg.trf:run",
        "one subject's encoding models at one noise level",
        grouped_by=("variant", "model"),
        cells_per_task=256,
    ),
    Stage(
        "permutations",
        "tasks.eeg.permutation:run",
        "one block of null models",
        grouped_by=("variant", "model", "block"),
        cells_per_task=256,
    ),
    Stage("group", "tasks.eeg.group:run", "tests over stimuli and over subjects", aggregate=True),
    Stage("canaries", "tasks.eeg.canaries:run", "listeners whose verdict is known beforehand", aggregate=True),
)

STAGES: dict[str, Stage] = {stage.name: stage for stage in _ROWS}
"""All stages in the order of the study."""
