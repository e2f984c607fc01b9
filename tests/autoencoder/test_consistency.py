"""Noise scales, preconditioning and loss of consistency training."""

import math

import pytest
import torch

from tasks.autoencoder import consistency
from tasks.seeds import torch_stream


def spectra(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch_stream("test spectra"))


def test_at_the_smallest_noise_the_input_comes_back_whatever_the_network_says() -> None:
    noisy = spectra(2, 2, 1024, 8)
    sigma = torch.full((2,), consistency.SIGMA_MIN)
    out = consistency.denoise(lambda x, _: 1e3 * x + 7, noisy, sigma)
    assert torch.equal(out, noisy)


def test_at_the_largest_noise_the_network_decides() -> None:
    noisy = 80 * spectra(1, 2, 1024, 8)
    out = consistency.denoise(lambda x, _: torch.ones_like(x), noisy, torch.tensor([consistency.SIGMA_MAX]))
    assert torch.allclose(out, torch.full_like(out, consistency.SIGMA_DATA), atol=0.02)


def test_noise_scales_run_from_smallest_to_largest() -> None:
    sigma = consistency.sigma(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert float(sigma[0]) == pytest.approx(0.002)
    assert float(sigma[-1]) == pytest.approx(80.0)
    assert bool((sigma.diff() > 0).all())


def test_indices_are_drawn_log_normally() -> None:
    generator = torch_stream("test indices")
    uniform, jitter = torch.rand(2, 100_000, generator=generator)
    index = consistency.draw_index(uniform, jitter)
    assert float(index.min()) >= 0
    assert float(index.max()) <= 1
    drawn = torch.histc(index.double(), 20, 0, 1) / len(index)
    expected = consistency.index_weights().reshape(20, -1).sum(1)
    assert torch.allclose(drawn, expected, atol=0.005)


def test_steps_shrink_from_a_tenth_to_a_thousandth() -> None:
    sizes = [consistency.step_size(k, 100) for k in (0, 50, 100)]
    assert sizes == pytest.approx([0.1, 0.01, 0.001])


def test_distance_is_the_pseudo_huber_of_the_whole_item() -> None:
    a, b = torch.zeros(2, 2, 1024, 64), torch.zeros(2, 2, 1024, 64)
    b[1, 0, 3, 5] = 3.0
    c = 0.00054 * math.sqrt(131_072)
    assert c == pytest.approx(0.1955, abs=1e-4)
    assert consistency.pseudo_huber(a, b).tolist() == pytest.approx([0.0, math.sqrt(9 + c * c) - c], abs=1e-6)


def test_loss_is_weighted_by_the_step_and_blames_only_the_noisier_point() -> None:
    gain = torch.tensor(0.3, requires_grad=True)
    clean, noise = spectra(1, 2, 1024, 8), torch.ones(1, 2, 1024, 8)
    index = torch.tensor([0.4])
    (loss,) = consistency.losses(lambda x, _: gain * x, clean, noise, index, 0.05)
    far, near = consistency.sigma(index), consistency.sigma(index - 0.05)
    with torch.no_grad():
        teacher = consistency.denoise(lambda x, _: gain * x, clean + near * noise, near)
    student = consistency.denoise(lambda x, _: gain * x, clean + far * noise, far)
    expected = consistency.pseudo_huber(student, teacher)[0] / (far - near)[0]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert torch.autograd.grad(loss, gain)[0] == torch.autograd.grad(expected, gain)[0]


def test_a_network_that_is_lost_has_no_loss_of_nothing() -> None:
    clean, noise = spectra(2, 2, 1024, 8), torch.ones(2, 2, 1024, 8)
    index = torch.tensor([0.4, 0.6])
    losses = consistency.losses(lambda x, _: x * float("nan"), clean, noise, index, 0.05)
    assert bool(losses.isnan().all())
