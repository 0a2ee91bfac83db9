"""Solve a small smooth problem to convergence, for tests that retrain for real."""

from collections.abc import Callable

import torch
from torch import Tensor


def minimise(objective: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The weight with the smallest objective that L-BFGS finds from start, to the last digit."""
    weight = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weight], max_iter=1000, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = objective(weight)
        value.backward()
        return value

    optimiser.step(closure)
    return weight.detach()
