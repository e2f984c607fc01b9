import numpy as np
import pytest
import torch

from tasks.audio.spectrum import cropped_length, n_frames, n_latents, to_audio, to_spectrum
from tasks.contract import TaskError


def band_limited(n: int, batch: int = 2) -> torch.Tensor:
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal((batch, n)))
    spectrum[:, int(0.9 * spectrum.shape[1]) :] = 0
    audio = np.fft.irfft(spectrum, n)
    return torch.from_numpy(0.9 * audio / np.abs(audio).max()).float()


def test_shapes_and_lengths() -> None:
    n = 34_304
    assert (n_frames(n), n_latents(n), cropped_length(n)) == (64, 8, n)
    spectrum = to_spectrum(band_limited(n))
    assert spectrum.shape == (2, 2, 1024, 64)
    assert to_audio(spectrum).shape == (2, n)
    assert (n_latents(n - 1), cropped_length(n + 4095), n_latents(n + 4096)) == (7, n, 9)
    assert (n_frames(2047), n_frames(2048), n_frames(2560)) == (0, 1, 2)
    assert (n_latents(5631), n_latents(5632), cropped_length(100), n_latents(0)) == (0, 1, 0, 0)


def test_round_trip_is_exact_inside() -> None:
    audio = band_limited(34_304)
    back = to_audio(to_spectrum(audio))
    assert (back - audio)[:, 1536:-1536].abs().max() < 1e-4


def test_values_follow_the_formula() -> None:
    audio = band_limited(4096, batch=1).double()
    spectrum = to_spectrum(audio)[0].numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    for frame in (0, 3):
        plain = np.fft.rfft(audio[0].numpy()[512 * frame : 512 * frame + 2048] * window)[:1024]
        expected = 0.34 * np.abs(plain) ** 0.65 * np.exp(1j * np.angle(plain))
        np.testing.assert_allclose(spectrum[0, :, frame] + 1j * spectrum[1, :, frame], expected, atol=1e-9)


def test_silence_stays_silent_and_has_finite_gradients() -> None:
    audio = torch.zeros(1, 4096, requires_grad=True)
    back = to_audio(to_spectrum(audio))
    assert not back.any()
    back.sum().backward()
    assert audio.grad is not None
    assert torch.isfinite(audio.grad).all()
    spectrum = torch.zeros(1, 2, 1024, 5, requires_grad=True)
    to_audio(spectrum).sum().backward()
    assert spectrum.grad is not None
    assert torch.isfinite(spectrum.grad).all()


def test_gradients_are_those_of_the_function() -> None:
    audio = band_limited(2560, batch=1).double().requires_grad_()
    direction = torch.randn(audio.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (to_audio(to_spectrum(x) * 0.5) ** 3).sum()

    (slope,) = torch.autograd.grad(loss(audio), audio)
    step = 1e-5
    measured = (loss(audio + step * direction) - loss(audio - step * direction)) / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), measured.detach(), rtol=1e-5, atol=0)


def test_loud_audio_is_clamped() -> None:
    back = to_audio(to_spectrum(3 * band_limited(8192)))
    assert back.abs().max() == 1


def test_precision_follows_the_input() -> None:
    assert to_spectrum(band_limited(4096).double()).dtype == torch.float64


def test_audio_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(TaskError, match="shorter than one window"):
        to_spectrum(torch.zeros(1, 2047))
