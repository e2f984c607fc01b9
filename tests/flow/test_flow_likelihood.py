from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.flow.likelihood import HeadAt, HeadField, exact_probes, log_likelihood
from tasks.flow.network import Flow, new_flow


@dataclass
class GaussianField:
    """The exact rectified flow from N(0, I) to N(mean, diag(variance)): linear in x, with a known divergence."""

    mean: Tensor
    variance: Tensor

    def __call__(self, x: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        slope = (tau * self.variance - (1 - tau)) / self.marginal(tau)
        return self.mean + slope * (x - tau * self.mean), slope.sum().expand(len(x))

    def marginal(self, tau: float) -> Tensor:
        return tau**2 * self.variance + (1 - tau) ** 2

    def log_density(self, x: Tensor, tau: float) -> Tensor:
        variance = self.marginal(tau)
        return -0.5 * ((x - tau * self.mean) ** 2 / variance + torch.log(2 * math.pi * variance)).sum(-1)


def gaussian(random: torch.Generator) -> GaussianField:
    return GaussianField(
        torch.randn(64, generator=random).double(), torch.logspace(math.log10(0.25), math.log10(4), 64).double()
    )


@pytest.mark.parametrize("tau", [1.0, 0.7, 0.4])
def test_a_gaussian_is_right_within_a_nat_and_twice_the_steps_halve_the_error(tau: float) -> None:
    random = torch.Generator().manual_seed(0)
    field = gaussian(random)
    x = tau * field.mean + field.marginal(tau).sqrt() * torch.randn(200, 64, generator=random).double()
    truth = field.log_density(x, tau)
    errors = [float((log_likelihood(field, x, tau, n) - truth).abs().mean()) for n in (50, 100, 200)]
    assert (log_likelihood(field, x, tau, 100) - truth).abs().max() < 1
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_at_time_zero_it_is_the_standard_normal() -> None:
    field = gaussian(torch.Generator().manual_seed(0))
    zero = torch.zeros(3, 64)
    assert log_likelihood(field, zero, 0.0, 10).tolist() == [-32 * math.log(2 * math.pi)] * 3
    assert log_likelihood(field, zero + 1, 0.0, 10)[0] == pytest.approx(-32 * math.log(2 * math.pi) - 32)


def rough_flow() -> Flow:
    """A model none of whose weights is zero, in float64."""
    flow = new_flow("tiny", seed=1).eval().double()
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return flow.requires_grad_(False)


def jacobians(flow: Flow, x: Tensor, context: Tensor, tau: float) -> Tensor:
    def velocity(one: Tensor, its_context: Tensor) -> Tensor:
        time = torch.full((1, 1), tau)
        out: Tensor = flow.head(one[None, None, None], its_context[None, None], time)
        return out[0, 0, 0]

    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda v, c=c: velocity(v, c), one)
            for one, c in zip(x, context, strict=True)
        ]
    )


def test_velocity_and_exact_trace_equal_those_of_autograd() -> None:
    flow, random = rough_flow(), torch.Generator().manual_seed(3)
    x, context = torch.randn(4, 64, generator=random).double(), torch.randn(4, 64, generator=random).double()
    velocity, divergence = HeadField(HeadAt(flow.head), context, exact_probes(4, 64).double())(x, 0.37)
    time = torch.tensor([[0.37]])
    wanted = flow.head(x[None, None], context[None], time)[0, 0]
    assert torch.allclose(velocity, wanted, atol=1e-9)
    trace = jacobians(flow, x, context, 0.37).diagonal(dim1=1, dim2=2).sum(-1)
    assert torch.allclose(divergence, trace, atol=1e-8)
    assert divergence.abs().min() > 1e-3


def test_the_estimate_is_the_mean_of_probe_jacobian_probe() -> None:
    flow, random = rough_flow(), torch.Generator().manual_seed(4)
    x, context = torch.randn(3, 64, generator=random).double(), torch.randn(3, 64, generator=random).double()
    probes = torch.randint(0, 2, (5, 3, 64), generator=random).double() * 2 - 1
    _, divergence = HeadField(HeadAt(flow.head), context, probes)(x, 0.8)
    wanted = torch.einsum("pni,nij,pnj->pn", probes, jacobians(flow, x, context, 0.8), probes).mean(0)
    assert torch.allclose(divergence, wanted, atol=1e-8)


def test_times_kept_in_memory_change_no_bit() -> None:
    flow = new_flow("tiny", seed=1).requires_grad_(False)
    random = torch.Generator().manual_seed(5)
    x, context = torch.randn(6, 64, generator=random), torch.randn(6, 64, generator=random)
    probes = torch.ones(2, 6, 64)
    kept, unkept = HeadAt(flow.head), HeadAt(flow.head, cache_bytes=0)
    results = [log_likelihood(HeadField(at, context, probes), x, 0.9, 8) for at in (kept, kept, unkept)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_probes_are_unbiased() -> None:
    flow, random = rough_flow(), torch.Generator().manual_seed(6)
    x, context = torch.randn(2, 64, generator=random).double(), torch.randn(2, 64, generator=random).double()
    probes = torch.randint(0, 2, (400, 2, 64), generator=random).double() * 2 - 1
    at = HeadAt(flow.head)
    each = np.stack([HeadField(at, context, probe[None])(x, 0.5)[1].numpy() for probe in probes])
    exact = HeadField(at, context, exact_probes(2, 64).double())(x, 0.5)[1].numpy()
    assert (np.abs(each.mean(0) - exact) < 4 * each.std(0) / math.sqrt(len(each))).all()
