"""Every stage of a study: what computes it, which version of its results this is, and what a process needs for it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from tasks.contract import Run


@dataclass(frozen=True)
class Stage:
    """One row of the house: `entry` is ``module:function``; `version` rises when results change.

    A training is one trial of Ray Tune; other cells with equal values of the labels `grouped_by` are one fan-out task.
    `aggregate` stages go on with the inputs that succeeded and name the rest. `cell`, `inputs`, `files` and `metrics`
    are for people: docs/stages.md is made of them. `custom` names resources that a cluster's node types offer.
    """

    name: str
    entry: str
    cell: str
    inputs: str = ""
    files: str = ""
    metrics: str = ""
    version: int = 1
    training: bool = False
    aggregate: bool = False
    grouped_by: tuple[str, ...] = ()
    cells_per_task: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    threads: int = 1
    custom: Mapping[str, float] = field(default_factory=dict)

    @property
    def request(self) -> dict[str, float]:
        """What one process of it asks of a node, by Ray's names of resources."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {}), **self.custom}

    def load(self) -> Run:
        """Import the entry point: this is where torch or mne come in, in the process that computes."""
        module, function = self.entry.split(":")
        return cast(Run, getattr(importlib.import_module(module), function))


_TRAINED = "codec.safetensors (weights), codec.json (architecture, latent mean and SD), curve.csv"
_FITTED = (
    "eeg, features, corpus, surprisal of the stimuli (true driver: pitch_surprisal); where a model asks ic_null, "
    "latents, own features"
)

_ROWS = (
    Stage(
        "tunes",
        "tasks.audio.melodies:run",
        cell="melodies of a source, clustered by shared intervals and split by cluster",
        files="tunes.json: notes as [onset, duration, MIDI pitch], MIDI files also velocity; quarters or seconds",
        metrics="n_tunes, n_clusters, n_notes, n_skipped",
    ),
    Stage(
        "corpus",
        "tasks.audio.corpus:run",
        cell="recordings of one role, rendered or found, with fingerprints of their PCM",
        inputs="tunes (melodies only); corpus of training (other roles), of melodies (melodies_dev): nothing is shared",
        files="corpus.json (samples, Hz, notes in s); one FLAC per rendering, 44 100 Hz mono",
        metrics="n_recordings, seconds, n_skipped, skipped, overlap",
    ),
    Stage(
        "autoencoder_base",
        "tasks.autoencoder.training:run",
        cell="autoencoder of one bottleneck and seed, without latent noise",
        inputs="corpus of training and of validation",
        files=_TRAINED,
        metrics="train_loss, validation_loss, validation_distance, latent_mean, latent_std, steps",
        training=True,
    ),
    Stage(
        "autoencoder",
        "tasks.autoencoder.training:run",
        cell="one arm, fine-tuned from its base with its latent noise",
        inputs="autoencoder_base, corpus of training and of validation",
        files=_TRAINED,
        metrics="as its base, and validation_distance_clean, realised_snr_db",
        training=True,
    ),
    Stage(
        "latents",
        "tasks.autoencoder.codec:run",
        cell="standardised latents of one recording set of one variant",
        inputs="autoencoder, corpus",
        files="latents.safetensors: (frames, 64) per recording, SD units; latents.json: samples at 44 100 Hz",
        metrics="n_recordings, n_frames, n_skipped, skipped",
    ),
    Stage(
        "flow",
        "tasks.flow.training:run",
        cell="rectified-flow model of one variant's latents",
        inputs="latents of training and of validation",
        files="flow.safetensors (weights), flow.json (architecture), curve.csv (validation loss per noise level too)",
        metrics="train_loss, validation_loss, validation_loss_null (without context), steps",
        training=True,
    ),
    Stage(
        "surprisal",
        "tasks.surprisal:run",
        cell="information content of one recording set at one noise level of one variant",
        inputs="flow, latents",
        files="ic.safetensors: (frames,) nats per recording, frame 0 NaN; ic.json: the time base, the solver's error",
        metrics="ic_mean, ic_sd, solver_error_nats, n_frames, n_recordings, n_skipped, skipped",
        grouped_by=("variant", "role"),
        cells_per_task=16,
    ),
    Stage(
        "causal_audit",
        "tasks.causal_audit:run",
        cell="IC of some frames with contexts from audio that ends before them, per recording set, level and variant",
        inputs="flow, autoencoder, latents, corpus",
        files="audit.csv: one row per recording (rank correlations; changes and SD of IC in nats)",
        metrics="spearman_mean, change_mean, their SE, the same of the control, ic_sd, n_frames, n_recordings, skipped",
        grouped_by=("variant", "role"),
        cells_per_task=16,
    ),
    Stage(
        "solver_audit",
        "tasks.solver_audit:run",
        cell="IC of some frames with other seeds, a fine rule, twice the nodes, per recording set, level and variant",
        inputs="flow, latents",
        files="audit.csv: one row per recording (correlations; errors in nats); definitions.csv: one row per pair",
        metrics="reliability_mean, reliability_pooled, rmse_nats, bias_nats, rmse_over_sd, doubling_nats, "
        "doubling_mean_nats, rule_constant_nats, ic_sd, spearman_DEFINITION, n_frames, n_recordings, skipped",
        version=2,
        grouped_by=("variant", "role"),
        cells_per_task=2,
    ),
    Stage(
        "reconstruction",
        "tasks.reconstruction:run",
        cell="what one variant reconstructs at one signal-to-noise ratio of its latents",
        inputs="autoencoder, corpus",
        files="scores.csv: one row per excerpt (dB)",
        metrics="si_sdr_mean, log_spectral_distance_mean, their SE and floors, ..._above_floor, n_excerpts",
        grouped_by=("variant",),
        cells_per_task=8,
    ),
    Stage(
        "pitch_surprisal",
        "tasks.pitch:run_surprisal",
        cell="symbolic pitch surprisal of one recording set (interpolated PPM, or PPM* as IDyOM's)",
        inputs="tunes, corpus",
        files="surprisal.json: bits per note; unigram.json: the same from pitch counts alone",
        metrics="mean_bits, n_notes, n_tunes_trained",
    ),
    Stage(
        "pitch",
        "tasks.pitch_correlation:run",
        cell="correlation of note-aligned IC with pitch surprisal at one noise level of one variant",
        inputs="surprisal of the melodies, pitch_surprisal, corpus",
        files="correlation.csv: one row per piece",
        metrics="mean, SE and 95 % interval of spearman, pearson and spearman_partial; baselines, n_pieces, n_clusters",
        version=2,
        grouped_by=("variant", "role"),
        cells_per_task=16,
    ),
    Stage(
        "features",
        "tasks.eeg.features:run",
        cell="acoustic features of the stimuli at the EEG's rate, or a feature of one's own",
        inputs="corpus of the stimuli",
        files="features.safetensors: spectrogram, derivative (T, 8), onsets, envelope (T, 1), or one's own (T, series)",
        metrics="n_recordings, seconds",
    ),
    Stage(
        "eeg",
        "tasks.eeg.recordings:run",
        cell="one subject's EEG, read or simulated, preprocessed",
        inputs="corpus of the stimuli; simulated: pitch_surprisal; positive canary: surprisal",
        files="eeg.safetensors: (T, channels) per trial, in the subject's SD; eeg.json",
        metrics="n_trials, seconds, n_bad_channels, skipped, notes, simulated",
    ),
    Stage(
        "trf",
        "tasks.eeg.trf:run",
        cell="one subject's full and reduced model at one noise level of one variant",
        inputs=_FITTED,
        files="trf.safetensors: r_full and r_reduced (pieces, channels), kernel (lags, channels), "
        "kernel_reduced (lags, features, channels); trf.json",
        metrics="delta_r, delta_r_max, r_full, r_reduced, lambda_edge_share, n_pieces, n_channels, skipped",
        version=3,
        grouped_by=("variant", "model"),
        cells_per_task=256,
    ),
    Stage(
        "permutations",
        "tasks.eeg.permutation:run",
        cell="one block of null models: residual circular shifts (or another null) with a seed of their own each",
        inputs=_FITTED,
        files="null.safetensors: delta_r (permutations, channels)",
        metrics="count, delta_r_null_mean, residual_correlation_s, in_place_share",
        version=3,
        grouped_by=("variant", "model", "block"),
        cells_per_task=256,
    ),
    Stage(
        "group",
        "tasks.eeg.group:run",
        cell="tests of one model over stimuli and over subjects, corrected over channels, levels and variants",
        inputs="all trf, permutations and eeg of the listeners",
        files="group.json; long.csv: one row per condition, subject, piece and channel",
        metrics="n_claimed, p_min, delta_r_best, best_variant, best_noise_level, n_subjects, n_channels",
        version=3,
        aggregate=True,
    ),
    Stage(
        "canaries",
        "tasks.eeg.canaries:run",
        cell="verdict on listeners whose answer is known beforehand, in one named condition",
        inputs="trf, permutations and eeg of the three canaries",
        files="canaries.json",
        metrics="verdict, noise_rejections, acoustic_rejections, positive_p, positive_delta_r, positive_kernel_r",
        aggregate=True,
    ),
)

