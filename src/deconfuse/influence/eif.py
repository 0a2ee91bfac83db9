"""Empirical influence functions (Liu et al., NeurIPS 2022, eq. 5-6) on the linear head.

    I(x, P) = mean over theta in Theta of  (d(P; theta) - d(P; theta_0)) (l(x; theta) - l(x; theta_0))

each divided by ||theta - theta_0|| if `normalise`. Theta holds theta_max, the end of gradient ascent on d,
theta_min, the end of descent, and further points in directions orthogonal to those of the points before.
Sign: > 0 harmful, fitting x more brings the confused pair closer. Unit: d times nats, per length of the
move with `normalise`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Sides, Targets, Training, loss_change
from deconfuse.attribution.network import Network, score_groups
from deconfuse.attribution.rows import score_chunks
from deconfuse.compute.exp_sums import Sums, by_operators, chosen
from deconfuse.retrieval.confusion import distance, mean_distance, mean_distance_gradient
from deconfuse.system.errors import UserError, at_least, count, flag, number
from deconfuse.system.linear_algebra import factorise

COINCIDE = 1e-20  # the largest d of a pair whose samples are copies of one picture


@dataclass(frozen=True)
class Sphere:
    """theta lies on a sphere around theta_0, reached along the gradient in `steps` equal lengths.

    radius: of the sphere, as a share of ||theta_0||.
    """

    radius: float = 0.02
    steps: int = 50

    def __post_init__(self):
        if number("influence.path.radius", self.radius) <= 0:
            raise UserError(
                f"influence.path.radius={self.radius} is not positive; give a share of ||theta|| such as 0.02"
            )
        count("influence.path.steps", self.steps, 1)


@dataclass(frozen=True)
class RawSteps:
    """The path of the authors' scripts: `steps` steps of step_size times the gradient.

    It ends early once |d - d0| >= max_change.
    """

    step_size: float = 1e-3
    steps: int = 50
    max_change: float = 1.0

    def __post_init__(self):
        at_least("influence.path.step_size", self.step_size, 0)
        count("influence.path.steps", self.steps, 1)
        at_least("influence.path.max_change", self.max_change, 1e-12)


Path = Sphere | RawSteps


def scores(
    training: Training | Network,
    targets: Targets,
    *,
    path: Path = Sphere(),
    n_theta: int = 1,
    normalise: bool = True,
    one_pass: bool | str = "auto",
    seed: int = 0,
) -> Float[Tensor, "g n"]:
    """EIF of every training sample on every group.

    path: from theta_0 to theta_max and theta_min. n_theta: 1 (theta_max), 2 (and theta_min) or more.
    one_pass: whether the losses after a move are computed by compiled code, see `compute.exp_sums.chosen`.
    Raises UserError for n_theta beyond the dimension of the space that d depends on, and beyond 2 where
    theta is more than the head.
    """
    if not isinstance(path, Path):
        raise UserError(f"influence.path={path} is not a group of keys; give influence.path.radius=0.02")
    count("influence.n_theta", n_theta, 1)
    flag("influence.normalise", normalise)
    if isinstance(training, Network):
        return _of_network(training, targets, path, n_theta, normalise)
    scale = training.weight.norm().item()
    sums = _sums(training, targets, n_theta, one_pass)

    def score(sides: Sides) -> Callable[[slice, Training], Tensor]:
        space = Space.of(training, sides)
        moves = [space.climb(sign, path, scale) for sign in (+1, -1)[:n_theta]]
        while len(moves) < n_theta:
            moves.append(space.orthogonal(moves, seed, sides.rows))
        weights = [_weight(space, move, normalise) / n_theta for move in moves]  # (b,) each

        def of(rows: slice, part: Training) -> Tensor:
            total = torch.zeros((), dtype=part.z.dtype, device=part.z.device)
            for move, weight in zip(moves, weights, strict=True):
                change = loss_change(part, sides.features, move.to(part.z.dtype), sums)
                total = total + weight[:, None].to(change.dtype) * change
            return total

        return of

    return score_chunks(training, targets, "eif", score)


def _sums(training: Training, targets: Targets, n_theta: int, one_pass: bool | str) -> Sums:
    """What computes the sums of exponentials: torch's operators, or compiled code where that pays."""
    plain = training.weight.dtype != torch.float32 or not training.bounded
    sides = 2 * max(map(len, targets.groups), default=1)
    terms = float(len(targets)) * n_theta * len(training) * (1 if plain else len(training.proxies))
    found = chosen(one_pass, training.weight.device, terms, sides)
    return by_operators if plain else found


def _weight(space, move: Tensor, normalise: bool) -> Float[Tensor, " b"]:
    """The factor of a move's change of the losses: its change of d, divided by its length if `normalise`."""
    change = space.change(move)
    if not normalise:
        return change
    norm = space.norm(move)
    return torch.where(norm > 0, change / norm, 0.0)


