"""Log-likelihood of a rectified flow by the instantaneous change of variables.

``log p_tau(x) = log N(x_0; 0, I) - integral_0^tau div v du`` along the ODE ``dx/du = v(x, u)`` through ``x`` at ``tau``
(Chen et al. 2018, Neural ordinary differential equations; Song et al. 2021, section 4.3), the divergence by the
Skilling-Hutchinson estimator ``z . J z`` with random probes z (Grathwohl et al. 2019, FFJORD).

Two solvers. `euler` is that of the published inference code: equal steps, and probes that stay the same along the path.
`quadrature` takes the divergence only at the nodes of a Gauss-Legendre rule, with other probes at every node, and needs
a velocity or two between two nodes; a control variate takes out of the estimate what all frames have in common (see
tasks/flow/control.py).

Shapes: N frames, D latent channels, P probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Probes = Callable[[int], Tensor]
"""Probes ``(P, N, D)`` of the node with this number."""


class Field(Protocol):
    """A velocity field of N frames."""

    def velocity(self, x: Tensor, tau: float) -> Tensor:
        """Velocity ``(N, D)`` at ``x (N, D)``."""
        ...

    def jvp(self, x: Tensor, tau: float, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity ``(N, D)``, and its Jacobian times each of ``directions (P, N, D)``, ``(P, N, D)``."""
        ...


Step = Callable[[Field, Tensor, float, float, Tensor], Tensor]
"""Field, x, time at start and end, and velocity at the start, to x at the end."""


@dataclass(frozen=True)
class Rule:
    """Nodes in (0, tau_end), falling, and the weights that integrate over [0, tau_end]."""

    taus: tuple[float, ...]
    weights: tuple[float, ...]


def gauss_legendre(tau_end: float, n_nodes: int) -> Rule:
    """The rule of Gauss and Legendre: exact for polynomials up to degree ``2 n_nodes - 1``."""
    places, weights = np.polynomial.legendre.leggauss(n_nodes)
    taus = 0.5 * tau_end * (places[::-1] + 1)
    return Rule(tuple(taus.tolist()), tuple((0.5 * tau_end * weights[::-1]).tolist()))


GRADING = 0.9
"""Share of the quadratic part in `graded`."""


def graded(tau_end: float, n_nodes: int) -> Rule:
    """Gauss-Legendre nodes drawn towards `tau_end`, where a flow's velocity changes fastest with tau.

    The nodes u in (0, 1) are those of ``tau = tau_end ((1 - a) u + a (1 - (1 - u)^2))``, with a = `GRADING`.
    """
    even = gauss_legendre(1.0, n_nodes)
    stretched = [u * (1 + GRADING * (1 - u)) for u in even.taus]
    slopes = [1 + GRADING * (1 - 2 * u) for u in even.taus]
    weights = [tau_end * weight * slope for weight, slope in zip(even.weights, slopes, strict=True)]
    return Rule(tuple(tau_end * place for place in stretched), tuple(weights))


def standard_normal(x: Tensor) -> Tensor:
    """Log-density in nats of each row of ``x (N, D)`` under N(0, I), float64."""
    return -0.5 * x.double().square().sum(-1) - 0.5 * x.shape[-1] * math.log(2 * math.pi)


def euler(field: Field, x: Tensor, tau: float, n_steps: int, probes: Tensor) -> Tensor:
    """Log-density in nats of each row of `x` under the flow's marginal at time `tau`, as published.

    Parameters
    ----------
    field : Field
    x : (N, D) tensor
    tau : float
        Time in [0, 1] at which `x` lives; 0 is pure noise, where the density is N(0, I) exactly.
    n_steps : int
        Equal steps from `tau` down to 0, each with velocity and divergence at its start.
    probes : (P, N, D) tensor
        The same for all steps.

    Returns
    -------
    (N,) float64 tensor
    """
    step = tau / n_steps
    gain = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for k in range(n_steps if tau > 0 else 0):
        velocity, products = field.jvp(x, tau * (n_steps - k) / n_steps, probes)
        x = x - step * velocity
        gain += (probes * products).sum(-1).mean(0)
    return standard_normal(x) - step * gain


def midpoint(field: Field, x: Tensor, at: float, then: float, velocity: Tensor) -> Tensor:
    """One step of the midpoint method from time `at` to `then`; `velocity` is that at its start."""
    step = then - at
    return x + step * field.velocity(x + 0.5 * step * velocity, at + 0.5 * step)


def ralston(field: Field, x: Tensor, at: float, then: float, velocity: Tensor) -> Tensor:
    """As `midpoint`, with a third velocity: Ralston's method of third order (1962, doi 10.2307/2003133)."""
    step = then - at
    second = field.velocity(x + 0.5 * step * velocity, at + 0.5 * step)
    third = field.velocity(x + 0.75 * step * second, at + 0.75 * step)
    return x + step / 9 * (2 * velocity + 3 * second + 4 * third)


def quadrature(
    field: Field,
    x: Tensor,
    tau: float,
    rule: Rule,
    probes: Probes,
    control: Tensor | None = None,
    step: Step = midpoint,
) -> Tensor:
    """Log-density in nats of each row of `x` under the flow's marginal at time `tau`.

    Parameters
    ----------
    field : Field
    x : (N, D) tensor
    tau : float
        Time in [0, 1] at which `x` lives.
    rule : Rule
        Of [0, tau].
    probes : callable
    control : (n, D, D) tensor, optional
        A Jacobian for each node, which is subtracted from the frames' own before these meet the probes; its exact trace
        is added. The nearer it is to theirs, the less the probes vary.
    step : callable
        From one node to the next: `midpoint` or `ralston`.

    Returns
    -------
    (N,) float64 tensor
    """
    integral = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    if tau == 0:
        return standard_normal(x)
    at, velocity = tau, field.velocity(x, tau)
    for k, (node, weight) in enumerate(zip(rule.taus, rule.weights, strict=True)):
        x = step(field, x, at, node, velocity)
        z = probes(k)
        velocity, products = field.jvp(x, node, z)
        at = node
        if control is not None:
            products = products - z @ control[k].T
            integral += weight * float(control[k].trace())
        integral += weight * (z * products).sum(-1).double().mean(0)
    x = step(field, x, at, 0.0, velocity)
    return standard_normal(x) - integral


def transported(field: Field, x: Tensor, start: float, end: float, n_steps: int) -> Tensor:
    """Where the ODE takes ``x (N, D)`` from time `start` to `end`, by `n_steps` equal midpoint steps."""
    for k in range(n_steps if start != end else 0):
        at, then = (start + (end - start) * j / n_steps for j in (k, k + 1))
        x = midpoint(field, x, at, then, field.velocity(x, at))
    return x


def euler_transported(field: Field, x: Tensor, start: float, end: float, n_steps: int) -> Tensor:
    """As `transported`, by equal steps of Euler's method, each with the velocity at its start."""
    step = (end - start) / n_steps
    for k in range(n_steps):
        x = x + step * field.velocity(x, start + k * step)
    return x
