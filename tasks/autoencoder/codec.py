"""A trained autoencoder as the stages after it use it, and stage ``latents``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file as save_tensors

from tasks.audio.corpus import load_audio, recordings
from tasks.audio.spectrum import cropped_length, n_latents, to_audio, to_spectrum
from tasks.autoencoder.config import (
    ARCHITECTURES,
    LATENT_CHANNELS,
    LATENT_HOP_SAMPLES,
    Architecture,
    Bottleneck,
    Size,
)
from tasks.autoencoder.consistency import SIGMA_MAX, denoise
from tasks.autoencoder.network import FRAMES_PER_LATENT, FREQUENCIES, Autoencoder
from tasks.contract import Artefact, Cell, Context, Result, TaskError
from tasks.seeds import torch_stream

Audio = NDArray[np.float32]
Latents = NDArray[np.float32]

CHUNK_FRAMES = 323
"""Longest stretch of latent frames that is encoded or decoded at once: 30 s."""
CHUNK_CONTEXT_FRAMES = 16
SILENCE_DB = 60.0
SILENCE_WINDOW_SAMPLES = 2048
SILENCE_HOP_SAMPLES = 512


class Codec:
    """Audio to standardised latents and back.

    Parameters
    ----------
    autoencoder : Autoencoder
        The weights to use (their running average over training).
    size, bottleneck
        What they are an instance of.
    latent_mean, latent_std : float
        Of the raw latents of the training corpus, over all values; standardised latents are relative to them.
    """

    def __init__(
        self, autoencoder: Autoencoder, size: Size, bottleneck: Bottleneck, latent_mean: float, latent_std: float
    ) -> None:
        self.autoencoder = autoencoder.eval()
        self.size = size
        self.bottleneck = bottleneck
        self.latent_mean = latent_mean
        self.latent_std = latent_std
        self._device = next(autoencoder.parameters()).device

    @torch.inference_mode()
    def encode(self, audio: Audio) -> Latents:
        """Encode audio.

        Parameters
        ----------
        audio : numpy.ndarray of float32, (N,)
            Mono at 44 100 Hz. Stretches of more than 30 s are encoded in pieces that overlap by 16 frames on each side.

        Returns
        -------
        numpy.ndarray of float32, (T, 64)
            Standardised latents, T = floor((N - 1536) / 4096); frame j starts at sample 4096 j.

        Raises
        ------
        TaskError
            When the audio has no whole frame, or isn't finite.
        """
        frames = n_latents(len(audio))
        if frames < 1:
            raise TaskError(f"{len(audio)} samples are too short to encode: one latent frame takes 5632")
        if not np.isfinite(audio).all():
            raise TaskError("the audio has values that are not finite")
        parts = []
        for first, last, before, after in _chunks(frames):
            span = slice((first - before) * LATENT_HOP_SAMPLES, cropped_length_of(last + after))
            spectra = to_spectrum(torch.from_numpy(audio[span].copy())[None].to(self._device))
            spectra = spectra[..., : (last + after - first + before) * FRAMES_PER_LATENT]
            raw = self.autoencoder.encoder(spectra)[0].T.cpu().numpy()
            parts.append(raw[before : len(raw) - after])
        return self.standardise(np.concatenate(parts))

    @torch.inference_mode()
    def decode(self, latents: Latents, seed: int) -> Audio:
        """Decode standardised latents in one step from pure noise.

        Parameters
        ----------
        latents : numpy.ndarray of float32, (T, 64)
        seed : int
            Of the noise that decoding starts from: the same for all codecs given the same seed.

        Returns
        -------
        numpy.ndarray of float32, (4096 T + 1536,)
            Mono audio at 44 100 Hz in [-1, 1].
        """
        if latents.ndim != 2 or latents.shape[1] != LATENT_CHANNELS or not len(latents):
            raise TaskError(f"latents have shape {latents.shape}: (T, {LATENT_CHANNELS}) with T >= 1 is needed")
        raw = torch.from_numpy(self.raw(latents).T[None].copy()).to(self._device)
        shape = (1, 2, FREQUENCIES, len(latents) * FRAMES_PER_LATENT)
        noise = torch.randn(shape, generator=torch_stream("decoder noise", seed))
        parts = []
        for first, last, before, after in _chunks(len(latents)):
            frames = slice((first - before) * FRAMES_PER_LATENT, (last + after) * FRAMES_PER_LATENT)
            maps = self.autoencoder.decoder(raw[:, :, first - before : last + after])
            start = SIGMA_MAX * noise[..., frames].to(self._device)
            sigma = torch.full((1,), SIGMA_MAX, device=self._device)
            spectra = denoise(lambda x, s, m=maps: self.autoencoder.unet(x, s, m), start, sigma)  # type: ignore[misc]
            parts.append(spectra[..., before * FRAMES_PER_LATENT : spectra.shape[-1] - after * FRAMES_PER_LATENT].cpu())
        audio: Audio = to_audio(torch.cat(parts, dim=-1))[0].numpy()
        return audio

    def standardise(self, raw: Latents) -> Latents:
        """Raw latents of any shape to mean 0 and std 1 over the training corpus."""
        standardised: Latents = ((raw - self.latent_mean) / self.latent_std).astype(np.float32)
        return standardised

    def raw(self, latents: Latents) -> Latents:
        """Back from `standardise`."""
        raw: Latents = (latents * self.latent_std + self.latent_mean).astype(np.float32)
        return raw

    def save(self, folder: Path) -> None:
        """Write ``codec.safetensors`` and ``codec.json``."""
        save_tensors(
            {name: tensor.detach().cpu().contiguous() for name, tensor in self.autoencoder.state_dict().items()},
            folder / "codec.safetensors",
        )
        described = {
            "size": self.size,
            "bottleneck": self.bottleneck,
            "latent_mean": self.latent_mean,
            "latent_std": self.latent_std,
            "architecture": ARCHITECTURES[self.size].model_dump(mode="json"),
        }
        (folder / "codec.json").write_text(json.dumps(described, sort_keys=True, indent=1) + "\n")


def load(artefact: Artefact) -> Codec:
    """The codec of a finished ``autoencoder`` or ``autoencoder_base`` cell, on a GPU where there is one."""
    described = json.loads(artefact.read_bytes("codec.json"))
    architecture = Architecture.model_validate(described["architecture"])
    autoencoder = Autoencoder(architecture, described["bottleneck"])
    autoencoder.load_state_dict(load_tensors(artefact.read_bytes("codec.safetensors")))
    autoencoder.to(device())
    return Codec(
        autoencoder,
        described["size"],
        described["bottleneck"],
        described["latent_mean"],
        described["latent_std"],
    )


def device() -> torch.device:
    """Where networks run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cropped_length_of(frames: int) -> int:
    """Samples that `frames` latent frames span: 4096 T + 1536."""
    return frames * LATENT_HOP_SAMPLES + (cropped_length(2 * LATENT_HOP_SAMPLES) - LATENT_HOP_SAMPLES)


