"""Stages ``autoencoder_base`` and ``autoencoder``: train a base, then the arms that go on from it.

All arms start from the base's averaged weights, hear the same crops in the same order, and take equally many steps of
the same size; they differ only in the latent noise, and in whether the encoder learns. Everything random in a step
derives from (seed, step), so a training that was killed goes on to the same bits.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tasks.audio.corpus import check_disjoint
from tasks.audio.spectrum import to_spectrum
from tasks.autoencoder import codec, consistency, latent_noise
from tasks.autoencoder.config import (
    ARCHITECTURES,
    Bottleneck,
    LatentNoiseConfig,
    Size,
    TrainingConfig,
)
from tasks.autoencoder.consistency import Network
from tasks.autoencoder.crops import Crops
from tasks.autoencoder.draws import draw
from tasks.autoencoder.network import FRAMES_PER_LATENT, Autoencoder
from tasks.autoencoder.state import TrainingState
from tasks.config import Config
from tasks.contract import Cell, Context, Result, Stopped, TaskError
from tasks.seeds import derive_seed

VALIDATION_CROPS = 16
STATISTICS_CROPS = 128
EVALUATION_BATCH = 8
CURVE_ROWS = 400
PROGRESS_EVERY = 10
VALIDATION = ("validation_loss", "validation_distance", "validation_distance_clean")
COLUMNS = ("step", "loss", "learning_rate", "latent_std", *VALIDATION)


class StageConfig(Config):
    """The config of a cell of either stage; a base has no latent noise to speak of."""

    seed: int
    size: Size
    bottleneck: Bottleneck
    training: TrainingConfig
    latent_noise: LatentNoiseConfig | None = None


@dataclass(frozen=True)
class _Noise:
    """The latent noise of an arm, and the mean and std of raw latents that it keeps to."""

    config: LatentNoiseConfig
    mean: float
    std: float


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Train each cell's autoencoder; write ``codec.safetensors``, ``codec.json`` and ``curve.csv``.

    Metrics: train_loss, validation_loss, validation_distance (one-step decoding, through the arm's own latent noise),
    validation_distance_clean (the same without that noise; arms with noise only), latent_mean, latent_std, steps, and
    realised_snr_db (arms with noise only). A training whose loss is no longer finite fails, and stores nothing.

    Raises
    ------
    Stopped
        When the study was asked to stop, after a checkpoint.
    """
    for cell in cells:
        try:
            with _deterministic(codec.device()):
                metrics = _Training(cell, context).run()
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
        else:
            yield Result(cell.signature, metrics)


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Warn of kernels that aren't deterministic on a GPU (on a CPU all that are used here are).

    Some backward passes have no deterministic kernel there, so a training that was killed and goes on on a GPU may
    differ in its last bits from one that wasn't; on a CPU it has the same bits.
    """
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn" if device.type == "cuda" else before)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


class _Training:
    def __init__(self, cell: Cell, context: Context) -> None:
        self.cell, self.context = cell, context
        self.stage: Literal["autoencoder_base", "autoencoder"] = (
            "autoencoder" if "base" in cell.inputs else "autoencoder_base"
        )
        self.config = StageConfig.model_validate(cell.config)
        self.noise: _Noise | None = None
        _refuse_overlap(cell)
        self.crops = Crops(cell.input("train"), context.open_file)
        self.validation = Crops(cell.input("validation"), context.open_file)
        self.device = codec.device()
        self.state = TrainingState(self._start(), self.config.training, constant=self.stage == "autoencoder")

    def _start(self) -> Autoencoder:
        """The network before the first step."""
        config = self.config
        if self.stage == "autoencoder_base":
            return initial(config.size, config.bottleneck, config.seed).to(self.device)
        base = codec.load(self.cell.input("base"))
        if (base.size, base.bottleneck) != (config.size, config.bottleneck):
            raise TaskError(
                f"the base is of size {base.size} with bottleneck {base.bottleneck}, the arm of size {config.size} "
                f"with {config.bottleneck}: an arm goes on from a base of its own kind"
            )
        noise = config.latent_noise or LatentNoiseConfig()
        if noise.applied_to != "none":
            self.noise = _Noise(noise, base.latent_mean, base.latent_std)
        base.autoencoder.requires_grad_(True)
        base.autoencoder.encoder.requires_grad_(noise.applied_to != "decoder")
        return base.autoencoder.train()

    def run(self) -> dict[str, Any]:
        """Train to the end and measure what came out."""
        checkpoints = self.context.checkpoints(self.cell.signature)
        latest = checkpoints.latest()
        if latest is not None:
            self.state.load(latest[1])
        steps, every = self.config.training.steps, self.config.training.checkpoint_every
        while self.state.step < steps:
            self._advance()
            step = self.state.step
            row = self._record(validate=step % every == 0 or step == steps)
            if row or step % PROGRESS_EVERY == 0:
                self.context.progress(step, steps, row)
            stop = step < steps and self.context.should_stop()
            if stop or (step < steps and step % every == 0):
                checkpoints.save(step, self.state.save)
            if stop:
                raise Stopped
        return self._finish()

    def _advance(self) -> None:
        """One step."""
        training, step = self.config.training, self.state.step
        names = (self.config.seed, self.stage, step)
        audio = torch.from_numpy(self.crops.batch(training.batch_size, "crops", *names))
        is_arm = self.stage == "autoencoder"
        distance = consistency.STEP_LAST if is_arm else consistency.step_size(step, training.steps)
        losses, latent_std, _ = self._losses(self.state.autoencoder, audio, distance, "draws", *names)
        loss = losses.mean()
        self.state.descend(loss)
        value = float(loss.detach())
        self._check({"loss": value, "latent_std": latent_std})
        self.state.pending.append({"loss": value, "latent_std": latent_std})

    def _check(self, values: Mapping[str, float]) -> None:
        """Refuse to go on, or to store anything, with weights that are lost."""
        training = self.config.training
        lost = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if lost:
            raise TaskError(
                f"the training of the autoencoder diverged: {', '.join(lost)} at step {self.state.step}. Try a smaller "
                f"learning_rate (now {training.learning_rate}) or a longer warmup_steps (now {training.warmup_steps})"
            )

    def _losses(
        self, autoencoder: Autoencoder, audio: Tensor, distance: float, *stream: str | int
    ) -> tuple[Tensor, float, Network]:
        """Consistency loss of each crop of (batch, 34304), the std of their raw latents, and the network used."""
        clean = to_spectrum(audio.to(self.device))
        draws = draw(len(clean), clean.shape[-1] // FRAMES_PER_LATENT, *stream)
        latents = autoencoder.encoder(clean)
        latent_std = float(latents.detach().std(correction=0))
        if self.noise is not None:
            time = latent_noise.draw_noise_time(draws.normal, self.noise.config).to(self.device)
            unit = draws.latents.to(self.device)
            latents = latent_noise.add_noise(latents, unit, time, self.noise.mean, self.noise.std)
        network = _conditioned(autoencoder, latents)
        index = consistency.draw_index(draws.uniform[:, 0], draws.uniform[:, 1]).to(self.device)
        losses = consistency.losses(network, clean, draws.spectra.to(self.device), index, distance)
        return losses, latent_std, network

    def _record(self, validate: bool) -> dict[str, float]:
        """A new row of the curve where one is due: means since the last row, and what validation says."""
        steps, state = self.config.training.steps, self.state
        if not validate and state.step % -(-steps // CURVE_ROWS):
            return {}
        row = {name: float(np.mean([entry[name] for entry in state.pending])) for name in ("loss", "latent_std")}
        row |= {"learning_rate": state.learning_rate(state.step - 1)} | (self._validate() if validate else {})
        state.pending = []
        state.curve.append(row | {"step": state.step})
        return row

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Loss of the averaged weights on fixed crops, and how far one-step decoding is from the spectra there.

        The loss is that of training at its last step size. The distance is the RMS error relative to the spectra's RMS;
        with latent noise there are two, the other (``_clean``) of latents as the encoder gives them.
        """
        losses: list[float] = []
        errors: dict[str, float] = defaultdict(float)
        power = 0.0
        for first in range(0, VALIDATION_CROPS, EVALUATION_BATCH):
            names = (self.config.seed, self.stage, "validation", first)
            audio = torch.from_numpy(self.validation.batch(EVALUATION_BATCH, "crops", *names))
            distance = consistency.STEP_LAST
            loss, _, network = self._losses(self.state.average, audio, distance, "draws", *names)
            losses += loss.tolist()
            clean = to_spectrum(audio.to(self.device))
            noise = draw(len(clean), clean.shape[-1] // FRAMES_PER_LATENT, "draws", *names).spectra.to(self.device)
            sigma = torch.full((len(clean),), consistency.SIGMA_MAX, device=self.device)
            networks = {"validation_distance": network}
            if self.noise is not None:
                average = self.state.average
                networks["validation_distance_clean"] = _conditioned(average, average.encoder(clean))
            for name, decoder in networks.items():
                decoded = consistency.denoise(decoder, consistency.SIGMA_MAX * noise, sigma)
                errors[name] += float((decoded - clean).square().sum())
            power += float(clean.square().sum())
        distances = {name: float(np.sqrt(error / power)) for name, error in errors.items()}
        found = {"validation_loss": float(np.mean(losses)), **distances}
        self._check(found)
        return found

    @torch.no_grad()
    def _statistics(self) -> tuple[float, float]:
        """Mean and std over all raw latents of crops of the training corpus, with the averaged weights.

        The crops are the same for a base and its arms: an encoder that stayed the base's has exactly its statistics.
        """
        raw = []
        for first in range(0, STATISTICS_CROPS, EVALUATION_BATCH):
            audio = self.crops.batch(EVALUATION_BATCH, "latent statistics", self.config.seed, first)
            spectra = to_spectrum(torch.from_numpy(audio).to(self.device))
            raw.append(self.state.average.encoder(spectra).cpu().double().numpy())
        latents = np.concatenate(raw)
        return float(latents.mean()), float(latents.std())

    def _finish(self) -> dict[str, Any]:
        config, curve = self.config, self.state.curve
        mean, std = self._statistics()
        last = [row["loss"] for row in curve if row["step"] > 0.9 * config.training.steps]
        metrics = {
            "train_loss": float(np.mean(last)),
            **{name: curve[-1][name] for name in VALIDATION if name in curve[-1]},
            "latent_mean": mean,
            "latent_std": std,
            "steps": config.training.steps,
        }
        self._check(metrics)
        if not std > 0:
            raise TaskError("the encoder collapsed: all its latents are equal. Train longer, or with less latent noise")
        codec.Codec(self.state.average, config.size, config.bottleneck, mean, std).save(self.cell.out_dir)
        with (self.cell.out_dir / "curve.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(curve)
        if self.noise is not None:
            metrics["realised_snr_db"] = latent_noise.realised_snr_db(std, self.noise.std)
        return metrics


def _conditioned(autoencoder: Autoencoder, latents: Tensor) -> Network:
    """The U-Net given what the decoder makes of raw latents (batch, 64, frames)."""
    maps = autoencoder.decoder(latents)

    def network(scaled: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = autoencoder.unet(scaled, sigma, maps)
        return out

    return network


def initial(size: Size, bottleneck: Bottleneck, seed: int) -> Autoencoder:
    """An untrained autoencoder whose weights derive from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("autoencoder weights", seed))
        return Autoencoder(ARCHITECTURES[size], bottleneck)


def _refuse_overlap(cell: Cell) -> None:
    shared = check_disjoint({"train": cell.input("train"), "validation": cell.input("validation")})
    if shared:
        more = f" (and {len(shared) - 3} more)" if len(shared) > 3 else ""
        raise TaskError(
            f"training and validation share material: {'; '.join(shared[:3])}{more}. Choose other splits or folders"
        )
