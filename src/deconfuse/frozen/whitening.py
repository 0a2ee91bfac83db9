"""The linear map that makes the spread within the classes alike in all directions, in closed form.

It is linear discriminant analysis (Fisher, 1936, "The use of multiple measurements in taxonomic problems")
without its cut to c - 1 directions: what varies inside the classes, such as pose and background, counts less
afterwards, also for classes that were never seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.system.linear_algebra import shrunk_root

NO_SPREAD = 1e-10  # of the spread of all samples: less is rounding
FIX = "look for features that are very large, or give recipe.whiten=null recipe.hold=0"
ROWS = 2**13  # of features that are taken at once, as they may be mapped from a file


@dataclass(frozen=True)
class Scatter:
    """Second moments of n features of c classes, in float64.

    mean (D,); within (D, D): the covariance inside the classes, sum_i (x_i - mu_y)(x_i - mu_y)^T / (n - c);
    total (D, D): sum_i (x_i - mean)(x_i - mean)^T / n.
    """

    mean: Float[Tensor, " D"]
    within: Float[Tensor, "D D"]
    total: Float[Tensor, "D D"]


def scatter(
    features: Float[Tensor, "n D"], labels: Int[Tensor, " n"], used: Bool[Tensor, " n"] | None = None
) -> Scatter:
    """The moments of the rows that are used (all), in two passes over the rows, a part at a time."""
    used = torch.ones(len(labels), dtype=torch.bool) if used is None else used
    c, d, n = int(labels.max()) + 1, features.shape[1], int(used.sum())
    sums = torch.zeros(c, d, dtype=torch.float64)
    for rows in _parts(used):
        sums.index_add_(0, labels[rows], features[rows].double())
    counts = torch.bincount(labels[used], minlength=c).double()
    means, mean = sums / counts.clamp_min(1)[:, None], sums.sum(0) / max(n, 1)
    within = torch.zeros(d, d, dtype=torch.float64)
    for rows in _parts(used):
        apart = features[rows].double() - means[labels[rows]]
        within += apart.T @ apart
    between = (means - mean) * counts.sqrt()[:, None]
    total = (within + between.T @ between) / max(n, 1)
    return Scatter(mean, within / max(n - int((counts > 0).sum()), 1), total)


def _parts(used: Bool[Tensor, " n"]) -> Iterator[Int[Tensor, " r"]]:
    yield from used.nonzero()[:, 0].split(ROWS)


def whitening(
    moments: Scatter, m: int, shrink: float = 0.3
) -> tuple[Float[Tensor, "m D"], Float[Tensor, " m"]]:
    """(W, b) of z = W (x - mean) with W = V^T L^-1, L L^T = S_w + shrink tr(S_w)/D 1.

    V: the m directions in which the whitened features vary most, all samples together. If m > D, the last
    m - D numbers of z are 0. Cosines of z do not depend on the scale of x; W is scaled so that its entries
    have the mean square 1/D, and so learning rates mean the same for any features. shrink: how much of the
    mean eigenvalue is added to all eigenvalues, as small ones are not known well; without any spread inside
    the classes L = 1.
    """
    d = len(moments.mean)
    least = NO_SPREAD * float(moments.total.diagonal().mean())
    what = "recipe.whiten, the spread inside the classes"
    lower = shrunk_root(moments.within, max(shrink, 1e-6), least, what, FIX)
    inside = torch.linalg.solve_triangular(lower, moments.total, upper=False)
    whitened = torch.linalg.solve_triangular(lower, inside.T, upper=False)  # L^-1 S_t L^-T
    _, directions = torch.linalg.eigh((whitened + whitened.T) / 2)
    most = directions.flip(1)[:, : min(m, d)]
    weight = torch.zeros(m, d, dtype=torch.float64)
    weight[: most.shape[1]] = torch.linalg.solve_triangular(lower.T, most, upper=True).T
    weight /= weight.square().mean().sqrt() * d**0.5
    return weight, -(weight @ moments.mean)
