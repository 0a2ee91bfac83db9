"""Empirical influence functions (Liu et al., NeurIPS 2022, eq. 5-6) on the linear head.

    I(x, P) = mean over theta in Theta of  (d(P; theta) - d(P; theta_0)) (l(x; theta) - l(x; theta_0))

each divided by ||theta - theta_0|| if `normalise`. Theta holds theta_max, where gradient ascent on
d leads, theta_min, where descent leads, and further ones orthogonal to those taken.
Sign: > 0 harmful, fitting x more brings the confused pair closer. Unit: d times nats, per length of the
move with `normalise`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Sides, Targets, Training, loss_change, score_chunks
from deconfuse.attribution.linear_algebra import factorise
from deconfuse.attribution.network import Network, score_groups
from deconfuse.retrieval.confusion import distance, mean_distance, mean_distance_gradient
from deconfuse.system.errors import UserError, at_least, count, flag, number

COINCIDE = 1e-20  # of d: samples of one and the same picture


def scores(
    training: Training | Network,
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

    radius: theta lies on the sphere of this radius, in units of ||theta_0||, reached along the gradient in
    `steps` equal lengths. None: the authors' scripts, `steps` raw gradient steps of `step_size` that
    end once |d - d0| >= max_change. n_theta: 1 (theta_max), 2 (and theta_min) or more.
    Raises UserError for n_theta beyond the dimension of the space that d depends on, and beyond 2 where
    theta is more than the head.
    """
    count("influence.n_theta", n_theta, 1)
    count("influence.steps", steps, 1)
    flag("influence.normalise", normalise)
    at_least("influence.step_size", step_size, 0)
    at_least("influence.max_change", max_change, 1e-12)
    if radius is not None and number("influence.radius", radius) <= 0:
        raise UserError(f"influence.radius={radius} is not positive; give a share of ||theta|| such as 0.02")
    whole = isinstance(training, Network)
    start = training.theta if whole else training.weight
    path = Path(steps, None if radius is None else radius * start.norm().item(), step_size, max_change)
    if whole:
        return _whole(training, targets, path, n_theta, normalise)

    def score(sides: Sides) -> Callable[[slice, Training], Tensor]:
        space = Space.of(training, sides)
        moves = [space.climb(sign, path) for sign in (+1, -1)[:n_theta]]
        while len(moves) < n_theta:
            moves.append(space.orthogonal(moves, seed, sides.rows))
        weights = [_weight(space, move, normalise) / n_theta for move in moves]  # (b,) each

        def of(rows: slice, part: Training) -> Tensor:
            total = torch.zeros((), dtype=part.z.dtype, device=part.z.device)
            for move, weight in zip(moves, weights, strict=True):
                change = loss_change(part, sides.features, move.to(part.z.dtype), tile)
                total = total + weight[:, None].to(change.dtype) * change
            return total

        return of

    return score_chunks(training, targets, "eif", score, chunk)


def _weight(space, move: Tensor, normalise: bool) -> Float[Tensor, " b"]:
    """What a move's change of the losses is multiplied by: that of d, per length of the move if so wanted."""
    change = space.change(move)
    if not normalise:
        return change
    norm = space.norm(move)
    return torch.where(norm > 0, change / norm, 0.0)


def _whole(
    network: Network, targets: Targets, path: "Path", n_theta: int, normalise: bool
) -> Float[Tensor, "g n"]:
    """EIF where theta is more than the head: each theta costs a pass of all training samples."""
    if n_theta > 2:
        raise UserError(
            f"influence.n_theta={n_theta}: directions beyond theta_max and theta_min are known for the head "
            "only; take 1 or 2, or params=head"
        )
    before = network.losses(network.theta)

    def score(i: int) -> Tensor:
        space = Around(network, *network.sides(targets, i))
        total = torch.zeros_like(before)
        for sign in (+1, -1)[:n_theta]:
            move = climb(space, sign, path)
            change = network.losses(network.theta + move[0, 0]) - before
            total = total + _weight(space, move, normalise) / n_theta * change
        return total

    return score_groups(network, targets, "eif", score)


@dataclass(frozen=True)
class Path:
    """How theta_max is reached: `steps` equal parts of `length`, or raw steps until d moved by max_change."""

    steps: int
    length: float | None
    step_size: float
    max_change: float


def climb(space: "Space | Around", sign: int, path: Path) -> Float[Tensor, "b r m"]:
    """The move of b groups after gradient ascent (sign +1) or descent (-1) on d."""
    move = torch.zeros_like(space.z)
    for _ in range(path.steps):
        gradient = space.gradient(move)
        if path.length is None:
            going = (space.change(move).abs() < path.max_change)[:, None, None]
            move = torch.where(going, move + sign * path.step_size * gradient, move)
        else:
            move = move + sign * path.length / path.steps * space.unit(gradient)
    return move if path.length is None else path.length * space.unit(move)


