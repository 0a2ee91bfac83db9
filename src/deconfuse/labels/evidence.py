"""Combine three views of a model, at several checkpoints, into one vote on each label.

The neighbours' vote does not see what the rest of a class looks like, and the head does not see what lies
next to a sample. Embeddings move towards wrong labels that the head has learnt, the backbone's features
less so. Early checkpoints have learnt little, late ones have learnt wrong labels too. The errors of these
views differ, so their unweighted mean is more often right than each of them.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.attribution.head import Training, class_cosines, classes_of
from deconfuse.attribution.rows import embeddings
from deconfuse.labels.relabel import TILE_BYTES, Votes, vote

SCALE = 10.0  # of the cosines in the head's softmax: below the losses' own, which saturate on what they fit
KEPT = 8  # labels of a sample that are kept, the most likely ones


@dataclass(frozen=True)
class Known:
    """The votes on some rows by their labels; voters: who votes, None for all."""

    rows: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    voters: Bool[Tensor, " n"] | None
    votes: Votes

    def answers(self, rows: Tensor, labels: Tensor, voters: Tensor | None) -> bool:
        """True if these are the same rows, labels and voters."""
        kinds = ((each.dtype, each.device) for each in (self.rows, rows))
        if (self.voters is None) != (voters is None) or len(set(kinds)) > 1:
            return False
        pairs = [(self.labels, labels), (self.rows, rows)]
        pairs += [] if voters is None else [(self.voters, voters)]
        return all(one is two or torch.equal(one, two) for one, two in pairs)


def evidence(
    sides: Iterable[Training],
    k: int,
    labels: Int[Tensor, " n"] | None = None,
    voters: Sequence[Bool[Tensor, " n"]] | None = None,
    tile: int | None = None,
) -> Votes:
    """P(l) = mean over t of 1/3 [ vote(z_t)_l + vote(phi_t)_l + softmax_j(SCALE cos(z_t, p_tj))_l ].

    sides: the training side at one or more times t, each with the labels that were trained with then; vote:
    Algorithm 1's of the k nearest, on normalised embeddings z and features phi; p_tj: the closest proxy of
    class j. In [0, 1]; unweighted, so that nothing is tuned to a data set. labels: whose P is `own` (by
    default the first side's); voters: who votes on each side (all). Of each sample the KEPT most likely
    labels are kept; tile: samples at a time (by memory).
    """
    sides = list(sides)
    given, device = sides[0].labels if labels is None else labels, sides[0].weight.device
    given = given.to(device)
    known: list[Known] = []
    votes = [_both(*each, k, known) for each in zip(sides, voters or [None] * len(sides), strict=True)]
    c = classes_of(sides[0])
    kept = min(KEPT, c)
    classes = torch.empty(len(given), kept, dtype=torch.long, device=given.device)
    # If one side is in float64, as for embeddings of nearly one direction, the sum is in float64.
    dtype = functools.reduce(torch.promote_types, (side.weight.dtype for side in sides))
    share = torch.empty(len(given), kept, dtype=dtype, device=device)
    own = torch.empty(len(given), dtype=dtype, device=device)
    tile = tile or max(1, TILE_BYTES // (8 * c))
    for start in range(0, len(given), tile):
        rows = slice(start, start + tile)
        total = share.new_zeros(len(given[rows]), c)
        for side, pair in zip(sides, votes, strict=True):
            for one in pair:  # a neighbour's share is its label's, so equal labels write equal numbers
                which = one.classes[rows].to(device)
                total += torch.zeros_like(total).scatter_(1, which, one.share[rows].to(device, dtype))
            total += F.softmax(SCALE * class_cosines(side, rows), dim=1)
        total /= 3 * len(sides)
        share[rows], classes[rows] = total.topk(kept, dim=1)
        own[rows] = total.gather(1, given[rows, None])[:, 0]
    return Votes(classes, share, own)


def _both(
    side: Training, voters: Bool[Tensor, " n"] | None, k: int, known: list[Known]
) -> tuple[Votes, Votes]:
    """The votes on embeddings and on features; one vote where the head leaves the features as they are.

    known: the features that were voted on, which a frozen backbone has at every checkpoint; grows.
    """
    m, dim = side.weight.shape
    labels = side.labels.to(side.features.device)
    voters = None if voters is None else voters.to(labels.device)
    same = (each.votes for each in known if each.answers(side.features, labels, voters))
    by_features = next(same, None)
    if by_features is None:
        by_features = _vote(side.features, labels, k, voters)
        known.append(Known(side.features, labels, voters, by_features))
    if m == dim and torch.equal(side.weight, torch.eye(m).to(side.weight)) and not side.bias.any():
        return by_features, by_features
    return _vote(embeddings(side), labels, k, voters), by_features


def _vote(
    x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], k: int, voters: Bool[Tensor, " n"] | None
) -> Votes:
    """Algorithm 1's vote where the rows lie, which may be on the CPU if the device's memory is too small."""
    voters = None if voters is None else voters.to(x.device)
    return vote(x, labels.to(x.device), k, voters=voters, unit=True, listed=False)


def odds(votes: Votes, labels: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """(label, log P(label) - log P(labels)): the most likely other label, and the log-odds for it, nats.

    > 0 if it is more likely than the label in `labels`, whose votes are votes.own.
    """
    label, share = votes.best_but(labels)
    tiny = torch.finfo(share.dtype).tiny
    return label, share.clamp_min(tiny).log() - votes.own.clamp_min(tiny).log()
