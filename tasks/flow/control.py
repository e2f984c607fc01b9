"""What the paths of all frames have in common, measured once per model and noise level on the model's own samples.

Most of the Jacobian of a flow's velocity is shared by all frames. Subtracting the mean Jacobian ``M`` at a node leaves
``z . (J - M) z + tr M``: without bias, and with far less variance (a control variate). It needs no recordings: it is
taken along the paths of sequences that the model itself generates, so that the IC of a recording doesn't depend on
what else is asked. The same paths tell how far the rule is from a finer one.

Shapes: B sequences, N frames, D latent channels, C width of a context.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tasks.flow.field import HeadAt, HeadField
from tasks.flow.likelihood import Rule, graded, quadrature, transported
from tasks.flow.network import Flow
from tasks.flow.probes import hadamard
from tasks.seeds import torch_stream

N_SEQUENCES = 8
N_FRAMES = 10
FINER = 4
"""How many nodes of the fine rule there are for one of the coarse rule."""
FINE_PROBES = 2
SAMPLING_STEPS = 16

Prepare = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Sequences ``(B, T, D)`` to targets and their contexts, ``(B, D)`` and ``(B, C)``, of the last frames."""


@dataclass(frozen=True)
class Measured:
    """What a rule meets on the paths of generated frames.

    Attributes
    ----------
    jacobians : (n, D, D) tensor
        Their mean Jacobian at each node.
    rule_error_nats : float
        RMS difference of the log-density from that of a finer rule.
    probe_nats : tuple of float
        Standard deviation that a single probe at each node leaves in the log-density, the mean Jacobian taken out.
    """

    jacobians: Tensor
    rule_error_nats: float
    probe_nats: tuple[float, ...]

    def shared_out(self, total: int, most: int) -> tuple[int, ...]:
        """How many of `total` probes each node gets: in proportion to what one leaves there, 1 to `most`.

        In that proportion the variance of their sum is the least that so many independent probes can have.
        """
        whole = sum(self.probe_nats)
        even = total / len(self.probe_nats)
        shares = [total * nats / whole if whole > 0 else even for nats in self.probe_nats]
        return tuple(min(max(round(share), 1), most) for share in shares)

    def error_nats(self, probes: tuple[int, ...], most: int) -> float:
        """Standard deviation of the log-density's error with so many probes at each node, of `most` orthogonal ones."""
        left = [
            nats**2 / count * (most - count) / max(most - 1, 1)
            for nats, count in zip(self.probe_nats, probes, strict=True)
        ]
        return math.sqrt(self.rule_error_nats**2 + sum(left))


_generated: WeakKeyDictionary[Flow, Tensor] = WeakKeyDictionary()


def generated(flow: Flow) -> Tensor:
    """Sequences ``(B, T, D)`` that the model makes by itself, the same ones for all noise levels."""
    if flow not in _generated:
        _generated[flow] = generate(flow, "control")
    return _generated[flow]


def generate(flow: Flow, seed: str, n_sequences: int = N_SEQUENCES, n_frames: int = N_FRAMES) -> Tensor:
    """Sequences ``(B, T, D)`` that the model makes by itself, from a first frame of noise."""
    device = flow.head.out.weight.device
    random = torch_stream(seed, "generated")
    shape = (n_sequences, 1, flow.latent_dim)
    frames = torch.randn(shape, generator=random).to(device, flow.head.out.weight.dtype)
    at = HeadAt(flow.head)
    for _ in range(n_frames - 1):
        field = HeadField(at, flow.backbone(frames)[:, -1])
        noise = torch.randn(shape, generator=random).to(frames)[:, 0]
        frames = torch.cat([frames, transported(field, noise, 0.0, 1.0, SAMPLING_STEPS)[:, None]], dim=1)
    return frames


def measure(at: HeadAt, targets: Tensor, contexts: Tensor, tau: float, rule: Rule) -> Measured:
    """What a rule on [0, tau] meets: ``targets (N, D)`` at time tau and ``contexts (N, C)``."""
    field = HeadField(at, contexts)
    jacobians, probe_nats = _mean_jacobians(field, targets, tau, rule)
    fine = graded(tau, FINER * len(rule.taus))
    rows = torch.from_numpy(hadamard(targets.shape[-1])).to(targets)
    few = rows[torch.arange(FINE_PROBES * len(targets)) % len(rows)].view(len(targets), FINE_PROBES, -1).transpose(0, 1)
    finely, coarsely = (quadrature(field, targets, tau, one, lambda node: few) for one in (fine, rule))
    errors = finely - coarsely
    return Measured(jacobians, float(errors.square().mean().sqrt()), probe_nats)


def _mean_jacobians(field: HeadField, x: Tensor, tau: float, rule: Rule) -> tuple[Tensor, tuple[float, ...]]:
    """Means over frames at each node, ``(n, D, D)``, and what a Rademacher probe makes of the frames' rest.

    The variance of z . A z over such z is twice the squared off-diagonal entries of A's symmetric part.
    """
    means, deviations, at = [], [], tau
    for node, weight in zip(rule.taus, rule.weights, strict=True):
        x = transported(field, x, at, node, 2)
        jacobians = field.jacobian(x, node)
        means.append(jacobians.mean(0))
        rest = jacobians - means[-1]
        rest = 0.5 * (rest + rest.mT)
        off_diagonal = rest.square().sum() - rest.diagonal(dim1=1, dim2=2).square().sum()
        deviations.append(weight * math.sqrt(2 * float(off_diagonal) / max(len(x) - 1, 1)))
        at = node
    return torch.stack(means), tuple(deviations)
