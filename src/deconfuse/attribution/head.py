"""The linear head, whose weight W is attributed: pure functions of W.

The distance d of a group of q confusion pairs depends on W only through the features of its 2q sides,
U (2q, D). Every iterate of gradient ascent or descent on d therefore has the form W' = W + A^T U with a small
A (2q, m), and the changes of the n training losses follow from phi U^T (n, 2q).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from deconfuse.compute.exp_sums import LOG2E, TILE_BYTES, Sums, by_operators
from deconfuse.retrieval.confusion import mean_distance_gradient
from deconfuse.retrieval.directions import unit

CHUNK_BYTES = 256 * 2**20  # of phi U^T held at once


@dataclass(frozen=True)
class Training:
    """The frozen training side: features (n, D) of an eval-mode backbone, labels, head and loss.

    whole: the training set that these rows are a shard of; None if not sharded. start: the row of the whole
    training set that the first of these rows is. `rows` makes shards and parts, and sums over shards.
    """

    features: Float[Tensor, "n D"]
    labels: Int[Tensor, " n"]
    weight: Float[Tensor, "m D"]
    bias: Float[Tensor, " m"]
    loss: nn.Module
    whole: "Training | None" = None
    start: int = 0

    def __len__(self) -> int:
        return len(self.features)

    @property
    def here(self) -> bool:
        """True if the features lie on the device of the weight, where everything is computed."""
        return self.features.device.type == self.weight.device.type

    def some(self, rows: slice) -> tuple[Float[Tensor, "t D"], Float[Tensor, "t m"]]:
        """(features, embeddings z) of some rows, on the device of the weight."""
        phi = self.features[rows].to(self.weight.device)
        return phi, self.z[rows] if self.here else F.linear(phi, self.weight, self.bias)

    @cached_property
    def z(self) -> Float[Tensor, "n m"]:
        """Embeddings W phi + b."""
        return F.linear(self.features, self.weight, self.bias)

    @cached_property
    def squared_norms(self) -> Float[Tensor, " n"]:
        """||z||^2."""
        return self.z.square().sum(1)

    @cached_property
    def proxies(self) -> Float[Tensor, "ck m"]:
        """The loss's proxies, normalised."""
        return F.normalize(self.loss.proxies.detach(), dim=1)

    @cached_property
    def similarity(self) -> Float[Tensor, "n ck"]:
        """z . p for each proxy; cosines times ||z||."""
        return self.z @ self.proxies.T

    @property
    def softmax(self) -> tuple[float, float] | None:
        """(a, b) if the loss is -log softmax_j(a (cos_j - b [j = y]))_y, else None."""
        return self.loss.softmax() if hasattr(self.loss, "softmax") else None

    @property
    def bounded(self) -> bool:
        """True if the loss is a softmax of cosines whose exponentials need no running maximum.

        exp(a cos) with a <= 40 does not overflow, and the own class's margin is small enough to be accounted
        for after the sum.
        """
        form = self.softmax
        return form is not None and form[0] <= 40 and form[0] * form[1] <= 1

    @cached_property
    def losses(self) -> Float[Tensor, " n"]:
        """Each sample's loss at W, in nats, for a side that fits into memory; `rows.losses` for any."""
        with torch.no_grad():
            if not hasattr(self.loss, "from_cosine"):
                return self.loss(self.z, self.labels)
            # Computed as in loss_change, as a move of no sides, so that rounding errors cancel there.
            nothing = self.z.new_empty(1, 0, len(self)), self.z.new_empty(1, 0, len(self.proxies))
            return _losses(self, *nothing, self.squared_norms.rsqrt()[None], by_operators)[0]


