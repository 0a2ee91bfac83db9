"""TracIn (Pruthi et al., NeurIPS 2020, eq. 4 with equal learning rates) over the checkpoints kept.

    I(x, P) = sum over checkpoints of  grad d(P) . grad l(x)

A step of gradient descent on x changes d by -rate times its term. Sign: > 0 harmful: fitting x more brings
the confused pair closer. Unit: d per unit of learning rate, summed over checkpoints. On the head both
gradients are low rank, grad d = G^T U and grad l = r phi^T, so a term is (r . G)(U^T phi): no solve, one
pass over phi.
"""

from collections.abc import Callable, Iterable

from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.curvature import sample_gradients
from deconfuse.attribution.head import Sides, Targets, Training, side_gradient
from deconfuse.attribution.network import Network, score_groups
from deconfuse.attribution.rows import score_chunks


def scores(
    training: Training | Network,
    targets: Targets,
    *,
    earlier: Iterable[tuple[Training | Network, Targets]] = (),
) -> Float[Tensor, "g n"]:
    """TracIn of every training sample on every group.

    earlier: the training side and the targets at each checkpoint that was kept before.
    """
    result = _term(training, targets)
    for past in earlier:
        result += _term(*past)
    return result


def _term(training: Training | Network, targets: Targets) -> Float[Tensor, "g n"]:
    if isinstance(training, Network):

        def whole(i: int) -> Tensor:
            return training.along(training.distance_gradient(training.theta, *training.sides(targets, i)))

        return score_groups(training, targets, "tracin", whole)
    gradients = sample_gradients(training)

    def score(sides: Sides) -> Callable[[slice, Training], Tensor]:
        g = side_gradient(training, sides)
        b, r, _ = g.shape

        def of(rows: slice, part: Training) -> Tensor:
            reach = sides.features.flatten(0, 1) @ part.features.T  # (b r, t)
            pull = g.flatten(0, 1) @ gradients[rows].T  # (b r, t)
            return reach.mul_(pull).view(b, r, -1).sum(1)

        return of

    return score_chunks(training, targets, "tracin", score)
