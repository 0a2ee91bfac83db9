"""Full-batch descent of the head from where it stands: the training of the counterfactual check."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.curvature import hessian_of, sample_gradients
from deconfuse.attribution.head import Training
from deconfuse.attribution.rows import losses, weighted_sum
from deconfuse.attribution.solving import spectrum
from deconfuse.system.errors import UserError

MOMENTUM = 0.9


def retrain(training: Training, share: Float[Tensor, " n"], steps: int, rate: float) -> Float[Tensor, "m D"]:
    """W after `steps` of full-batch gradient descent from the trained one on sum_k share_k l_k.

    Nesterov's momentum is 0.9; features, bias and proxies are constants. Deterministic: equal shares lead to
    equal weights. rate: the step size, from `stable_rate`.
    """
    *_, weight = descend(training, share, steps, rate)
    return weight


def descend(
    training: Training, share: Float[Tensor, " n"], steps: int, rate: float
) -> Iterator[Float[Tensor, "m D"]]:
    """W before the first step and after each."""
    weight, velocity = training.weight, torch.zeros_like(training.weight)
    yield weight
    for _ in range(steps):
        gradients = sample_gradients(replace(training, weight=weight + MOMENTUM * velocity))
        velocity = MOMENTUM * velocity - rate * weighted_sum(training, share[:, None] * gradients)
        weight = weight + velocity
        yield weight


def stable_rate(training: Training, share: Float[Tensor, " n"], steps: int, largest: float) -> float:
    """The first of 1/largest, 1/(2 largest), 1/(4 largest) ... with which the loss never rises.

    largest: the Hessian's largest eigenvalue at the trained head; it may be larger along the path. With a
    step size at which the loss oscillates, what is measured would depend on rounding errors. Raises UserError
    if none of 20 step sizes is small enough.
    """
    for halvings in range(20):
        rate, before = 0.5**halvings / largest, float("inf")
        for weight in descend(training, share, steps, rate):
            loss = (share * losses(replace(training, weight=weight))).sum().item()
            if not loss <= before * (1 + 1e-6):
                break
            before = loss
        else:
            return rate
    raise UserError("no step size brings the head's loss down, so it can't be trained again from here")


def rate_of(training: Training, steps: int, seed: int) -> float:
    """The step size at which the loss of all samples never rises; seed: of the eigenvalue's estimate."""
    largest = spectrum(hessian_of(training), training.weight, seed=seed).largest
    if largest <= 0:
        raise UserError(
            "the head's Hessian has no positive eigenvalue, so it can't be trained again from here"
        )
    like, n = training.weight, len(training)
    even = torch.full((n,), 1 / n, dtype=like.dtype, device=like.device)
    return stable_rate(training, even, steps, largest)