STAGES: dict[str, Stage] = {stage.name: stage for stage in _ROWS}
"""All stages in the order of the study."""


class Request(Protocol):
    """What an experiment asks for a stage; None leaves the stage's own number."""

    @property
    def cpus(self) -> float | None: ...
    @property
    def gpus(self) -> float | None: ...
    @property
    def custom(self) -> Mapping[str, float]: ...


def with_requests(
    stages: Mapping[str, Stage], requests: Mapping[str, Request], gpus_per_training: float = 0.0
) -> dict[str, Stage]:
    """The stages with what an experiment asks for them; a stage's own request goes before `gpus_per_training`."""
    asked: dict[str, Stage] = {}
    for name, stage in stages.items():
        gpus = (gpus_per_training or stage.gpus) if stage.training else stage.gpus
        cpus, custom, own = stage.cpus, stage.custom, requests.get(name)
        if own is not None:
            cpus = cpus if own.cpus is None else own.cpus
            gpus = gpus if own.gpus is None else own.gpus
            custom = dict(own.custom)
        asked[name] = replace(stage, cpus=cpus, gpus=gpus, custom=custom)
    return asked


def table() -> str:
    """All stages as a Markdown table: the content of docs/stages.md."""
    head = "# The stages of a study\n\nMade by `python -m orchestrator.stages`; a test keeps it current.\n\n"
    rows = ["| stage | one cell is | inputs | files in `out/` | metrics |", "|---|---|---|---|---|"]
    for stage in _ROWS:
        name = f"`{stage.name}`" + (" (a training)" if stage.training else "")
        rows.append(f"| {name} | {stage.cell} | {stage.inputs or '-'} | {stage.files} | {stage.metrics} |")
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