@dataclass(frozen=True)
class Targets:
    """What is explained: g groups of confusion pairs; a single pair is a group of one.

    query and gallery: features of the test samples; groups: rows of (query, gallery), (q_i, 2) for group i.
    A group's d is the mean over its pairs. sign: 1 if d is explained, -1 if -d is, as for mis-similar pairs,
    which a harmful sample moves apart. folder: for scores that exceed memory; None keeps them in memory.
    """

    query: Float[Tensor, "q D"]
    gallery: Float[Tensor, "g D"]
    groups: tuple[Int[Tensor, "_ 2"], ...]
    sign: float = 1.0
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.groups)

    @classmethod
    def pairs(cls, query: Tensor, gallery: Tensor, pairs: Int[Tensor, "p 2"]) -> "Targets":
        """Targets in which each pair is a group of its own."""
        return cls(query, gallery, tuple(pairs[:, None, :].unbind(0)))


@dataclass(frozen=True)
class Sides:
    """A chunk of b groups, padded to the same number of pairs q, so r = 2q sides each.

    features U (b, r, D): first the queries, then their neighbours; share (b, q): sign / (number of pairs) for
    a pair, 0 for padding; rows: the groups' numbers among all.
    """

    features: Float[Tensor, "b r D"]
    share: Float[Tensor, "b q"]
    rows: range

    def split(self, size: int) -> Iterator["Sides"]:
        """The groups in chunks of `size`."""
        for start in range(0, len(self.rows), size):
            some = slice(start, start + size)
            yield Sides(self.features[some], self.share[some], self.rows[some])


def classes_of(training: Training) -> int:
    """The number of classes c that the loss's c k proxies represent."""
    return int(getattr(training.loss, "num_classes", len(training.proxies)))


def class_cosines(training: Training, rows: slice) -> Float[Tensor, "t c"]:
    """cos(z, p) of some samples and each class, in [-1, 1]; with several proxies a class the largest one.

    Needs a loss whose proxies are grouped by class.
    """
    cosine = unit(training.some(rows)[1]) @ training.proxies.T
    return cosine.unflatten(1, (classes_of(training), -1)).amax(2)


