"""Recommend labels by a distance-weighted vote of the neighbours (Algorithm 1)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.errors import UserError
from src.retrieval import nearest

TILE_BYTES = 64 * 2**20  # of votes held at once; never n x c


@dataclass(frozen=True)
class Votes:
    """What the k nearest other training samples say about each one.

    classes (n, k): the neighbours' labels, closest first; share (n, k): P(label of neighbour j), the
    vote for that label in [0, 1]; own (n,): the vote for the sample's current label. index (n, k): which
    samples the neighbours are; None where the votes are no neighbours'.
    """

    classes: Int[Tensor, "n k"]
    share: Float[Tensor, "n k"]
    own: Float[Tensor, " n"]
    index: Int[Tensor, "n k"] | None = None

    def best(self, but: Int[Tensor, " n"] | None = None) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """(label, vote) with the largest vote, ties to the smaller class id; but: a label to leave out.

        Where all neighbours have the label left out, that label with vote 0.
        """
        share = self.share if but is None else self.share.masked_fill(self.classes == but[:, None], -1)
        top = share.max(1, keepdim=True).values
        label = self.classes.masked_fill(share < top, torch.iinfo(torch.int64).max).min(1).values
        return label, top[:, 0].clamp_min(0)


@dataclass(frozen=True)
class Judgement:
    """What a detector that also recommends has found.

    suspicion (n,): higher = more likely mislabelled; votes: P(label) of each sample, by its evidence.
    """

    suspicion: Float[Tensor, " n"]
    votes: Votes


def neighbourhood(labels: Int[Tensor, " n"]) -> int:
    """K: the median class size, at least 1, less than n."""
    sizes = torch.bincount(labels)
    return max(1, min(int(sizes[sizes > 0].median()), len(labels) - 1))


def vote(
    embeddings: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"],
    k: int | None = None,
    tile: int | None = None,
    voters: Bool[Tensor, " n"] | None = None,
) -> Votes:
    """P(y = l) = sum_i exp(-d_i) [y_i = l] / sum_i exp(-d_i) over the k nearest other samples.

    Algorithm 1, with d the Euclidean distance of the embeddings as they are given. k: by default the
    median class size. tile: samples at a time (by memory). voters: whose labels count (all); K is capped at
    the other voters there are. Raises UserError for fewer than two samples or voters.
    """
    if len(labels) < 2 or (voters is not None and int(voters.sum()) < 2):
        raise UserError("relabelling needs at least two training samples")
    squared, index = neighbours(embeddings, k or neighbourhood(labels), voters)
    distance = squared.sqrt()
    # Relative to the closest neighbour, so that far-away samples do not underflow to 0/0.
    weight = torch.exp(distance[:, :1] - distance)
    weight = weight / weight.sum(1, keepdim=True)
    classes = labels[index]
    share, c = torch.empty_like(weight), int(labels.max()) + 1
    tile = tile or max(1, TILE_BYTES // (4 * c))
    for start in range(0, len(labels), tile):
        some = slice(start, start + tile)
        total = weight.new_zeros(len(weight[some]), c).scatter_add_(1, classes[some], weight[some])  # (t, c)
        share[some] = total.gather(1, classes[some])
    own = (weight * (classes == labels[:, None])).sum(1)
    return Votes(classes, share, own, index)


def neighbours(
    embeddings: Float[Tensor, "n m"], k: int, voters: Bool[Tensor, " n"] | None
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k nearest other voters of each sample: squared distances and indices."""
    if voters is None or voters.all():
        return nearest(embeddings, embeddings, k, same=True)
    inside, outside = voters.nonzero()[:, 0], (~voters).nonzero()[:, 0]
    k, gallery = min(k, len(inside) - 1), embeddings[inside]
    parts = nearest(gallery, gallery, k, same=True), nearest(embeddings[outside], gallery, k, same=False)
    order = torch.cat([inside, outside]).argsort()
    squared, index = (torch.cat(both)[order] for both in zip(*parts, strict=True))
    return squared, inside[index]


def recommended_right(
    votes: Votes,
    labels: Int[Tensor, " n"],
    clean: Int[Tensor, " n"],
    harmful: Bool[Tensor, " n"],
) -> float | None:
    """Table 2: of the flipped samples that score harmful, the share whose recommendation is the true
    label; where it is the current label, the second choice counts. None where there is no such sample."""
    chosen = harmful & (labels != clean)
    if not chosen.any():
        return None
    first, _ = votes.best()
    second, _ = votes.best(but=labels)
    return (torch.where(first == labels, second, first) == clean)[chosen].float().mean().item()


def recommended_right_all(votes: Votes, labels: Int[Tensor, " n"], clean: Int[Tensor, " n"]) -> float | None:
    """Of all flipped samples, harmful or not, the share whose most likely other label is the true one.

    None where none is flipped.
    """
    flipped = labels != clean
    if not flipped.any():
        return None
    return (votes.best(but=labels)[0] == clean)[flipped].float().mean().item()