def _chunks(frames: int) -> Iterator[tuple[int, int, int, int]]:
    """First and last frame of each chunk, and how many frames of context it has before and after."""
    count = -(-frames // CHUNK_FRAMES)
    edges = [frames * i // count for i in range(count + 1)]
    for first, last in pairwise(edges):
        yield first, last, min(CHUNK_CONTEXT_FRAMES, first), min(CHUNK_CONTEXT_FRAMES, frames - last)


def silence(audio: Audio) -> tuple[int, int]:
    """Samples of silence before and after the music.

    Silent are windows of 2048 samples (one every 512) whose RMS is 60 dB or more below that of the loudest window.

    Raises
    ------
    TaskError
        When nothing but silence is there.
    """
    if len(audio) < SILENCE_WINDOW_SAMPLES:
        raise TaskError(f"{len(audio)} samples are too short to encode: one latent frame takes 5632")
    energy = np.concatenate([[0.0], np.cumsum(np.square(audio, dtype=np.float64))])
    starts = np.arange(0, len(audio) - SILENCE_WINDOW_SAMPLES + 1, SILENCE_HOP_SAMPLES)
    power = energy[starts + SILENCE_WINDOW_SAMPLES] - energy[starts]
    if not power.max() > 0:
        raise TaskError("the recording is silent")
    loud = np.flatnonzero(power > power.max() * 10 ** (-SILENCE_DB / 10))
    last = loud[-1]
    trail = 0 if last == len(starts) - 1 else len(audio) - int(starts[last]) - SILENCE_WINDOW_SAMPLES
    return int(starts[loud[0]]), trail


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage ``latents``: encode every recording of a corpus without the silence around it.

    Writes ``latents.safetensors`` ({recording id: (T, 64) float32}) and ``latents.json``. A recording that can't be
    encoded is named in ``skipped``; a cell without any other recording fails, and so does one whose recordings aren't
    any more what they were when the corpus was made.
    """
    codecs: dict[str, Codec] = {}
    for cell in cells:
        artefact, corpus = cell.input("autoencoder"), cell.input("corpus")
        if artefact.signature not in codecs:
            codecs[artefact.signature] = load(artefact)
        codec = codecs[artefact.signature]
        try:
            latents, spans, skipped = _encode_all(codec, corpus, context)
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        if not latents:
            yield Result(cell.signature, failure=f"no recording could be encoded. {'; '.join(skipped[:3])}")
            continue
        save_arrays(latents, cell.out_dir / "latents.safetensors")
        (cell.out_dir / "latents.json").write_text(json.dumps(spans, sort_keys=True, indent=1) + "\n")
        yield Result(
            cell.signature,
            {
                "n_recordings": len(latents),
                "n_frames": sum(span["n_frames"] for span in spans.values()),
                "n_skipped": len(skipped),
                "skipped": skipped[:20],
            },
        )


def _encode_all(
    codec: Codec, corpus: Artefact, context: Context
) -> tuple[dict[str, Latents], dict[str, dict[str, int]], list[str]]:
    """Latents and spans by recording id, and the recordings left out."""
    latents: dict[str, Latents] = {}
    spans: dict[str, dict[str, int]] = {}
    skipped: list[str] = []
    listed = recordings(corpus)
    for number, recording in enumerate(listed):
        audio = load_audio(recording, corpus, context.open_file)
        try:
            latents[recording.id], spans[recording.id] = _encode(codec, audio)
        except TaskError as error:
            skipped.append(f"{recording.id}: {error}")
        context.progress(number + 1, len(listed), {})
    return latents, spans, skipped


def _encode(codec: Codec, audio: Audio) -> tuple[Latents, dict[str, int]]:
    lead, trail = silence(audio)
    latents = codec.encode(audio[lead : len(audio) - trail])
    return latents, {
        "lead_samples": lead,
        "trail_samples": trail,
        "n_samples": len(audio),
        "n_frames": len(latents),
    }