@dataclass(frozen=True)
class Space:
    """The moves W + A^T U of a chunk of groups, by A: where they put the test samples, how long they are.

    gram: K = U U^T; z: embeddings of the sides; share: as of Sides. In float64, as it costs nothing beside
    the training samples.
    """

    gram: Float[Tensor, "b r r"]
    z: Float[Tensor, "b r m"]
    share: Float[Tensor, "b q"]

    @classmethod
    def of(cls, training: Training, sides: Sides) -> "Space":
        """The space around the trained head."""
        u = sides.features.double()
        z = u @ training.weight.double().T + training.bias.double()
        # The slope of d where a pair's samples coincide is zero; what would be computed is rounding error.
        apart = distance(*z.chunk(2, dim=1)) > COINCIDE
        return cls(u @ u.transpose(1, 2), z, sides.share.double() * apart)

    @cached_property
    def start(self) -> Float[Tensor, " b"]:
        """d where nothing has moved."""
        return mean_distance(self.z, self.share)

    def change(self, move: Float[Tensor, "b r m"]) -> Float[Tensor, " b"]:
        """d(W + A^T U) - d(W), the mean over a group's pairs."""
        return mean_distance(self.z + self.gram @ move, self.share) - self.start

    def gradient(self, move: Float[Tensor, "b r m"]) -> Float[Tensor, "b r m"]:
        """G at W + A^T U: the gradient of d in W is G^T U."""
        return mean_distance_gradient(self.z + self.gram @ move, self.share)

    def norm(self, move: Float[Tensor, "b r m"]) -> Float[Tensor, " b"]:
        """||A^T U||."""
        return (move * (self.gram @ move)).sum((1, 2)).clamp_min(0).sqrt()

    def unit(self, move: Float[Tensor, "b r m"]) -> Float[Tensor, "b r m"]:
        """The move scaled to length one, or nothing where it has none."""
        norm = self.norm(move)[:, None, None]
        return torch.where(norm > 0, move / norm, 0.0)

    def climb(self, sign: int, path: Path) -> Float[Tensor, "b r m"]:
        """As `climb`, in coordinates of the span of the sides' z, which no step on d ever leaves."""
        if self.z.shape[1] >= self.z.shape[2]:
            return climb(self, sign, path)
        fix = "look for features or weights of the head that are very large"
        basis, coordinates = factorise(
            torch.linalg.qr, self.z.transpose(1, 2), "EIF, embeddings of the confused samples", fix
        )  # (b, m, r), (b, r, r)
        inside = Space(self.gram, coordinates.transpose(1, 2).contiguous(), self.share)
        return climb(inside, sign, path) @ basis.transpose(1, 2)

    def orthogonal(
        self, taken: list[Float[Tensor, "b r m"]], seed: int, rows: range
    ) -> Float[Tensor, "b r m"]:
        """A seeded direction at a right angle to those taken, as long as the first of them.

        rows: which groups these are; a group's draw depends on no other group, and on no padding.
        """
        if len(taken) >= self.z.shape[1] * self.z.shape[2]:
            raise UserError(f"influence.n_theta={len(taken) + 1}: d depends on {len(taken)} directions only")
        move = torch.zeros_like(self.z)
        for i, row in enumerate(rows):
            random = torch.Generator().manual_seed(hash((seed, row, len(taken))) % 2**63)
            inside = self.share[i].repeat(2) != 0
            draw = torch.randn(int(inside.sum()), move.shape[2], generator=random, dtype=move.dtype)
            move[i, inside] = draw.to(move.device)
        for _ in range(2):  # twice is enough: Gram-Schmidt's rounding errors are second order
            for other in taken:
                unit = self.unit(other)
                along = (move * (self.gram @ unit)).sum((1, 2))
                move = move - along[:, None, None] * unit
        return self.norm(taken[0])[:, None, None] * self.unit(move)


@dataclass(frozen=True)
class Around:
    """The moves theta + v of a whole network for one group, v (1, 1, P), with the same words as Space."""

    network: Network
    images: Tensor
    share: Float[Tensor, "1 q"]

    @property
    def z(self) -> Float[Tensor, "1 1 P"]:
        """What a move looks like."""
        return self.network.theta[None, None]

    @cached_property
    def start(self) -> Float[Tensor, " 1"]:
        """d where nothing has moved."""
        with torch.no_grad():
            return self.network.distance(self.network.theta, self.images, self.share)[None]

    def change(self, move: Float[Tensor, "1 1 P"]) -> Float[Tensor, " 1"]:
        """d(theta + v) - d(theta), the mean over the group's pairs."""
        with torch.no_grad():
            return (
                self.network.distance(self.network.theta + move[0, 0], self.images, self.share) - self.start
            )

    def gradient(self, move: Float[Tensor, "1 1 P"]) -> Float[Tensor, "1 1 P"]:
        """The gradient of d at theta + v."""
        theta = self.network.theta + move[0, 0]
        return self.network.distance_gradient(theta, self.images, self.share)[None, None]

    def norm(self, move: Float[Tensor, "1 1 P"]) -> Float[Tensor, " 1"]:
        """||v||."""
        return move.norm(dim=(1, 2))

    def unit(self, move: Float[Tensor, "1 1 P"]) -> Float[Tensor, "1 1 P"]:
        """v / ||v||, or nothing where there is no slope."""
        norm = self.norm(move)[:, None, None]
        return torch.where(norm > 0, move / norm, 0.0)
