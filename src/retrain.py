"""Train the head again with other weights on the training samples, and see how the distances change."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from src.confusion import mean_distance
from src.curvature import sample_gradients
from src.head import Targets, Training, chunks

MOMENTUM = 0.9


def retrain(training: Training, share: Float[Tensor, " n"], steps: int, rate: float) -> Float[Tensor, "m D"]:
    """W after `steps` of full-batch gradient descent from the trained one on sum_k share_k l_k.

    With Nesterov's momentum of 0.9; features, bias and proxies stay. A rate of one over the Hessian's
    largest eigenvalue is as fast as is stable. Deterministic: equal shares end at equal weights.
    """
    weight, velocity = training.weight, torch.zeros_like(training.weight)
    for _ in range(steps):
        ahead = weight + MOMENTUM * velocity
        gradients = sample_gradients(replace(training, weight=ahead))
        slope = (share[:, None] * gradients).T @ training.features
        velocity = MOMENTUM * velocity - rate * slope
        weight = weight + velocity
    return weight


def distances(training: Training, targets: Targets, weight: Float[Tensor, "m D"]) -> Float[Tensor, " g"]:
    """d of every group at another W, times the targets' sign."""
    found = [
        mean_distance(F.linear(sides.features, weight, training.bias), sides.share)
        for sides in chunks(targets, 1)
    ]
    return torch.cat(found) if found else training.z.new_empty(0)
