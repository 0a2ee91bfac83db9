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
    """Moments of features with weights w_i, of c classes that have any, in float64; n is the weights' sum.

    mean (D,): sum_i w_i x_i / n; means (c, D): the same of each class, mu_y that of x_i's; within (D, D): the
    covariance inside the classes, sum_i w_i (x_i - mu_y)(x_i - mu_y)^T / (n - c); total (D, D): sum_i w_i
    (x_i - mean)(x_i - mean)^T / n; inside: n - c, at least 1; size: n.
    """

    mean: Float[Tensor, " D"]
    means: Float[Tensor, "c D"]
    within: Float[Tensor, "D D"]
    total: Float[Tensor, "D D"]
    inside: float
    size: float


def scatter(
    features: Float[Tensor, "n D"],
    labels: Int[Tensor, " n"],
    weights: Bool[Tensor, " n"] | Float[Tensor, " n"] | None = None,
) -> Scatter:
    """The moments of the rows with weights (1), in two passes over the rows, a part at a time.

    Rows with weight 0 or False are not looked at.
    """
    w = torch.ones(len(labels), dtype=torch.float64) if weights is None else weights.double()
    c, d, n = int(labels.max()) + 1, features.shape[1], w.sum().item()
    sums = torch.zeros(c, d, dtype=torch.float64)
    for rows in parts(w):
        sums.index_add_(0, labels[rows], w[rows, None] * features[rows].double())
    counts = torch.bincount(labels, w, minlength=c)
    there = torch.where(counts > 0, counts, 1)[:, None]
    means, mean = sums / there, sums.sum(0) / (n or 1)
    within = torch.zeros(d, d, dtype=torch.float64)
    for rows in parts(w):
        apart = w[rows, None].sqrt() * (features[rows].double() - means[labels[rows]])
        within += apart.T @ apart
    between = (means - mean) * counts.sqrt()[:, None]
    total = (within + between.T @ between) / (n or 1)
    inside = max(n - int((counts > 0).sum()), 1.0)
    return Scatter(mean, means, within / inside, total, inside, n)


def parts(weights: Float[Tensor, " n"], most: int | None = None) -> Iterator[Int[Tensor, " r"]]:
    """The rows whose weight is not 0, at most ROWS at a time."""
    yield from weights.nonzero()[:, 0].split(most or ROWS)


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
    _, vectors, _ = directions(moments, shrink, min(m, d))
    weight = torch.zeros(m, d, dtype=torch.float64)
    weight[: vectors.shape[1]] = vectors.T
    weight /= weight.square().mean().sqrt() * d**0.5
    return weight, -(weight @ moments.mean)


def directions(
    moments: Scatter, shrink: float, most: int
) -> tuple[Float[Tensor, " k"], Float[Tensor, "D k"], float]:
    """(lambda, u, r): the `most` largest lambda, descending, with S_t u = lambda B u and u^T B u = 1.

    B = S_w + r tr(S_w)/D 1, and r is 0 where B = 1, without any spread inside the classes.
    """
    least = NO_SPREAD * float(moments.total.diagonal().mean())
    what = "recipe.whiten, the spread inside the classes"
    shrink = max(shrink, 1e-6)
    lower = shrunk_root(moments.within, shrink, least, what, FIX)
    inside = torch.linalg.solve_triangular(lower, moments.total, upper=False)
    whitened = torch.linalg.solve_triangular(lower, inside.T, upper=False)  # L^-1 S_t L^-T
    values, found = torch.linalg.eigh((whitened + whitened.T) / 2)
    vectors = torch.linalg.solve_triangular(lower.T, found.flip(1)[:, :most], upper=True)
    spread = moments.within.diagonal().mean() > least
    return values.flip(0)[:most], vectors, shrink if spread else 0.0
