"""What the paths of all frames have in common, measured once per model and noise level on the model's own samples.

Most of the Jacobian of a flow's velocity is shared by all frames. Subtracting the mean Jacobian ``M`` at a node leaves
``z . (J - M) z + tr M``: without bias, and with far less variance (a control variate). It needs no recordings: it is
taken along the paths of sequences that the model itself generates, so that the IC of a recording doesn't depend on
what else is asked. The same paths tell along which axes probes err least, and how far the rule is from a finer one.

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
from tasks.flow.likelihood import Rule, Step, graded, quadrature, transported
from tasks.flow.network import Flow
from tasks.flow.probes import FrameProbes, hadamard, n_rows
from tasks.seeds import torch_stream

N_SEQUENCES = 8
N_FRAMES = 10
FINER = 4
"""How many nodes of the fine rule there are for one of the coarse rule."""
FINE_PROBES = 4
SAMPLING_STEPS = 16
TRIALS = 8
"""How often the probes of the generated frames are drawn to tell what probes leave."""

Prepare = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Sequences ``(B, T, D)`` to targets and their contexts, ``(B, D)`` and ``(B, C)``, of the last frames."""


@dataclass(frozen=True)
class Measured:
    """What a rule meets on the paths of generated frames, and what it gets wrong there.

    Attributes
    ----------
    jacobians : (n, D, D) tensor
        Their mean Jacobian at each node.
    basis : (D, D) tensor
        Orthonormal columns along which probes are +-1: see `_basis`.
    rests : (n, N, D, D) tensor
        In this basis, the symmetric part of what each frame's Jacobian is beside the mean.
    weights : tuple of float
        Those of the rule.
    rule_bias_nats : float
        Mean difference of the log-density by a finer rule from that by the rule: what a rule gets wrong of what all
        frames have in common, and so nearly all of it.
    rule_bias_se_nats : float
        Its standard error over the generated frames.
    rule_error_nats : float
        Standard deviation of such differences of other frames from that mean.
    """

    jacobians: Tensor
    basis: Tensor
    rests: Tensor
    weights: tuple[float, ...]
    rule_bias_nats: float
    rule_bias_se_nats: float
    rule_error_nats: float

    @property
    def probe_nats(self) -> tuple[float, ...]:
        """Standard deviation that a single probe at each node leaves in the log-density, the mean Jacobian taken out.

        The variance of z . A z over Rademacher z is twice the sum of A's squared entries off the diagonal.
        """
        rests = self.rests.double()
        off_diagonal = rests.square().sum((1, 2, 3)) - rests.diagonal(dim1=2, dim2=3).square().sum((1, 2))
        variances = (2 * off_diagonal / max(self.rests.shape[1] - 1, 1)).tolist()
        return tuple(weight * math.sqrt(max(one, 0.0)) for weight, one in zip(self.weights, variances, strict=True))

    def shared_out(self, total: int) -> tuple[int, ...]:
        """How many of `total` probes each node gets: in proportion to what one leaves there, from 1 to all there are.

        In that proportion the variance of their sum is the least that so many independent probes can have.
        """
        probe_nats, most = self.probe_nats, n_rows(self.rests.shape[-1])
        whole, even = sum(probe_nats), total / len(probe_nats)
        shares = [total * nats / whole if whole > 0 else even for nats in probe_nats]
        return tuple(min(max(round(share), 1), most) for share in shares)

    def error_nats(self, counts: tuple[int, ...]) -> float:
        """Standard deviation of the log-density's error with so many probes at each node, of other frames than these.

        What probes leave is tried on these frames' own Jacobians, with the probes that recordings get.
        """
        n_frames, dim = self.rests.shape[1:3]
        rests = self.rests.double().cpu()
        errors = torch.zeros(TRIALS, n_frames, dtype=torch.float64)
        for trial in range(TRIALS):
            drawn, place = FrameProbes("control", f"trial {trial}", n_frames, dim), 0
            for rest, weight, count in zip(rests, self.weights, counts, strict=True):
                z = torch.from_numpy(drawn.rows_from(place, count, 0, n_frames)).double()
                found = torch.einsum("pni,nij,pnj->pn", z, rest, z).mean(0)
                errors[trial] += weight * (found - rest.diagonal(dim1=1, dim2=2).sum(-1))
                place += count
        around_the_mean = (n_frames + 1) / max(n_frames - 1, 1)
        return math.sqrt(self.rule_error_nats**2 + around_the_mean * float(errors.square().mean()))


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


def measure(
    at: HeadAt, along: HeadAt, targets: Tensor, contexts: Tensor, tau: float, rule: Rule, step: Step
) -> Measured:
    """What a rule on [0, tau] meets: ``targets (N, D)`` at time tau and ``contexts (N, C)``.

    `along` is the head as the rule meets it, `at` the head in full precision; `step` is that between nodes.
    """
    field, weights = HeadField(at, contexts), torch.tensor(rule.weights, dtype=torch.float64)
    jacobians = _jacobians(field, targets, tau, rule)
    means = jacobians.mean(1)
    rests = jacobians - means[:, None]
    rests = 0.5 * (rests + rests.mT)
    basis = _basis(rests, weights)
    errors = _rule_errors(field, HeadField(along, contexts), targets, tau, rule, step)
    n, bias, spread = len(errors), float(errors.mean()), float(errors.std())
    rests = basis.mT @ rests @ basis
    return Measured(means, basis, rests, rule.weights, bias, spread / math.sqrt(n), spread * math.sqrt(1 + 1 / n))


def _jacobians(field: HeadField, x: Tensor, tau: float, rule: Rule) -> Tensor:
    """Those of all frames at each node, ``(n, N, D, D)``."""
    found, at = [], tau
    for node in rule.taus:
        x, at = transported(field, x, at, node, 2), node
        found.append(field.jacobian(x, node))
    return torch.stack(found)


def _basis(rests: Tensor, weights: Tensor) -> Tensor:
    """Axes ``(D, D)`` along which the frames' rests are as nearly diagonal as one basis for all of them makes it.

    A probe of +-1 along each of some axes gets a matrix's diagonal in these axes right, whatever its signs; it errs by
    what is off it. The axes are the eigenvectors of the rests' mean square, over the frames and the path.
    """
    squares = (rests.double() @ rests.double()).mean(1)
    axes = torch.linalg.eigh((weights.to(squares)[:, None, None] * squares).sum(0)).eigenvectors
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    found: Tensor = axes * largest.sign()
    return found.to(rests)


def _rule_errors(field: HeadField, along: HeadField, x: Tensor, tau: float, rule: Rule, step: Step) -> Tensor:
    """What a rule gets wrong of the log-density of each frame of ``x (N, D)``, shape (N,).

    The finer rule has two nodes and more for each period of the fastest feature of tau, with the same few probes.
    """
    periods = tau * float(field.at.head.time.frequencies.abs().max()) / math.pi
    fine = graded(tau, max(FINER * len(rule.taus), math.ceil(2.2 * periods)))
    rows = torch.from_numpy(hadamard(x.shape[-1])).to(x)
    few = rows[torch.arange(FINE_PROBES * len(x)) % len(rows)].view(len(x), FINE_PROBES, -1).transpose(0, 1)
    coarsely = quadrature(along, x, tau, rule, lambda node: few, step=step)
    return quadrature(field, x, tau, fine, lambda node: few) - coarsely
