"""What a model says about labels through three views at several times of its training, as one vote.

The neighbours' vote is blind to what a class looks like elsewhere, the head to what lies next to a sample;
the embeddings are drawn towards wrong labels that the head has learnt, the backbone's features less so; early
in training little has been learnt, late too much. Their errors differ, so the plain mean of all is safe.
"""

import functools
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.attribution.head import Training, class_cosines, classes_of
from deconfuse.labels.relabel import TILE_BYTES, Votes, vote

SCALE = 10.0  # of the cosines in the head's softmax: below the losses' own, which saturate on what they fit
KEPT = 8  # labels of a sample that are kept, the most likely ones


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
    given = sides[0].labels if labels is None else labels
    votes = [
        [vote(x, side.labels, k, voters=who, unit=True, listed=False) for x in (side.z, side.features)]
        for side, who in zip(sides, voters or [None] * len(sides), strict=True)
    ]
    c = classes_of(sides[0])
    kept = min(KEPT, c)
    classes = torch.empty(len(given), kept, dtype=torch.long, device=given.device)
    # A side in float64, as one of nearly one direction is, makes the whole sum one of float64.
    dtype = functools.reduce(torch.promote_types, (side.z.dtype for side in sides))
    share = sides[0].z.new_empty(len(given), kept, dtype=dtype)
    own = sides[0].z.new_empty(len(given), dtype=dtype)
    tile = tile or max(1, TILE_BYTES // (8 * c))
    for start in range(0, len(given), tile):
        rows = slice(start, start + tile)
        total = share.new_zeros(len(given[rows]), c)
        for side, pair in zip(sides, votes, strict=True):
            for one in pair:  # a neighbour's share is its label's, so equal labels write equal numbers
                total += torch.zeros_like(total).scatter_(1, one.classes[rows], one.share[rows].to(dtype))
            total += F.softmax(SCALE * class_cosines(side, rows), dim=1)
        total /= 3 * len(sides)
        share[rows], classes[rows] = total.topk(kept, dim=1)
        own[rows] = total.gather(1, given[rows, None])[:, 0]
    return Votes(classes, share, own)


def odds(votes: Votes, labels: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """(label, log P(label) - log P(labels)): the most likely other label, and the log-odds for it, nats.

    > 0 where it is more likely than the label given; votes.own are those of `labels`.
    """
    label, share = votes.best_but(labels)
    tiny = torch.finfo(share.dtype).tiny
    return label, share.clamp_min(tiny).log() - votes.own.clamp_min(tiny).log()
