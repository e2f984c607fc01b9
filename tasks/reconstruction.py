"""Stage ``reconstruction``: how much of a recording a decoder gives back from noised latents.

Each excerpt is encoded, its standardised latents are mixed with noise at a power ratio SNR (the data share is
tau = sqrt(SNR) / (1 + sqrt(SNR))), and decoded in one step. A decoder that never saw noise also suffers from the mere
shrinkage by tau: each decoder is given both the mixture and the mixture at its original variance, and for each metric
the input with the better mean counts. All autoencoders get the same latent noise and the same decoder noise.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from tasks.audio.config import SAMPLE_RATE_HZ
from tasks.audio.corpus import Recording, load_audio, recordings
from tasks.audio.spectrum import cropped_length
from tasks.autoencoder import codec as codecs
from tasks.autoencoder.codec import Codec
from tasks.autoencoder.latent_noise import noise_time_of_snr
from tasks.config import Config, ReconstructionConfig
from tasks.contract import Artefact, Cell, Context, Result, TaskError
from tasks.seeds import derive_seed, numpy_stream

Audio = NDArray[np.float32]
Latents = NDArray[np.float32]

RMS_FLOOR = 0.001
WINDOWS_SAMPLES = (512, 1024, 2048)
RANGE_DB = 80.0
HIGHER_IS_BETTER = {"si_sdr": True, "log_spectral_distance": False}


class StageConfig(Config):
    """The config of a cell: the study's, at one SNR."""

    seed: int
    snr: float = Field(gt=0, allow_inf_nan=True)
    metrics: tuple[str, ...] = ReconstructionConfig().metrics
    excerpt_s: float
    n_excerpts: int
    n_draws: int


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a recording, as long as a whole number of latent frames decodes to."""

    recording: Recording
    number: int
    audio: Audio

    @property
    def id(self) -> str:
        """Names its noise."""
        return f"{self.recording.id}/{self.number}"

    @property
    def family(self) -> str:
        """What it isn't independent of: its cluster of tunes, else its piece."""
        cluster = self.recording.cluster
        return f"piece {self.recording.piece}" if cluster is None else f"cluster {cluster}"


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Score each cell's autoencoder at its SNR; write ``scores.csv``, one row per excerpt.

    Metrics, for each metric m: m_mean, m_se, m_floor_mean, m_above_floor (whether mean and floor are more than 2
    standard errors of their paired difference apart, in whichever direction; None where there is one family of
    recordings), and m_input (which input counted); n_excerpts and n_clusters.
    """
    for number, cell in enumerate(cells):
        try:
            metrics = _score(cell, context, number, len(cells))
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
        else:
            yield Result(cell.signature, metrics)


def _score(cell: Cell, context: Context, number: int, total: int) -> dict[str, Any]:
    config = StageConfig.model_validate(cell.config)
    excerpts = choose_excerpts(cell.input("corpus"), config, context)
    codec = codecs.load(cell.input("autoencoder"))
    latents = [codec.encode(excerpt.audio) for excerpt in excerpts]
    inputs = noised_inputs(config.snr)
    rows: list[dict[str, dict[str, float]]] = []
    for place, excerpt in enumerate(excerpts):
        scores = {name: _mean_score(codec, excerpt, latents[place], mix, config) for name, mix in inputs.items()}
        stranger = latents[_other(place, excerpts)]
        rows.append(scores | {"floor": _mean_score(codec, excerpt, stranger, (1.0, 0.0), config)})
        context.progress(number * len(excerpts) + place + 1, total * len(excerpts), {})
    chosen = {metric: _better(rows, metric, list(inputs)) for metric in config.metrics}
    _write(cell, excerpts, rows, chosen)
    return _summary(excerpts, rows, chosen)


def choose_excerpts(corpus: Artefact, config: StageConfig, context: Context) -> list[Excerpt]:
    """Excerpts that don't overlap, spread over the recordings in a seeded order.

    Recordings are cut into slots of `excerpt_s` (a recording that is shorter is one slot); the first excerpt of every
    recording comes before the second of any. Slots with an RMS below 0.001 are left out.

    Raises
    ------
    TaskError
        When there are fewer than two recordings: the floor is the latents of another one.
    """
    listed = sorted(recordings(corpus), key=lambda r: derive_seed("reconstruction order", config.seed, r.id))
    if len(listed) < 2:
        raise TaskError(
            f"reconstruction: the corpus has {len(listed)} recording(s); at least 2 are needed, since the floor is "
            "decoded from another recording's latents"
        )
    length = cropped_length(round(config.excerpt_s * SAMPLE_RATE_HZ))
    found: list[list[Excerpt]] = []
    for recording in listed[: config.n_excerpts]:
        audio = load_audio(recording, corpus, context.open_file)
        found.append(_slots(recording, audio, length, config.seed))
    ranked = [(rank, place) for place, slots in enumerate(found) for rank in range(len(slots))]
    chosen = [found[place][rank] for rank, place in sorted(ranked)][: config.n_excerpts]
    if len({excerpt.recording.id for excerpt in chosen}) < 2:
        raise TaskError("reconstruction: fewer than 2 recordings have an excerpt that isn't silent; add recordings")
    return chosen


def _slots(recording: Recording, audio: Audio, length: int, seed: int) -> list[Excerpt]:
    length = min(length, cropped_length(len(audio)))
    count = len(audio) // length if length else 0
    order = numpy_stream("reconstruction slots", seed, recording.id).permutation(count)
    slots = [Excerpt(recording, int(k), audio[int(k) * length : (int(k) + 1) * length]) for k in order]
    return [slot for slot in slots if np.sqrt(np.mean(np.square(slot.audio))) >= RMS_FLOOR]


def _other(place: int, excerpts: Sequence[Excerpt]) -> int:
    """The next excerpt (around the end) of another family, else of another recording."""
    following = [(place + step) % len(excerpts) for step in range(1, len(excerpts))]
    here = excerpts[place]
    strangers = [k for k in following if excerpts[k].family != here.family]
    return (strangers or [k for k in following if excerpts[k].recording.id != here.recording.id])[0]


def noised_inputs(snr: float) -> dict[str, tuple[float, float]]:
    """What a decoder is given at an SNR: shares of latents and of noise, by name."""
    time = noise_time_of_snr(snr)
    if time == 0:
        return {"clean": (1.0, 0.0)}
    scale = math.hypot(1 - time, time)
    return {"mixture": (1 - time, time), "rescaled": ((1 - time) / scale, time / scale)}


def _mean_score(
    codec: Codec, excerpt: Excerpt, latents: Latents, mix: tuple[float, float], config: StageConfig
) -> dict[str, float]:
    """Each metric, averaged over draws of latent and decoder noise that depend on seed, excerpt and draw alone."""
    scores: dict[str, list[float]] = defaultdict(list)
    frames = (len(excerpt.audio) - 1536) // 4096
    fitting = np.resize(latents, (frames, latents.shape[1]))
    for draw in range(config.n_draws):
        names = (config.seed, excerpt.id, draw)
        noise = numpy_stream("latent noise", *names).standard_normal(fitting.shape).astype(np.float32)
        given = np.float32(mix[0]) * fitting + np.float32(mix[1]) * noise
        decoded = codec.decode(given, derive_seed("decoder noise", *names))
        for metric in config.metrics:
            scores[metric].append(METRICS[metric](excerpt.audio, decoded))
    return {metric: float(np.mean(values)) for metric, values in scores.items()}


def si_sdr(reference: Audio, estimate: Audio) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019), means not removed; higher is better."""
    pair = torch.from_numpy(estimate.copy()).double(), torch.from_numpy(reference.copy()).double()
    return float(scale_invariant_signal_distortion_ratio(*pair, zero_mean=False))


