"""Log-likelihood of a rectified flow by the instantaneous change of variables.

``log p_tau(x) = log N(x_0; 0, I) - integral_0^tau div v du`` along the ODE ``dx/du = v(x, u)`` through ``x`` at ``tau``
(Chen et al. 2018, Neural ordinary differential equations; Song et al. 2021, section 4.3), the divergence by the
Skilling-Hutchinson estimator with probes that stay fixed along the path (Grathwohl et al. 2019, FFJORD).

Shapes: N frames, D latent channels, C width of a context, P probes, H width of the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from tasks.flow.network import NORM_EPS, FlowBlock, FlowHead


class Field(Protocol):
    """A velocity field with its divergence: ``x (N, D)`` and tau to ``(N, D)`` and ``(N,)``."""

    def __call__(self, x: Tensor, tau: float) -> tuple[Tensor, Tensor]: ...


def log_likelihood(field: Field, x: Tensor, tau: float, n_steps: int) -> Tensor:
    """Log-density in nats of each row of `x` under the flow's marginal at time `tau`.

    Parameters
    ----------
    field : callable
        Velocity and divergence at a time.
    x : (N, D) tensor
    tau : float
        Time in [0, 1] at which `x` lives; 0 is pure noise, where the density is N(0, I) exactly.
    n_steps : int
        Euler steps from `tau` down to 0, each with the velocity at its start.

    Returns
    -------
    (N,) float64 tensor
    """
    step = tau / n_steps
    gain = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for k in range(n_steps if tau > 0 else 0):
        velocity, divergence = field(x, tau * (n_steps - k) / n_steps)
        x = x - step * velocity
        gain += divergence
    energy = 0.5 * x.double().square().sum(-1)
    return -energy - 0.5 * x.shape[-1] * math.log(2 * math.pi) - step * gain


def exact_probes(n_frames: int, dim: int) -> Tensor:
    """Probes ``(D, N, D)`` with which the estimated divergence is the exact trace, at D times the cost of one."""
    return (math.sqrt(dim) * torch.eye(dim))[:, None, :].expand(dim, n_frames, dim).contiguous()


@dataclass(frozen=True)
class _Moment:
    """The head's weights at one tau, with the scales of that time multiplied in."""

    gates: list[Tensor]
    out_weight: Tensor
    out_bias: Tensor
    out_scale: Tensor


class HeadAt:
    """The head at fixed times: what depends on tau alone is computed once per time and kept while it is small.

    LayerNorm leaves zero-mean vectors, so subtracting from each row of the weights after it the row's mean changes no
    value, and makes the same weights right for tangents that weren't centred.
    """

    def __init__(self, head: FlowHead, cache_bytes: int = 2**26) -> None:
        self.head = head
        self._moments: dict[float, _Moment] = {}
        self._room = cache_bytes

    def __call__(self, tau: float) -> _Moment:
        moment = self._moments.get(tau)
        if moment is None:
            moment = self._at(tau)
            self._room -= sum(4 * part.numel() for part in (*moment.gates, moment.out_weight))
            if self._room > 0:
                self._moments[tau] = moment
        return moment

    def _at(self, tau: float) -> _Moment:
        head = self.head
        embedding = head.time(torch.tensor([tau], dtype=torch.float32, device=head.out.weight.device))[0]
        gates = []
        for block in head.blocks:
            assert isinstance(block, FlowBlock)
            gate = block.gate.weight * (1 + block.scale(embedding))
            gates.append((gate - gate.mean(1, keepdim=True)).T.contiguous())
        scale, shift = head.modulation(embedding).chunk(2)
        out = head.out.weight * (1 + scale)
        return _Moment(gates, out.T.contiguous(), functional.linear(shift, head.out.weight, head.out.bias), 1 + scale)


class HeadField:
    """The head's velocity for a block of frames, and its divergence by tangents carried forward beside it.

    The tangents of all probes go through the network together: with h the activation and d its tangent, LayerNorm's
    tangent is ``(d - mean(d) - n mean(n d)) / sd`` (n the normed activation), and a gate's is
    ``(silu'(a) b) da + silu(a) db``. The first layer's tangents don't change along the path, and the last layer is
    applied to the probes once instead of to the tangents at every step.

    Parameters
    ----------
    at : HeadAt
    context : (N, C) tensor
    probes : (P, N, D) tensor
    """

    def __init__(self, at: HeadAt, context: Tensor, probes: Tensor) -> None:
        head = at.head
        of_x, of_context = head.inlet_parts()
        self.at = at
        self.of_x = of_x.T.contiguous()
        self.outs = [block.out.weight.T.contiguous() for block in head.blocks if isinstance(block, FlowBlock)]
        self.from_context = functional.linear(context, of_context.contiguous(), head.inlet.bias)
        self.first_tangent = probes @ self.of_x
        self.last_tangent = probes @ head.out.weight

    def __call__(self, x: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        moment = self.at(tau)
        h = torch.addmm(self.from_context, x, self.of_x)
        d = self.first_tangent
        for gate, out in zip(moment.gates, self.outs, strict=True):
            h, d = _block(h, d, gate, out)
        width = h.shape[-1]
        normed, _, inverse_sd = torch.native_layer_norm(h, (width,), None, None, NORM_EPS)
        velocity = torch.addmm(moment.out_bias, normed, moment.out_weight)
        test = self.last_tangent * moment.out_scale
        test -= test.mean(-1, keepdim=True)
        along = (normed * d).sum(-1) * (normed * test).sum(-1) / width
        divergence = ((test * d).sum(-1) - along).mean(0) * inverse_sd[:, 0]
        return velocity, divergence


def _block(h: Tensor, d: Tensor, gate: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Activations ``h (N, H)`` and tangents ``d (P, N, H)`` behind one block of the head."""
    n_probes, n_frames, width = d.shape
    normed, _, inverse_sd = torch.native_layer_norm(h, (width,), None, None, NORM_EPS)
    a, b = (normed @ gate).chunk(2, dim=-1)
    sigmoid = torch.sigmoid(a)
    silu = a * sigmoid
    slope = (sigmoid + silu - silu * sigmoid) * b * inverse_sd
    level = silu * inverse_sd
    inward = torch.addcmul(d, normed, (d * normed).sum(-1, keepdim=True), value=-1 / width)
    da, db = (inward @ gate).chunk(2, dim=-1)
    outward = torch.addcmul(da * slope, db, level)
    d = torch.addmm(d.flatten(0, 1), outward.flatten(0, 1), out).view(n_probes, n_frames, width)
    return torch.addmm(h, silu * b, out), d
