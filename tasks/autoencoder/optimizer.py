"""RAdam on all parameters at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

BETA_1, BETA_2 = 0.9, 0.999
EPSILON = 1e-8
RHO_MAX = 2 / (1 - BETA_2) - 1


class FlatParameters:
    """Parameters as stretches of one vector, so that an update is a few operations instead of thousands.

    Attributes
    ----------
    values, gradient : Tensor
        (number of values,); the parameters and their gradients are views of these.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.values = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        self.gradient = torch.zeros_like(self.values)
        start = 0
        for parameter in parameters:
            stretch = slice(start, start + parameter.numel())
            parameter.data = self.values[stretch].view_as(parameter)
            if parameter.requires_grad:
                parameter.grad = self.gradient[stretch].view_as(parameter)
            start = stretch.stop


class RAdam:
    """Rectified Adam (Liu et al., ICLR 2020), betas 0.9 and 0.999, without weight decay.

    Parameters
    ----------
    parameters : FlatParameters
        What to train.
    """

    def __init__(self, parameters: FlatParameters) -> None:
        self._parameters = parameters
        self.moment_1 = torch.zeros_like(parameters.values)
        self.moment_2 = torch.zeros_like(parameters.values)

    @torch.no_grad()
    def step(self, count: int, learning_rate: float) -> None:
        """Update `count` (from 1) along the parameters' gradient, which is zero afterwards."""
        gradient = self._parameters.gradient
        self.moment_1.lerp_(gradient, 1 - BETA_1)
        self.moment_2.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        rate = learning_rate / (1 - BETA_1**count)
        rho = RHO_MAX - 2 * count * BETA_2**count / (1 - BETA_2**count)
        if rho > 5:
            rectified = math.sqrt((rho - 4) * (rho - 2) * RHO_MAX / ((RHO_MAX - 4) * (RHO_MAX - 2) * rho))
            rate *= rectified * math.sqrt(1 - BETA_2**count)
            self._parameters.values.addcdiv_(self.moment_1, self.moment_2.sqrt().add_(EPSILON), value=-rate)
        else:
            self._parameters.values.add_(self.moment_1, alpha=-rate)
        gradient.zero_()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        return {"moment_1": self.moment_1, "moment_2": self.moment_2}
