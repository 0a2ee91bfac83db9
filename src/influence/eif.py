"""Empirical influence functions (Liu et al., NeurIPS 2022, eq. 5-6) on the linear head.

    I(x, P) = mean over theta in Theta of  (d(P; theta) - d(P; theta_0)) (l(x; theta) - l(x; theta_0))

each divided by ||theta - theta_0|| if `normalise`. Theta holds theta_max, where gradient ascent on
d leads, theta_min, where descent leads, and further ones orthogonal to those taken.
Sign: > 0 harmful, fitting x more brings the confused pair closer. Unit: d times nats, divided by the
length of the move in W if `normalise`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from src.confusion import mean_distance, mean_distance_gradient
from src.errors import UserError, count, flag, number
from src.head import Sides, Targets, Training, loss_change, score_chunks


def scores(
    training: Training,
    targets: Targets,
    *,
    n_theta: int = 1,
    steps: int = 50,
    radius: float | None = 0.02,
    step_size: float = 1e-3,
    max_change: float = 1.0,
    normalise: bool = True,
    seed: int = 0,
    chunk: int | None = None,
    tile: int | None = None,
) -> Float[Tensor, "g n"]:
    """EIF of every training sample on every group.

    radius: theta lies on the sphere of this radius, in units of ||W||, reached along the gradient in
    `steps` equal lengths. None: the authors' scripts, `steps` raw gradient steps of `step_size` that
    end once |d - d0| >= max_change. n_theta: 1 (theta_max), 2 (and theta_min) or more.
    Raises UserError for n_theta beyond the dimension of the space that d depends on.
    """
    count("influence.n_theta", n_theta, 1)
    count("influence.steps", steps, 1)
    flag("influence.normalise", normalise)
    if radius is not None and number("influence.radius", radius) <= 0:
        raise UserError(f"influence.radius={radius} is not positive; give a share of ||W|| such as 0.02")
    length = None if radius is None else radius * training.weight.double().norm()

    def score(sides: Sides) -> Tensor:
        space = Space(training, sides)
        moves = [space.climb(+1, steps, length, step_size, max_change)]
        if n_theta > 1:
            moves.append(space.climb(-1, steps, length, step_size, max_change))
        while len(moves) < n_theta:
            moves.append(space.orthogonal(moves, seed))
        total = torch.zeros((), dtype=training.z.dtype, device=training.z.device)
        for move in moves:
            weight = space.change(move) / n_theta  # (b,)
            if normalise:
                norm = space.norm(move)
                weight = torch.where(norm > 0, weight / norm, 0.0)
            change = loss_change(training, sides.features, move.to(training.z.dtype), tile)
            total = total + weight[:, None].to(change.dtype) * change
        return total

    return score_chunks(training, targets, "eif", score, chunk)


class Space:
    """The moves W + A^T U of a chunk of groups: where they put the test samples, and how far it is.

    In float64, as it costs nothing beside the training samples.
    """

    def __init__(self, training: Training, sides: Sides):
        u = sides.features.double()
        self.rows, self.share = sides.rows, sides.share.double()
        self.gram = u @ u.transpose(1, 2)  # K (b, 2q, 2q)
        self.z = u @ training.weight.double().T + training.bias.double()  # (b, 2q, m)
        self.start = mean_distance(self.z, self.share)

    def change(self, move: Float[Tensor, "b r m"]) -> Float[Tensor, " b"]:
        """d(W + A^T U) - d(W), the mean over a group's pairs."""
        return mean_distance(self.z + self.gram @ move, self.share) - self.start

    def norm(self, move: Float[Tensor, "b r m"]) -> Float[Tensor, " b"]:
        """||A^T U||."""
        return (move * (self.gram @ move)).sum((1, 2)).clamp_min(0).sqrt()

    def climb(self, sign: int, steps: int, length, step_size: float, max_change: float):
        """A (b, 2q, m) after gradient ascent (sign +1) or descent (-1) on d."""
        move = torch.zeros_like(self.z)
        for _ in range(steps):
            z = self.z + self.gram @ move
            gradient = mean_distance_gradient(z, self.share)
            if length is None:
                going = ((mean_distance(z, self.share) - self.start).abs() < max_change).double()
                move = move + sign * step_size * going[:, None, None] * gradient
            else:
                move = move + sign * length / steps * self._unit(gradient)
        return move if length is None else length * self._unit(move)

    def _unit(self, move: Float[Tensor, "b r m"]) -> Float[Tensor, "b r m"]:
        """The move scaled to length one, or nothing where its length is rounding error.

        So it is where a pair's samples coincide: their sides' parts of A^T U cancel.
        """
        norm = self.norm(move)
        parts = (move.square().sum(2) * self.gram.diagonal(dim1=1, dim2=2)).sum(1).sqrt()
        real = norm > 1e-7 * parts
        return torch.where(real[:, None, None], move / torch.where(real, norm, 1.0)[:, None, None], 0.0)

    def orthogonal(self, taken: list[Float[Tensor, "b r m"]], seed: int) -> Float[Tensor, "b r m"]:
        """A seeded direction at a right angle to those taken, as long as the first of them."""
        if len(taken) >= self.z.shape[1] * self.z.shape[2]:
            raise UserError(f"influence.n_theta={len(taken) + 1}: d depends on {len(taken)} directions only")
        move = torch.zeros_like(self.z)
        for i, row in enumerate(self.rows):  # a group's draw depends on no other group, and on no padding
            random = torch.Generator().manual_seed(hash((seed, row, len(taken))) % 2**63)
            inside = self.share[i].repeat(2) > 0
            draw = torch.randn(int(inside.sum()), move.shape[2], generator=random, dtype=move.dtype)
            move[i, inside] = draw.to(move.device)
        for _ in range(2):  # twice is enough: Gram-Schmidt's rounding errors are second order
            for other in taken:
                unit = self._unit(other)
                along = (move * (self.gram @ unit)).sum((1, 2))
                move = move - along[:, None, None] * unit
        return self.norm(taken[0])[:, None, None] * self._unit(move)
