"""The compressed complex spectrum that the autoencoder reads and writes (Music2Latent, Pasini et al. 2024, section 3).

STFT with hop 512 and a periodic Hann window of 2048 samples, no padding, the Nyquist bin dropped. Every value X becomes
``0.34 |X|^0.65 exp(i arg X)``; real and imaginary parts are two channels. Shapes: B batch, F 1024 bins, T STFT frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.contract import TaskError

HOP_SAMPLES = 512
WINDOW_SAMPLES = 2048
N_BINS = WINDOW_SAMPLES // 2
EXPONENT = 0.65
SCALE = 0.34
FRAMES_PER_LATENT = 8
LATENT_HOP_SAMPLES = FRAMES_PER_LATENT * HOP_SAMPLES
OVERHANG_SAMPLES = WINDOW_SAMPLES - HOP_SAMPLES
"""What a sequence of frames needs beyond its hops: N = n_frames * 512 + 1536."""

_TINY_FORWARD = 1e-12
_TINY_INVERSE = 1e-20


def n_frames(n_samples: int) -> int:
    """How many whole STFT frames lie in `n_samples`."""
    return max((n_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1, 0)


def n_latents(n_samples: int) -> int:
    """How many latent frames (of 8 STFT frames) an audio of `n_samples` has: floor((N - 1536) / 4096)."""
    return max((n_samples - OVERHANG_SAMPLES) // LATENT_HOP_SAMPLES, 0)


def cropped_length(n_samples: int) -> int:
    """The samples of an audio of `n_samples` that its latents cover: T * 4096 + 1536, or 0 without any latent."""
    latents = n_latents(n_samples)
    return latents * LATENT_HOP_SAMPLES + OVERHANG_SAMPLES if latents else 0


def to_spectrum(audio: Tensor) -> Tensor:
    """Compressed complex spectrum of audio.

    Parameters
    ----------
    audio : torch.Tensor, shape (B, n_samples)
        At least 2048 samples; samples after the last whole frame are left out.

    Returns
    -------
    torch.Tensor, shape (B, 2, 1024, n_frames)
        Real and imaginary parts; differentiable everywhere, also in silence. Values |X| below 1e-6, far under the noise
        of 16-bit audio, are compressed linearly instead.

    Raises
    ------
    TaskError
        When the audio is shorter than one window.
    """
    if audio.shape[-1] < WINDOW_SAMPLES:
        raise TaskError(f"audio of {audio.shape[-1]} samples is shorter than one window of {WINDOW_SAMPLES} samples")
    complex_BFT = torch.stft(
        audio, WINDOW_SAMPLES, HOP_SAMPLES, window=_hann(audio), center=False, return_complex=True
    )[..., :N_BINS, :]
    stacked_B2FT = torch.view_as_real(complex_BFT).permute(0, 3, 1, 2)
    power_B1FT = stacked_B2FT.square().sum(1, keepdim=True)
    compressed: Tensor = stacked_B2FT * (SCALE * power_B1FT.clamp_min(_TINY_FORWARD) ** ((EXPONENT - 1) / 2))
    return compressed.contiguous()


def to_audio(spectrum: Tensor) -> Tensor:
    """Audio of a compressed complex spectrum: inverse of `to_spectrum` but for the outer 1536 samples at each end.

    Those lie under fewer than four windows and fade out, since each window is divided by the sum over all four.

    Parameters
    ----------
    spectrum : torch.Tensor, shape (B, 2, 1024, n_frames)

    Returns
    -------
    torch.Tensor, shape (B, n_frames * 512 + 1536)
        Clamped to [-1, 1].
    """
    expanded_B2FT = spectrum / SCALE
    power_B1FT = expanded_B2FT.square().sum(1, keepdim=True) + _TINY_INVERSE
    expanded_B2FT = expanded_B2FT * power_B1FT ** ((1 / EXPONENT - 1) / 2)
    complex_BTF = torch.complex(expanded_B2FT[:, 0], expanded_B2FT[:, 1]).transpose(1, 2)
    frames_BTN = torch.fft.irfft(torch.nn.functional.pad(complex_BTF, (0, 1)), n=WINDOW_SAMPLES)
    frames_BTN = frames_BTN * (_hann(spectrum) / 1.5)  # 1.5: four squared periodic Hann windows a quarter apart
    return _overlap_add(frames_BTN).clamp(-1, 1)


def _hann(like: Tensor) -> Tensor:
    return torch.hann_window(WINDOW_SAMPLES, dtype=like.dtype, device=like.device)


def _overlap_add(frames_BTN: Tensor) -> Tensor:
    """Sum frames placed a hop apart: the quarters of all frames are four series of hops, added at four offsets."""
    batch, count, _ = frames_BTN.shape
    parts = WINDOW_SAMPLES // HOP_SAMPLES
    quarters = frames_BTN.reshape(batch, count, parts, HOP_SAMPLES)
    shifted = [torch.nn.functional.pad(quarters[:, :, i], (0, 0, i, parts - 1 - i)) for i in range(parts)]
    return torch.stack(shifted).sum(0).reshape(batch, (count + parts - 1) * HOP_SAMPLES)
