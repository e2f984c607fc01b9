"""The mixture of latents and noise."""

import math

import pytest
import torch

from tasks.autoencoder import latent_noise
from tasks.autoencoder.config import LatentNoiseConfig
from tasks.seeds import torch_stream


def latents(name: str) -> torch.Tensor:
    return torch.randn(3, 64, 8, generator=torch_stream("test latents", name))


def test_no_noise_gives_the_latents_back_bit_for_bit() -> None:
    z, n = latents("z"), latents("n")
    assert torch.equal(latent_noise.add_noise(z, n, torch.zeros(3), 0.1, 2.0), z)


def test_all_noise_knows_nothing_of_the_latents() -> None:
    n, ones = latents("n"), torch.ones(3)
    one = latent_noise.add_noise(latents("z"), n, ones, 0.1, 2.0)
    other = latent_noise.add_noise(torch.full_like(n, torch.inf), n, ones, 0.1, 2.0)
    assert torch.equal(one, other)
    assert torch.allclose(one, 0.1 + 2.0 * n)


def test_standardised_latents_are_mixed_with_unit_noise() -> None:
    z, n, t = latents("z"), latents("n"), torch.tensor([0.2, 0.5, 0.9])
    mixed = latent_noise.add_noise(0.3 + 0.06 * z, n, t, 0.3, 0.06)
    expected = (1 - t)[:, None, None] * z + t[:, None, None] * n
    assert torch.allclose((mixed - 0.3) / 0.06, expected, atol=1e-5)


def test_a_lower_mean_is_more_noise() -> None:
    normal = torch.randn(10_000, generator=torch_stream("test times"))
    low, high = (
        latent_noise.draw_noise_time(normal, LatentNoiseConfig(applied_to="decoder", logit_mean=m)) for m in (-1.0, 1.0)
    )
    assert float(low.median()) == pytest.approx(1 - 1 / (1 + math.e), abs=0.02)
    assert bool((low > high).all())


def test_snr_is_a_ratio_of_powers() -> None:
    assert latent_noise.noise_time_of_snr(math.inf) == 0
    for snr in (4.0, 1.0, 0.25):
        time = latent_noise.noise_time_of_snr(snr)
        assert ((1 - time) / time) ** 2 == pytest.approx(snr)


def test_inflated_latents_are_given_away() -> None:
    assert latent_noise.realised_snr_db(1.0, 1.0) == 0
    assert latent_noise.realised_snr_db(10.0, 1.0) == pytest.approx(20.0)