def chunk_size(targets: Targets, n: int) -> int:
    """The number of groups b in a chunk, such that U (b 2q, D) and phi U^T (n, b 2q) fit CHUNK_BYTES.

    n: the number of training rows that are looked at at once.
    """
    longest = max((len(group) for group in targets.groups), default=1)
    return max(1, CHUNK_BYTES // (4 * max(n, targets.query.shape[1]) * 2 * longest))


def chunks(
    targets: Targets, n: int, size: int | None = None, device: torch.device | None = None
) -> Iterator[Sides]:
    """Cut the groups into chunks of `size`; None: of `chunk_size`. device: of the chunks; None: the CPU."""
    size, device = size or chunk_size(targets, n), device or torch.device("cpu")
    for start in range(0, len(targets), size):
        rows = range(start, min(start + size, len(targets)))
        some = [targets.groups[i] for i in rows]
        q = max(len(group) for group in some)
        index = torch.stack([F.pad(group, (0, 0, 0, q - len(group))) for group in some])  # (b, q, 2)
        sizes = torch.tensor([len(group) for group in some], device=index.device)
        inside = torch.arange(q, device=index.device) < sizes[:, None]
        sides = (targets.query, index[..., 0]), (targets.gallery, index[..., 1])
        features = torch.cat([side[some.to(side.device)].to(device) for side, some in sides], dim=1)
        share = targets.sign * inside / sizes[:, None].to(features.dtype)
        yield Sides(features, share.to(device), rows)


def side_gradient(training: Training, sides: Sides) -> Float[Tensor, "b r m"]:
    """G: the gradient of each group's d in the z of its sides.

    It is near zero if both z have nearly one direction, so it is found in float64, and rounded once.
    """
    z = F.linear(sides.features, training.weight, training.bias)
    return mean_distance_gradient(z.double(), sides.share.double()).to(z.dtype)


def weight_gradient(training: Training, sides: Sides) -> Float[Tensor, "b m D"]:
    """G^T U: the gradient of each group's d in W."""
    return side_gradient(training, sides).transpose(1, 2) @ sides.features


def along(
    training: Training, gradients: Float[Tensor, "n m"], x: Float[Tensor, "b m D"]
) -> Float[Tensor, "b n"]:
    """<x, g_k> for every training sample's rank-one gradient g_k = r_k phi_k^T: (x phi_k) . r_k."""
    b, m, _ = x.shape
    moved = (training.features @ x.flatten(0, 1).T).view(len(training), b, m)
    return torch.einsum("nbm,nm->bn", moved, gradients)


def loss_change(
    training: Training,
    sides: Float[Tensor, "b r D"],
    move: Float[Tensor, "b r m"],
    sums: Sums = by_operators,
) -> Float[Tensor, "b n"]:
    """l(W + A^T U) - l(W) of every training sample, for b moves A at once.

    z' = z + (phi U^T) A, z'.p = z.p + (phi U^T)(A p), ||z'||^2 = ||z||^2 + 2 (phi U^T)(A z) +
    (phi U^T) A A^T (phi U^T)^T: O(n (r + c k)) operations per move instead of O(n m D). sums: computes the
    sums of exponentials of a softmax loss, see `compute.exp_sums`.
    """
    b, r, _ = sides.shape
    n = len(training)
    reach = (sides.flatten(0, 1) @ training.features.T).view(b, r, n)  # U phi^T
    if not hasattr(training.loss, "from_cosine"):  # the loss is no function of cosines: one full z' per move
        change = torch.empty(b, n, dtype=training.z.dtype, device=training.z.device)
        for i in range(b):
            moved = torch.addmm(training.z, reach[i].T, move[i])
            change[i] = training.loss(moved, training.labels).detach() - training.losses
        return change
    drift = (move.flatten(0, 1) @ training.z.T).view(b, r, n)  # A z
    squared = torch.baddbmm(drift, move @ move.transpose(1, 2), reach, beta=2).mul_(reach).sum(1)
    shrink = squared.add_(training.squared_norms).rsqrt_()  # (b, n): 1/||z'||
    del drift
    return _losses(training, reach, move @ training.proxies.T, shrink, sums).sub_(training.losses)


def _losses(
    training: Training,
    reach: Float[Tensor, "b r n"],
    pull: Float[Tensor, "b r ck"],
    shrink: Float[Tensor, "b n"],
    sums: Sums,
) -> Float[Tensor, "b n"]:
    """The losses from z'.p = z.p + sum_r reach pull and 1/||z'||."""
    if not training.bounded:
        return _losses_of_cosines(training, reach, pull, shrink)
    a, margin = training.softmax
    labels = training.labels
    total = sums(training.similarity, reach, pull, LOG2E * a * shrink)
    own = pull[:, :, labels].mul_(reach).sum(1).add_(training.similarity.gather(1, labels[:, None])[:, 0])
    own = own.mul_(shrink).mul_(a)  # (b, n): the own class's logit, without its margin
    if margin:
        total = total - own.exp() * -math.expm1(-a * margin)
    return total.log_().sub_(own - a * margin)


def _losses_of_cosines(
    training: Training,
    reach: Float[Tensor, "b r n"],
    pull: Float[Tensor, "b r ck"],
    shrink: Float[Tensor, "b n"],
) -> Float[Tensor, "b n"]:
    """As `_losses`, by the loss's own `from_cosine`, for tiles of training samples."""
    result = torch.empty_like(shrink)
    wide = 4 * pull.shape[2]
    tile = min(len(training), max(1, TILE_BYTES // wide))
    block = min(len(reach), max(1, TILE_BYTES // (wide * tile)))
    for start in range(0, len(training), tile):
        rows = slice(start, start + tile)
        for first in range(0, len(reach), block):
            some = slice(first, first + block)
            factor = shrink[some, rows]
            near = training.similarity[rows].expand(len(factor), -1, -1)
            cosine = torch.baddbmm(near, reach[some, :, rows].transpose(1, 2), pull[some])
            cosine = cosine.mul_(factor[..., None]).flatten(0, 1)
            moved = training.loss.from_cosine(cosine, training.labels[rows].repeat(len(factor)))
            result[some, rows] = moved.detach().view_as(factor)
    return result
