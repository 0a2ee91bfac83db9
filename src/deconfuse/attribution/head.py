"""The linear head, whose weight W is what is attributed; pure functions of W.

A group of q confusion pairs sees W only through the features of its 2q sides, U (2q, D). Whatever
is done to d by gradients therefore has the form W' = W + A^T U with a small A (2q, m), and all that
is needed of the n training samples follows from phi U^T (n, 2q).
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from deconfuse.attribution.scores import room
from deconfuse.retrieval.confusion import mean_distance_gradient
from deconfuse.retrieval.directions import unit
from deconfuse.system import distributed
from deconfuse.system.arrays import let_go
from deconfuse.system.progress import track

TILE_BYTES = 4 * 2**20  # of logits held at once: fits a cache, and is worth a call; measured by make bench
CHUNK_BYTES = 256 * 2**20  # of phi U^T held at once
PART_BYTES = 512 * 2**20  # of similarities, or features, of a part of the training set
PART_ROWS = 2**16  # of such a part at most; more gain nothing
NARROW = 1e-2  # variance of e below which EIF in float32 is off by more than 1e-4 of the largest score


@dataclass(frozen=True)
class Training:
    """The frozen training side: features (n, D) of an eval-mode backbone, labels, head, loss.

    whole: of what these are some rows, from `start` on, the others being other processes'; None: of nothing.
    What sums over all samples sums over these and passes through `total`.
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

    def own(self) -> "Training":
        """This process's rows; itself where there is one process."""
        if distributed.world() == 1:
            return self
        rows = distributed.share(len(self))
        some = slice(rows.start, rows.stop)
        return replace(
            self, features=self.features[some], labels=self.labels[some], whole=self, start=rows.start
        )

    @property
    def all(self) -> "Training":
        """The rows of every process."""
        return self.whole or self

    @property
    def place(self) -> slice:
        """Where these rows are among all."""
        return slice(self.start, self.start + len(self))

    def total(self, part: Tensor) -> Tensor:
        """The sum over all samples of what was summed over these."""
        return part if self.whole is None else distributed.total(part)

    @property
    def part_rows(self) -> int:
        """How many rows `parts` takes at once, by memory."""
        wide = max(*self.weight.shape, len(getattr(self.loss, "proxies", ())))
        return max(1, min(len(self), PART_ROWS, PART_BYTES // (wide * self.weight.dtype.itemsize)))

    def parts(self) -> Iterator[tuple[slice, "Training"]]:
        """The rows in order, each part with a training side of its own, so that what is derived from them is
        never held for all; where one part is all, this very side, which keeps what it derived."""
        step = self.part_rows
        if step >= len(self):
            yield slice(0, len(self)), self
            return
        for start in range(0, len(self), step):
            rows = slice(start, min(start + step, len(self)))
            some = {"features": self.features[rows], "labels": self.labels[rows]}
            yield rows, replace(self, **some, start=self.start + start)
            let_go(self.features.data_ptr())

    def embeddings(self) -> Float[Tensor, "n m"]:
        """z of all samples, as long as they are: what compares directions scales them itself, in float64."""
        result = torch.empty(len(self), len(self.weight), dtype=self.weight.dtype, device=self.weight.device)
        for rows, part in self.parts():
            result[rows] = part.z
        return result

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
        """(a, b) where the loss is -log softmax_j(a (cos_j - b [j = y]))_y, else None."""
        return self.loss.softmax() if hasattr(self.loss, "softmax") else None

    @cached_property
    def losses(self) -> Float[Tensor, " n"]:
        """Each sample's loss at W."""
        if self.part_rows < len(self):
            return torch.cat([part.losses for _, part in self.parts()])
        with torch.no_grad():
            if not hasattr(self.loss, "from_cosine"):
                return self.loss(self.z, self.labels)
            # The way that loss_change takes, so that rounding cancels in the difference.
            shrink, result = self.squared_norms.rsqrt()[None], torch.empty_like(self.squared_norms)
            tile = max(1, TILE_BYTES // (4 * self.similarity.shape[1]))
            for start in range(0, len(self), tile):
                rows = slice(start, start + tile)
                near = self.similarity[rows].clone()[None]
                result[rows] = _losses(self, near, shrink[:, rows], rows)[0]
            return result


@dataclass(frozen=True)
class Targets:
    """What is explained: g groups of confusion pairs; a single pair is a group of one.

    query and gallery: features of the test samples; groups: (q_i, 2) rows of (query, gallery) each.
    A group's d is the mean over its pairs. sign: -1 where it is -d that is explained, as for mis-similar
    pairs, which harm moves apart. folder: where scores lie that are too many for memory; None: nowhere.
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
        """Each pair on its own."""
        return cls(query, gallery, tuple(pairs[:, None, :].unbind(0)))


@dataclass(frozen=True)
class Sides:
    """A chunk of b groups, padded to the same number of pairs q, r = 2q sides.

    features U (b, r, D): first the queries, then their neighbours; share (b, q): sign/size for a pair,
    0 for padding; rows: which groups these are.
    """

    features: Float[Tensor, "b r D"]
    share: Float[Tensor, "b q"]
    rows: range


def is_narrow(training: Training) -> bool:
    """True where embeddings have nearly one direction: the variance of e, 1 - ||mean e||^2, is below NARROW.

    Cosines, losses and slopes then differ by so little that float32 holds few or none of their digits.
    """
    total = sum(unit(part.z, torch.float64).sum(0) for _, part in training.parts())
    return 1 - (total / len(training)).square().sum().item() < NARROW


def in_float64(training: Training) -> Training:
    """The same side in float64, its features in memory; what follows from it takes its type."""
    return replace(
        training,
        features=training.features.double(),
        weight=training.weight.double(),
        bias=training.bias.double(),
        loss=copy.deepcopy(training.loss).double(),
    )


def classes_of(training: Training) -> int:
    """How many classes the loss's proxies stand for."""
    return int(getattr(training.loss, "num_classes", len(training.proxies)))


def class_cosines(training: Training, rows: slice) -> Float[Tensor, "t c"]:
    """cos(z, p) of some samples and each class, in [-1, 1]; of several proxies a class its closest one.

    Needs a loss with proxies, rows grouped by class.
    """
    cosine = unit(training.z[rows]) @ training.proxies.T
    return cosine.unflatten(1, (classes_of(training), -1)).amax(2)


def chunk_size(targets: Targets, n: int) -> int:
    """How many groups a chunk takes by memory: its U is (b 2q, D), its phi U^T (n, b 2q).

    n: training rows at once.
    """
    longest = max((len(group) for group in targets.groups), default=1)
    return max(1, CHUNK_BYTES // (4 * max(n, targets.query.shape[1]) * 2 * longest))


def chunks(targets: Targets, n: int, size: int | None = None) -> Iterator[Sides]:
    """Cut the groups into chunks of `size` (by memory)."""
    size = size or chunk_size(targets, n)
    for start in range(0, len(targets), size):
        rows = range(start, min(start + size, len(targets)))
        some = [targets.groups[i] for i in rows]
        q = max(len(group) for group in some)
        index = torch.stack([F.pad(group, (0, 0, 0, q - len(group))) for group in some])  # (b, q, 2)
        sizes = torch.tensor([len(group) for group in some], device=index.device)
        inside = torch.arange(q, device=index.device) < sizes[:, None]
        features = torch.cat([targets.query[index[..., 0]], targets.gallery[index[..., 1]]], dim=1)
        yield Sides(features, targets.sign * inside / sizes[:, None].to(features.dtype), rows)


def score_chunks(
    training: Training,
    targets: Targets,
    what: str,
    score: Callable[[Sides], Callable[[slice, Training], Float[Tensor, "b t"]]],
    size: int | None = None,
) -> Float[Tensor, "g n"]:
    """The scores of all groups; a bar says `what` is going on.

    score: what is found once for a chunk of groups; it returns a function of some rows of the training set
    and their side, which gives those rows' scores.
    """
    n = len(training)
    size = size or chunk_size(targets, training.part_rows)
    result = room(len(targets), n, training.weight.dtype, training.weight.device, targets.folder)
    for sides in track(chunks(targets, n, size), f"influence ({what})", math.ceil(len(targets) / size)):
        of = score(sides)
        for rows, part in training.parts():
            result[sides.rows.start : sides.rows.stop, rows] = of(rows, part)
    return result


def side_gradient(training: Training, sides: Sides) -> Float[Tensor, "b r m"]:
    """G: the gradient of each group's d in the z of its sides, which is near zero where both z have nearly
    one direction: found in float64, and rounded once."""
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
    training: Training, sides: Float[Tensor, "b r D"], move: Float[Tensor, "b r m"], tile: int | None = None
) -> Float[Tensor, "b n"]:
    """l(W + A^T U) - l(W) of every training sample, for b moves A at once.

    z' = z + (phi U^T) A, z'.p = z.p + (phi U^T)(A p), ||z'||^2 = ||z||^2 + 2 (phi U^T)(A z) +
    (phi U^T) A A^T (phi U^T)^T: O(n (r + c k)) operations per move instead of O(n m D).
    tile: training samples at a time (by cache).
    """
    b, r, _ = sides.shape
    n = len(training)
    reach = (sides.flatten(0, 1) @ training.features.T).view(b, r, n)  # U phi^T
    change = torch.empty(b, n, dtype=training.z.dtype, device=training.z.device)
    if not hasattr(training.loss, "from_cosine"):  # any other loss: one full z' per move
        for i in range(b):
            moved = torch.addmm(training.z, reach[i].T, move[i])
            change[i] = training.loss(moved, training.labels).detach() - training.losses
        return change
    drift = (move.flatten(0, 1) @ training.z.T).view(b, r, n)  # A z
    squared = training.squared_norms + ((2 * drift + (move @ move.transpose(1, 2)) @ reach) * reach).sum(1)
    shrink = squared.rsqrt_()  # (b, n): 1/||z'||
    pull = move @ training.proxies.T  # (b, r, ck)
    ck = pull.shape[2]
    tile = min(n, tile or max(1, TILE_BYTES // (4 * ck)))
    block = min(b, max(1, TILE_BYTES // (4 * ck * tile)))
    room = torch.empty(block * tile * ck, dtype=pull.dtype, device=pull.device)
    for start in range(0, n, tile):
        rows = slice(start, start + tile)
        for first in range(0, b, block):
            some = slice(first, first + block)
            near = room[: shrink[some, rows].numel() * ck].view(*shrink[some, rows].shape, ck)
            torch.baddbmm(  # (b, t, ck): z'.p
                training.similarity[rows].expand_as(near),
                reach[some, :, rows].transpose(1, 2),
                pull[some],
                out=near,
            )
            change[some, rows] = _losses(training, near, shrink[some, rows], rows) - training.losses[rows]
    return change


def _losses(training: Training, similarity: Tensor, shrink: Tensor, rows: slice) -> Float[Tensor, "b t"]:
    """The loss of a tile from z'.p (b, t, ck), which it may overwrite, and 1/||z'|| (b, t).

    Softmax losses with bounded logits need no running maximum: exp(a cos) of a <= 40 overflows nowhere,
    and the own class's share is corrected for the margin afterwards.
    """
    labels = training.labels[rows]
    form = training.softmax
    if form is None or form[0] > 40 or form[0] * form[1] > 1:
        cosine = similarity.mul_(shrink[..., None])
        moved = training.loss.from_cosine(cosine.flatten(0, 1), labels.repeat(len(similarity)))
        return moved.detach().view(shrink.shape)
    a, margin = form
    logits = similarity.mul_((a * shrink)[..., None])
    own = logits.gather(2, labels.expand(len(logits), -1)[..., None])[..., 0]  # (b, t)
    total = logits.exp_().sum(-1)
    if margin:
        total = total - own.exp() * -math.expm1(-a * margin)
    return total.log_().sub_(own - a * margin)
