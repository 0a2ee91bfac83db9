"""Recommend labels by a distance-weighted vote of the neighbours (Algorithm 1)."""

import math
import os
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.labels.tally import by_class, fairly, tally
from deconfuse.retrieval.neighbours import MANY, nearest
from deconfuse.system.errors import UserError, count
from deconfuse.system.progress import track
from deconfuse.system.words import many

SHOWN = 16  # neighbours of a sample that a reader may look at
TILE_BYTES = 64 * 2**20  # of votes held at once; never n x c
NEIGHBOUR_BYTES = 36  # of a neighbour's distance, index, label and share, and what is made on the way
KEPT = 8  # labels of a candidate that are kept, the most likely ones


@dataclass(frozen=True)
class Votes:
    """What the k nearest other training samples say about each one.

    classes (n, k): the neighbours' labels, closest first; share (n, k): P(label of neighbour j), the
    vote for that label in [0, 1]; own (n,): the vote for the sample's current label. Of a sample that was no
    candidate, share and own are NaN, and classes the label it has. index (n, k): which samples the neighbours
    are; None where the votes are no neighbours'. Where k is large, classes and share have a column for each
    class, some of them twice, and index the SHOWN nearest neighbours. k: how many neighbours voted.
    """

    classes: Int[Tensor, "n k"]
    share: Float[Tensor, "n k"]
    own: Float[Tensor, " n"]
    index: Int[Tensor, "n s"] | None = None
    k: int | None = None

    def cpu(self) -> "Votes":
        """The same votes in the processor's memory."""
        index = None if self.index is None else self.index.cpu()
        return Votes(self.classes.cpu(), self.share.cpu(), self.own.cpu(), index, self.k)

    def of(self, rows: Int[Tensor, " r"]) -> "Votes":
        """The votes on some samples; index stays that of all samples."""
        index = None if self.index is None else self.index[rows]
        return Votes(self.classes[rows], self.share[rows], self.own[rows], index, self.k)

    def among_all(self, rows: Int[Tensor, " n"], labels: Int[Tensor, " l"]) -> "Votes":
        """These votes, on some samples, in their places among all samples, whose labels are given; the
        others are as samples that were no candidates."""
        classes = labels[:, None].repeat(1, self.classes.shape[1])
        share = self.share.new_full(classes.shape, torch.nan)
        own = self.own.new_full(labels.shape, torch.nan)
        classes[rows], share[rows], own[rows] = self.classes, self.share, self.own
        return Votes(classes, share, own, None, self.k)

    @cached_property
    def best(self) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """(label, vote) of the label with the largest vote; of equal votes the smaller class id."""
        return _largest(self.share, self.classes)

    def best_but(self, label: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """As `best`, without each sample's given label.

        Where all neighbours have that label, it is returned with vote 0.
        """
        return _largest(self.share.masked_fill(self.classes == label[:, None], -1), self.classes)


def _largest(
    share: Float[Tensor, "n k"], classes: Int[Tensor, "n k"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    top = share.max(1, keepdim=True).values
    label = classes.masked_fill(share < top, torch.iinfo(torch.int64).max).min(1).values
    return label, top[:, 0].clamp_min(0)


@dataclass(frozen=True)
class Judgement:
    """The result of a detector that also recommends labels.

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
    voters: Bool[Tensor, " n"] | None = None,
    unit: bool = False,
    listed: bool = True,
    fair: bool = False,
) -> Votes:
    """P(y = l) = sum_i exp(-d_i) [y_i = l] / sum_i exp(-d_i) over the k nearest other samples.

    Algorithm 1, with d the Euclidean distance of the embeddings, as they are given or scaled to length one
    first (unit), which is done in float64. k: by default the median class size. voters: whose labels count
    (all); K is at most the number of other voters. listed: whether the neighbours' numbers are wanted. fair:
    exp(-d_i) is divided by the number of voters of i's label other than the sample itself, so that a large
    class has no more to say than a small one; by itself, Algorithm 1
    follows the classes' sizes. Raises UserError for fewer than two samples or voters.
    """
    if len(labels) < 2 or (voters is not None and int(voters.sum()) < 2):
        raise UserError("relabelling needs at least two training samples")
    k, c = k or neighbourhood(labels), int(labels.max()) + 1
    sizes = class_sizes(labels, c, voters) if fair else None
    if unit and is_many(k, c):
        total = fairly(by_class(embeddings, labels, k, c, voters), sizes, labels)
        found = _counted(total, labels, embeddings.dtype)
        index = neighbours(embeddings, SHOWN, voters, unit)[1] if listed else None
        return replace(found, index=index, k=k)
    squared, index = neighbours(embeddings, k, voters, unit)
    classes = labels[index]
    share, own = torch.empty_like(squared), squared.new_empty(len(labels))
    tile = max(1, TILE_BYTES // (8 * max(c, 3 * classes.shape[1])))
    for start in range(0, len(labels), tile):
        some = slice(start, start + tile)
        total = tally(squared[some], classes[some], c, sizes, labels[some])
        share[some] = total.gather(1, classes[some])
        own[some] = total.gather(1, labels[some, None])[:, 0]
    return Votes(classes, share, own, index, k)


def is_many(k: int, c: int) -> bool:
    """True where votes are added up by class, without an order of the neighbours."""
    return k > MANY and c <= k


def class_sizes(
    labels: Int[Tensor, " n"], c: int, voters: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, " c"]:
    """The number of voters of each class."""
    return torch.bincount(labels if voters is None else labels[voters], minlength=c).double()


def _counted(total: Float[Tensor, "n c"], labels: Int[Tensor, " n"], dtype: torch.dtype) -> Votes:
    """Votes by class as Votes: a class without a vote gives its place to the likeliest one again."""
    most, likeliest = total.max(1, keepdim=True)
    none = total == 0
    classes = torch.where(none, likeliest, torch.arange(total.shape[1], device=total.device))
    own = total.gather(1, labels[:, None])[:, 0]
    return Votes(classes, torch.where(none, most, total).to(dtype), own.to(dtype))


def neighbours(
    embeddings: Float[Tensor, "n m"], k: int, voters: Bool[Tensor, " n"] | None, unit: bool = False
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k nearest other voters of each sample: squared distances and indices."""
    if voters is None or voters.all():
        return nearest(embeddings, embeddings, k, same=True, unit=unit)
    inside, outside = voters.nonzero()[:, 0], (~voters).nonzero()[:, 0]
    k, gallery = min(k, len(inside) - 1), embeddings[inside]
    parts = (
        nearest(gallery, gallery, k, same=True, unit=unit),
        nearest(embeddings[outside], gallery, k, same=False, unit=unit),
    )
    order = torch.cat([inside, outside]).argsort()
    squared, index = (torch.cat(both)[order] for both in zip(*parts, strict=True))
    return squared, inside[index]


def candidates(influence: Float[Tensor, " n"], most: int) -> Int[Tensor, " a"]:
    """The at most `most` samples that score > 0 and highest, in the training set's order, ties to the first.

    Only harmful samples are recommended another label, so these are the ones whose votes matter first.
    """
    order = influence.argsort(descending=True, stable=True)[:most]
    return order[influence[order] > 0].sort().values


def vote_on(
    asked: Int[Tensor, " a"],
    embeddings: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"],
    k: int | None = None,
    tile: int | None = None,
    unit: bool = False,
    fair: bool = False,
) -> Votes:
    """`vote` on the candidates asked alone, by all: 2 a n m operations instead of 2 n^2 m.

    Exact; of each candidate's votes those for the KEPT most likely labels are kept. tile: candidates at a
    time (by memory). unit, fair: as of `vote`. Raises UserError for fewer than two samples.
    """
    if len(labels) < 2:
        raise UserError("relabelling needs at least two training samples")
    k, c = min(k or neighbourhood(labels), len(labels) - 1), int(labels.max()) + 1
    kept = min(KEPT, c)
    classes = labels[:, None].repeat(1, kept)
    share = embeddings.new_full((len(labels), kept), torch.nan)
    own = embeddings.new_full((len(labels),), torch.nan)
    sizes = class_sizes(labels, c) if fair else None
    tile = tile or max(1, TILE_BYTES // (8 * max(c, 3 * k)))
    for rows in track(asked.split(tile), "voting on candidates", math.ceil(len(asked) / tile)):
        squared, index = others(rows, embeddings, k, unit)
        total = tally(squared, labels[index], c, sizes, labels[rows])
        own[rows] = total.gather(1, labels[rows, None])[:, 0].to(own.dtype)
        most, classes[rows] = total.topk(kept, dim=1)
        share[rows] = most.to(share.dtype)
    return Votes(classes, share, own)


def others(
    rows: Int[Tensor, " a"], embeddings: Float[Tensor, "n m"], k: int, unit: bool = False
) -> tuple[Float[Tensor, "a k"], Int[Tensor, "a k"]]:
    """The k nearest other samples (k < n) of the samples `rows`: squared distances and indices."""
    return nearest(embeddings[rows], embeddings, k, same=False, unit=unit, twins=rows)


def check(labels: Int[Tensor, " n"], k: int | None, asked: int | None) -> None:
    """Raise UserError if `asked`, the number of candidates, is no count, or the votes need too much memory.

    Without candidates all samples are voted on, which has to fit into this machine's memory. Each neighbour
    takes about 36 bytes: its distance, index, label and share, and intermediate results; where many vote,
    each class does.
    """
    if asked is not None:
        count("candidates", asked, 1)
        return
    n, k, c = len(labels), k or neighbourhood(labels), int(labels.max()) + 1
    needed = NEIGHBOUR_BYTES * n * (c if is_many(k, c) else min(k, n))
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"the votes of {n} samples with {many(k, 'neighbour')} each take {needed / 2**30:.0f} GiB of "
            f"memory, this machine has {there / 2**30:.0f}; candidates=10000 asks the most harmful samples "
            "alone, neighbours=20 fewer neighbours"
        )


def recommended_right(
    votes: Votes,
    labels: Int[Tensor, " n"],
    clean: Int[Tensor, " n"],
    harmful: Bool[Tensor, " n"],
) -> float | None:
    """Table 2: of the flipped samples that score harmful, the share whose recommendation is the true label.

    If the recommendation is the current label, the second choice counts: so it is always the most likely
    other label. None if there is no such sample.
    Samples that were no candidates do not count.
    """
    chosen = harmful & (labels != clean) & ~votes.own.isnan()
    if not chosen.any():
        return None
    return (votes.best_but(labels)[0] == clean)[chosen].float().mean().item()


def recommended_right_all(votes: Votes, labels: Int[Tensor, " n"], clean: Int[Tensor, " n"]) -> float | None:
    """Of all flipped samples, harmful or not, the share whose most likely other label is the true one.

    None if no label is flipped. Samples that were no candidates do not count.
    """
    flipped = (labels != clean) & ~votes.own.isnan()
    if not flipped.any():
        return None
    return (votes.best_but(labels)[0] == clean)[flipped].float().mean().item()