def _of_network(
    network: Network, targets: Targets, path: Path, n_theta: int, normalise: bool
) -> Float[Tensor, "g n"]:
    """EIF where theta is more than the head: each theta costs a pass of all training samples."""
    if n_theta > 2:
        raise UserError(
            f"influence.n_theta={n_theta}: directions beyond theta_max and theta_min are known for the head "
            "only; take 1 or 2, or params=head"
        )
    before, scale = network.losses(network.theta), network.theta.norm().item()

    def score(i: int) -> Tensor:
        space = Around(network, *network.sides(targets, i))
        total = torch.zeros_like(before)
        for sign in (+1, -1)[:n_theta]:
            move = climb(space, sign, path, scale)
            change = network.losses(network.theta + move[0, 0]) - before
            total = total + _weight(space, move, normalise) / n_theta * change
        return total

    return score_groups(network, targets, "eif", score)


def climb(space: "Space | Around", sign: int, path: Path, scale: float) -> Float[Tensor, "b r m"]:
    """The moves of b groups after gradient ascent (sign +1) or descent (-1) on d; scale: ||theta_0||."""
    move = torch.zeros_like(space.z)
    if isinstance(path, RawSteps):
        for _ in range(path.steps):
            gradient = space.gradient(move)
            going = (space.change(move).abs() < path.max_change)[:, None, None]
            move = torch.where(going, move + sign * path.step_size * gradient, move)
        return move
    length = path.radius * scale
    for _ in range(path.steps):
        move = move + sign * length / path.steps * space.unit(space.gradient(move))
    return length * space.unit(move)


@dataclass(frozen=True)
class Space:
    """The moves W + A^T U of a chunk of groups, represented by A.

    gram: K = U U^T; z: embeddings of the sides at W; share: as in Sides. All in float64, which costs little
    beside the work on the training samples.
    """

    gram: Float[Tensor, "b r r"]
    z: Float[Tensor, "b r m"]
    share: Float[Tensor, "b q"]

    @classmethod
    def of(cls, training: Training, sides: Sides) -> "Space":
        """The moves around the trained head."""
        u = sides.features.double()
        z = u @ training.weight.double().T + training.bias.double()
        # If a pair's samples coincide, the gradient of d is zero, and a computed one is a rounding error.
        apart = distance(*z.chunk(2, dim=1)) > COINCIDE
        return cls(u @ u.transpose(1, 2), z, sides.share.double() * apart)

    @cached_property
    def start(self) -> Float[Tensor, " b"]:
        """d at W."""
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
        """The move scaled to length one; 0 if its length is 0."""
        norm = self.norm(move)[:, None, None]
        return torch.where(norm > 0, move / norm, 0.0)

    def climb(self, sign: int, path: Path, scale: float) -> Float[Tensor, "b r m"]:
        """As the function `climb`, in coordinates of the span of the sides' z, where all gradients lie."""
        if self.z.shape[1] >= self.z.shape[2]:
            return climb(self, sign, path, scale)
        fix = "look for features or weights of the head that are very large"
        what = "EIF, embeddings of the confused samples"
        basis, coordinates = factorise(
            torch.linalg.qr, self.z.transpose(1, 2), what, fix
        )  # (b, m, r), (b, r, r)
        inside = Space(self.gram, coordinates.transpose(1, 2).contiguous(), self.share)
        return climb(inside, sign, path, scale) @ basis.transpose(1, 2)

    def orthogonal(
        self, taken: list[Float[Tensor, "b r m"]], seed: int, rows: range
    ) -> Float[Tensor, "b r m"]:
        """A seeded direction orthogonal to those taken, as long as the first of them.

        rows: the groups' numbers. A group's draw does not depend on the other groups or on padding.
        """
        if len(taken) >= self.z.shape[1] * self.z.shape[2]:
            raise UserError(f"influence.n_theta={len(taken) + 1}: d depends on {len(taken)} directions only")
        move = torch.zeros_like(self.z)
        for i, row in enumerate(rows):
            random = torch.Generator().manual_seed(hash((seed, row, len(taken))) % 2**63)
            inside = self.share[i].repeat(2) != 0
            draw = torch.randn(int(inside.sum()), move.shape[2], generator=random, dtype=move.dtype)
            move[i, inside] = draw.to(move.device)
        for _ in range(2):  # a second pass removes the rounding errors of the first (Gram-Schmidt)
            for other in taken:
                unit = self.unit(other)
                along = (move * (self.gram @ unit)).sum((1, 2))
                move = move - along[:, None, None] * unit
        return self.norm(taken[0])[:, None, None] * self.unit(move)


@dataclass(frozen=True)
class Around:
    """The moves theta + v of a whole network for one group, v (1, 1, P); it has the methods of Space."""

    network: Network
    images: Tensor
    share: Float[Tensor, "1 q"]

    @property
    def z(self) -> Float[Tensor, "1 1 P"]:
        """A tensor of the shape and type of a move."""
        return self.network.theta[None, None]

    @cached_property
    def start(self) -> Float[Tensor, " 1"]:
        """d at theta."""
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
        """v / ||v||; 0 if v is 0."""
        norm = self.norm(move)[:, None, None]
        return torch.where(norm > 0, move / norm, 0.0)
