"""The linear head, whose weight W is what is attributed; pure functions of W.

A group of q confusion pairs sees W only through the features of its 2q sides, U (2q, D). Whatever
is done to d by gradients therefore has the form W' = W + A^T U with a small A (2q, m), and all that
is needed of the n training samples follows from phi U^T (n, 2q).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

TILE_BYTES = 2**20  # of logits held at once: what a core's cache takes
CHUNK_BYTES = 256 * 2**20  # of phi U^T held at once


@dataclass(frozen=True)
class Training:
    """The frozen training side: features (n, D) of an eval-mode backbone, labels, head, loss."""

    features: Float[Tensor, "n D"]
    labels: Int[Tensor, " n"]
    weight: Float[Tensor, "m D"]
    bias: Float[Tensor, " m"]
    loss: nn.Module

    def __len__(self) -> int:
        return len(self.features)

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

    @cached_property
    def losses(self) -> Float[Tensor, " n"]:
        """Each sample's loss at W."""
        with torch.no_grad():
            if hasattr(self.loss, "from_cosine"):
                cosine = self.similarity / self.squared_norms.sqrt()[:, None]
                return self.loss.from_cosine(cosine, self.labels)
            return self.loss(self.z, self.labels)


@dataclass(frozen=True)
class Targets:
    """What is explained: g groups of confusion pairs; a single pair is a group of one.

    query and gallery: features of the test samples; groups: (q_i, 2) rows of (query, gallery) each.
    A group's d is the mean over its pairs.
    """

    query: Float[Tensor, "q D"]
    gallery: Float[Tensor, "g D"]
    groups: tuple[Int[Tensor, "s 2"], ...]

    def __len__(self) -> int:
        return len(self.groups)

    @classmethod
    def pairs(cls, query: Tensor, gallery: Tensor, pairs: Int[Tensor, "p 2"]) -> "Targets":
        """Each pair on its own."""
        return cls(query, gallery, tuple(pairs[:, None, :].unbind(0)))


@dataclass(frozen=True)
class Sides:
    """A chunk of b groups, padded to the same number of pairs q.

    features U (b, 2q, D): first the queries, then their neighbours; share (b, q): 1/size for a pair,
    0 for padding; rows: which groups these are.
    """

    features: Float[Tensor, "b 2q D"]
    share: Float[Tensor, "b q"]
    rows: range


def chunks(targets: Targets, n: int, size: int | None = None) -> Iterator[Sides]:
    """Cut the groups into chunks of `size` (by memory: phi U^T of a chunk is (n, b 2q))."""
    longest = max((len(group) for group in targets.groups), default=1)
    size = size or max(1, CHUNK_BYTES // (4 * n * 2 * longest))
    for start in range(0, len(targets), size):
        rows = range(start, min(start + size, len(targets)))
        some = [targets.groups[i] for i in rows]
        q = max(len(group) for group in some)
        index = torch.stack([F.pad(group, (0, 0, 0, q - len(group))) for group in some])  # (b, q, 2)
        sizes = torch.tensor([len(group) for group in some], device=index.device)
        inside = torch.arange(q, device=index.device) < sizes[:, None]
        features = torch.cat([targets.query[index[..., 0]], targets.gallery[index[..., 1]]], dim=1)
        yield Sides(features, inside / sizes[:, None].to(features.dtype), rows)


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
    reach = (training.features @ sides.flatten(0, 1).T).view(n, b, r).transpose(0, 1)  # (b, n, r)
    change = torch.empty(b, n, dtype=training.z.dtype, device=training.z.device)
    if not hasattr(training.loss, "from_cosine"):  # any other loss: one full z' per move
        for i in range(b):
            moved = torch.addmm(training.z, reach[i], move[i])
            change[i] = training.loss(moved, training.labels).detach() - training.losses
        return change
    along = (training.z @ move.flatten(0, 1).T).view(n, b, r).transpose(0, 1)  # (b, n, r): A z
    gram = move @ move.transpose(1, 2)
    pull = move @ training.proxies.T  # (b, r, ck)
    tile = tile or max(1, TILE_BYTES // (4 * b * pull.shape[2]))
    for start in range(0, n, tile):
        rows = slice(start, start + tile)
        near = reach[:, rows]  # (b, t, r)
        squared = training.squared_norms[rows] + ((2 * along[:, rows] + near @ gram) * near).sum(-1)
        cosine = (training.similarity[rows] + near @ pull) / squared.sqrt()[..., None]  # (b, t, ck)
        labels = training.labels[rows].expand(b, -1)
        moved = training.loss.from_cosine(cosine.flatten(0, 1), labels.flatten())
        change[:, rows] = moved.detach().view(b, -1) - training.losses[rows]
    return change
