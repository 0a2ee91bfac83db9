"""TracIn (Pruthi et al., NeurIPS 2020) on the head, at one checkpoint.

    I(x, P) = grad d(P) . grad l(x)

A step of gradient descent on x changes d by -rate times this. Sign: > 0 harmful: fitting x more brings
the confused pair closer. Unit: d per unit of learning rate. On the head both gradients are low rank,
grad d = G^T U and grad l = r phi^T, so a score is (r . G)(U^T phi): no solve, one pass over phi.
"""

from jaxtyping import Float
from torch import Tensor

from src.curvature import gradient_z
from src.head import Sides, Targets, Training, score_chunks, side_gradient


def scores(training: Training, targets: Targets, *, chunk: int | None = None) -> Float[Tensor, "g n"]:
    """TracIn of every training sample on every group."""
    gradients = gradient_z(training, training.z)

    def score(sides: Sides) -> Tensor:
        g = side_gradient(training, sides)
        b, r, _ = g.shape
        reach = training.features @ sides.features.flatten(0, 1).T  # (n, b r)
        pull = gradients @ g.flatten(0, 1).T  # (n, b r)
        return reach.mul_(pull).view(-1, b, r).sum(2).T

    return score_chunks(training, targets, "tracin", score, chunk)
