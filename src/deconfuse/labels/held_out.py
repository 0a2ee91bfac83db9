"""How close each training sample is to each class, by a classifier that has not seen the sample's label.

The samples are split into folds. The classes' means and the spread inside them come from the other folds, as
a sample's own label would otherwise speak for itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.system.linear_algebra import shrunk_root

FOLDS = 5
ROWS = 2**13  # of features that are taken at once, as they may be mapped from a file
TILE_BYTES = 64 * 2**20  # of cosines held at once; never n x c
NO_SPREAD = 1e-10  # of the features' mean square: less is rounding
FIX = "look for features that are very large"
SHRINK = 0.3  # of the mean eigenvalue of the spread inside the classes, added to all of them


def folds(labels: Int[Tensor, " n"], seed: int = 0) -> Int[Tensor, " n"]:
    """The fold of each sample, 0 to FOLDS - 1; each class is spread over the folds as evenly as can be."""
    random = np.random.default_rng([seed, 0x666F])
    order = random.permutation(len(labels))
    order = order[np.argsort(labels.cpu().numpy()[order], kind="stable")]
    result = np.empty(len(labels), dtype=np.int64)
    result[order] = np.arange(len(labels)) % FOLDS
    return torch.from_numpy(result)


@dataclass(frozen=True)
class FoldSums:
    """Of the samples of one fold, weighted: sum w x x^T (D, D), sum w x of each class (c, D), sum w (c,)."""

    squares: Float[Tensor, "D D"]
    firsts: Float[Tensor, "c D"]
    counts: Float[Tensor, " c"]


def _sums(
    features: Float[Tensor, "n D"],
    labels: Int[Tensor, " n"],
    weight: Float[Tensor, " n"],
    centre: Float[Tensor, " D"],
    c: int,
    chosen: Int[Tensor, " r"],
) -> FoldSums:
    d = features.shape[1]
    squares, firsts = torch.zeros(d, d, dtype=torch.float64), torch.zeros(c, d, dtype=torch.float64)
    for rows in chosen.split(ROWS):
        x, w = features[rows].double() - centre, weight[rows, None].double()
        squares += x.T @ (w * x)
        firsts.index_add_(0, labels[rows], w * x)
    counts = torch.zeros(c, dtype=torch.float64).index_add_(0, labels[chosen], weight[chosen].double())
    return FoldSums(squares, firsts, counts)


def cosines(
    features: Float[Tensor, "n D"], labels: Int[Tensor, " n"], weight: Float[Tensor, " n"], c: int
) -> Iterator[tuple[Int[Tensor, " r"], Float[Tensor, "r c"], Bool[Tensor, " c"]]]:
    """(rows, their cosines to the c class means, which classes the other folds have), tile by tile.

    x is whitened by the spread inside the classes, S_w + SHRINK tr(S_w)/D 1, and both x and the means are
    taken relative to the mean of all. Means and spread are those of the other folds, in which a sample counts
    `weight` times.
    """
    fold, centre = folds(labels), features[: 4 * ROWS].double().mean(0)
    members = [(fold == f).nonzero()[:, 0] for f in range(FOLDS)]
    sums = [_sums(features, labels, weight, centre, c, rows) for rows in members]
    tile = max(1, TILE_BYTES // (8 * max(c, features.shape[1])))
    for mine, rows in zip(sums, members, strict=True):
        counts = sum(each.counts for each in sums) - mine.counts
        firsts = sum(each.firsts for each in sums) - mine.firsts
        squares = sum(each.squares for each in sums) - mine.squares
        there = counts > 0.5
        if not len(rows) or not there.any():
            continue
        means = firsts / counts.clamp_min(1e-9)[:, None]
        most = float(squares.diagonal().mean() / counts.sum())
        inverse = _whitener(squares - (means * counts[:, None]).T @ means, counts, most)
        overall = firsts.sum(0) / counts.sum()
        near = F.normalize((means - overall) @ inverse.T, dim=1).float()
        for some in rows.split(tile):
            x = (features[some].double() - centre - overall).float() @ inverse.T.float()
            yield some, F.normalize(x, dim=1) @ near.T, there


def _whitener(
    scatter: Float[Tensor, "D D"], counts: Float[Tensor, " c"], most: float
) -> Float[Tensor, "D D"]:
    """L^-1, L L^T being the shrunk spread inside the classes; 1 where there is no spread but rounding.

    most: the mean square of the features, of which less than NO_SPREAD is rounding.
    """
    within = scatter / max(float(counts.sum()) - int((counts > 0).sum()), 1.0)
    lower = shrunk_root(within, SHRINK, NO_SPREAD * most, "P(wrong), the spread inside the classes", FIX)
    return torch.linalg.solve_triangular(lower, torch.eye(len(lower), dtype=lower.dtype), upper=False)
