"""The head's velocity field, and how it changes along given directions.

Every block begins with a LayerNorm, and so does the last layer: what the residual stream has in common over its H
channels matters to nothing. So the weights that write to it are centred once, and neither activations nor tangents
ever have a mean to subtract.

Shapes: N frames, D latent channels, C width of a context, P tangents per frame, H width of the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tasks.flow.network import NORM_EPS, FlowBlock, FlowHead


@dataclass(frozen=True)
class _Moment:
    """What of the head depends on tau: a gain (H,) for each block, gain and bias of the last layer, (H,) and (D,)."""

    gains: list[Tensor]
    out_gain: Tensor
    out_bias: Tensor


class HeadAt:
    """The head with its weights prepared for `HeadField`; what depends on tau alone is computed once per time.

    Parameters
    ----------
    head : FlowHead
    tangents : torch.dtype, optional
        In which tangents are carried; that of the weights by default. Primals are in that of the weights in any case.
    """

    def __init__(self, head: FlowHead, tangents: torch.dtype | None = None) -> None:
        self.head = head
        self.dtype = head.out.weight.dtype
        self.blocks = [block for block in head.blocks if isinstance(block, FlowBlock)]
        of_x, of_context = head.inlet_parts()
        self.of_x, self.of_context, self.inlet_bias = map(_centred, (of_x.T, of_context.T, head.inlet.bias))
        self.gates = [block.gate.weight.T.contiguous() for block in self.blocks]
        self.outs = [_centred(block.out.weight.T) for block in self.blocks]
        self.last = head.out.weight.T.contiguous()
        self.tangents = tangents or self.dtype
        self.inlet_along, self.last_along = self.of_x.to(self.tangents), self.last.to(self.tangents)
        self.gates_along, self.outs_along = ([w.to(self.tangents) for w in part] for part in (self.gates, self.outs))
        self._moments: dict[float, _Moment] = {}

    def __call__(self, tau: float) -> _Moment:
        if tau not in self._moments:
            head = self.head
            embedding = head.time(torch.tensor([tau], dtype=self.dtype, device=head.out.weight.device))[0]
            scale, shift = head.modulation(embedding).chunk(2)
            bias = functional.linear(shift, head.out.weight, head.out.bias)
            self._moments[tau] = _Moment([1 + block.scale(embedding) for block in self.blocks], 1 + scale, bias)
        return self._moments[tau]


class HeadField:
    """The velocity of N frames, each given its context.

    Parameters
    ----------
    at : HeadAt
    context : (N, C) tensor
    """

    def __init__(self, at: HeadAt, context: Tensor) -> None:
        self.at, self.context = at, context
        self.from_context = torch.addmm(at.inlet_bias, context, at.of_context)

    def velocity(self, x: Tensor, tau: float) -> Tensor:
        """Velocity ``(N, D)`` at ``x (N, D)``."""
        moment, at = self.at(tau), self.at
        h = torch.addmm(self.from_context, x, at.of_x)
        for gain, gate, out in zip(moment.gains, at.gates, at.outs, strict=True):
            a, b = (_normed(h)[0].mul_(gain) @ gate).chunk(2, dim=-1)
            h.addmm_(functional.silu(a).mul_(b), out)
        return torch.addmm(moment.out_bias, _normed(h)[0].mul_(moment.out_gain), at.last)

    def jvp(self, x: Tensor, tau: float, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity ``(N, D)`` and, for ``directions (P, N, D)``, its Jacobian times each of them ``(P, N, D)``.

        The tangents of all directions are carried forward beside one primal: with h the activation and d its tangent,
        both without a mean, LayerNorm's tangent is ``(d - n mean(n d)) / sd`` (n the normed activation), and a gate's
        is ``(silu'(a) b) da + silu(a) db``.
        """
        moment, at = self.at(tau), self.at
        h = torch.addmm(self.from_context, x, at.of_x)
        d = directions.to(at.tangents) @ at.inlet_along
        for number, gain in enumerate(moment.gains):
            normed, inverse_sd = _normed(h)
            inward = _inward(d, normed, gain)
            a, b = (normed.mul_(gain) @ at.gates[number]).chunk(2, dim=-1)
            sigmoid = torch.sigmoid(a)
            silu = a * sigmoid
            slope = (sigmoid + silu - silu * sigmoid) * b * inverse_sd
            da, db = (inward @ at.gates_along[number]).chunk(2, dim=-1)
            outward = (da * slope.to(d.dtype)).addcmul_(db, (silu * inverse_sd).to(d.dtype))
            d = torch.addmm(d.flatten(0, 1), outward.flatten(0, 1), at.outs_along[number]).view_as(d)
            h.addmm_(silu * b, at.outs[number])
        normed, inverse_sd = _normed(h)
        along = (_inward(d, normed, moment.out_gain) @ at.last_along).to(x.dtype).mul_(inverse_sd)
        return torch.addmm(moment.out_bias, normed.mul_(moment.out_gain), at.last), along

    def jacobian(self, x: Tensor, tau: float) -> Tensor:
        """The whole Jacobian of each frame's velocity, ``(N, D, D)``: row i is how component i changes."""
        n_frames, dim = x.shape
        unit = torch.eye(dim, dtype=x.dtype, device=x.device)[:, None, :].expand(dim, n_frames, dim)
        return self.jvp(x, tau, unit)[1].permute(1, 2, 0)


def _centred(weight: Tensor) -> Tensor:
    """`weight` ``(..., H)`` without its mean over H."""
    return (weight - weight.mean(-1, keepdim=True)).contiguous()


def _normed(h: Tensor) -> tuple[Tensor, Tensor]:
    """``h (N, H)`` with zero mean and unit variance over H, and one over its standard deviation, ``(N, 1)``."""
    normed, _, inverse_sd = torch.native_layer_norm(h, (h.shape[-1],), None, None, NORM_EPS)
    return normed, inverse_sd


def _inward(d: Tensor, normed: Tensor, gain: Tensor) -> Tensor:
    """Tangents ``d (P, N, H)`` without their share along ``normed (N, H)``, times ``gain (H,)``."""
    normed = normed.to(d.dtype)
    share = torch.einsum("pnh,nh->pn", d, normed)[..., None]
    return torch.addcmul(d, normed, share, value=-1 / d.shape[-1]).mul_(gain.to(d.dtype))
