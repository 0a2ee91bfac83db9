"""Train the head again with other weights on the training samples, and see how the distances change."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.curvature import sample_gradients
from deconfuse.attribution.head import Targets, Training, chunks
from deconfuse.retrieval.confusion import mean_distance
from deconfuse.system.errors import UserError

MOMENTUM = 0.9


@dataclass(frozen=True)
class Changes:
    """d of every explained group before and after its own retraining, times the targets' sign; on a CPU.

    before and after in [-4, 4]; where it is -d that is explained (mis-similar pairs), they are -d.
    """

    before: Float[Tensor, " g"]
    after: Float[Tensor, " g"]

    @property
    def change(self) -> Float[Tensor, " g"]:
        """after - before (Eq. 7); > 0: the explanation helped, what was confused is further apart."""
        return self.after - self.before


def retrain(training: Training, share: Float[Tensor, " n"], steps: int, rate: float) -> Float[Tensor, "m D"]:
    """W after `steps` of full-batch gradient descent from the trained one on sum_k share_k l_k.

    With Nesterov's momentum of 0.9; features, bias and proxies stay. Deterministic: equal shares end at
    equal weights. rate: `stable_rate` finds one.
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
        velocity = MOMENTUM * velocity - rate * (share[:, None] * gradients).T @ training.features
        weight = weight + velocity
        yield weight


def stable_rate(training: Training, share: Float[Tensor, " n"], steps: int, largest: float) -> float:
    """The first of 1/largest, 1/(2 largest), 1/(4 largest) ... with which the loss never rises on its way.

    largest: the Hessian's largest eigenvalue at the trained head, from where it may grow. A rate that lets
    the loss swing would make what is measured a matter of rounding. Raises UserError where none is found.
    """
    for halvings in range(20):
        rate, before = 0.5**halvings / largest, float("inf")
        for weight in descend(training, share, steps, rate):
            loss = (share * replace(training, weight=weight).losses).sum().item()
            if not loss <= before * (1 + 1e-6):
                break
            before = loss
        else:
            return rate
    raise UserError("no step size brings the head's loss down, so it can't be trained again from here")


def distances(training: Training, targets: Targets, weight: Float[Tensor, "m D"]) -> Float[Tensor, " g"]:
    """d of every group at another W, times the targets' sign."""
    found = [
        mean_distance(F.linear(sides.features, weight, training.bias), sides.share)
        for sides in chunks(targets, 1)
    ]
    return torch.cat(found) if found else training.z.new_empty(0)