def log_spectral_distance(reference: Audio, estimate: Audio) -> float:
    """Log-spectral distance in dB (Gray and Markel 1976) at three resolutions; lower is better, 0 means equal.

    Power spectra (Hann windows of 512, 1024 and 2048 samples, a quarter apart) in dB, nothing below 80 dB under the
    reference's maximum; the root mean square over frequencies of their difference, averaged over frames and
    resolutions.
    """
    distances = []
    for window in WINDOWS_SAMPLES:
        ours, theirs = _power(reference, window), _power(estimate, window)
        floor = max(float(ours.max()) * 10 ** (-RANGE_DB / 10), 1e-20)
        difference = 10 * torch.log10(ours.clamp_min(floor) / theirs.clamp_min(floor))
        distances.append(float(difference.square().mean(0).sqrt().mean()))
    return float(np.mean(distances))


def _power(audio: Audio, window: int) -> torch.Tensor:
    samples = torch.from_numpy(audio.copy()).double()
    shape = torch.hann_window(window, dtype=torch.float64)
    power: torch.Tensor = torch.stft(samples, window, window // 4, window=shape, center=False, return_complex=True)
    return power.abs().square()


METRICS = {"si_sdr": si_sdr, "log_spectral_distance": log_spectral_distance}

Row = Mapping[str, Mapping[str, float]]


def _better(rows: Sequence[Row], metric: str, inputs: Sequence[str]) -> str:
    """The input whose mean over excerpts is better."""
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    return max(inputs, key=lambda name: sign * float(np.mean([row[name][metric] for row in rows])))


def _write(cell: Cell, excerpts: Sequence[Excerpt], rows: Sequence[Row], chosen: Mapping[str, str]) -> None:
    with (cell.out_dir / "scores.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        columns = [column for metric in chosen for column in (metric, f"{metric}_floor")]
        writer.writerow(["recording", "cluster", "excerpt", *columns])
        for excerpt, row in zip(excerpts, rows, strict=True):
            values = [value for m, name in chosen.items() for value in (row[name][m], row["floor"][m])]
            cluster = "" if excerpt.recording.cluster is None else excerpt.recording.cluster
            writer.writerow([excerpt.recording.id, cluster, excerpt.number, *map(repr, values)])


def _summary(excerpts: Sequence[Excerpt], rows: Sequence[Row], chosen: Mapping[str, str]) -> dict[str, Any]:
    families = [excerpt.family for excerpt in excerpts]
    metrics: dict[str, Any] = {"n_excerpts": len(rows), "n_clusters": len(set(families))}
    for metric, name in chosen.items():
        values = np.array([row[name][metric] for row in rows])
        floor = np.array([row["floor"][metric] for row in rows])
        metrics[f"{metric}_mean"] = float(values.mean())
        metrics[f"{metric}_se"] = clustered_error(values, families)
        metrics[f"{metric}_floor_mean"] = float(floor.mean())
        metrics[f"{metric}_above_floor"] = differs(values - floor, families)
        metrics[f"{metric}_input"] = name
    return metrics


def differs(differences: NDArray[np.float64], families: Sequence[str]) -> bool | None:
    """Whether the mean of paired differences is more than 2 of its standard errors from 0; None for a single family.

    The standard error is that of `clustered_error`.
    """
    error = clustered_error(differences, families)
    return None if error is None else bool(abs(float(differences.mean())) > 2 * error)


def clustered_error(values: NDArray[np.float64], families: Sequence[str]) -> float | None:
    """Standard error of a mean whose values depend on each other within families; None for a single family.

    The sandwich estimator for a mean: residuals are summed within families (Liang and Zeger 1986), with the usual
    correction by G / (G - 1) for G families.
    """
    sums: dict[str, float] = defaultdict(float)
    for family, residual in zip(families, values - values.mean(), strict=True):
        sums[family] += float(residual)
    count = len(sums)
    if count < 2:
        return None
    return math.sqrt(count / (count - 1) * sum(total**2 for total in sums.values())) / len(values)
