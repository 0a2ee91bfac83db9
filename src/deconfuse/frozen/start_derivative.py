"""The derivative of the whitened start in each sample's weight, in reverse.

With weights w_i on the samples, the start (`whitening`, `start.placed`) is, with S_t, S_w, mu and mu_y the
weighted moments and B = S_w + r tr(S_w)/D 1,

    S_t u_a = lambda_a B u_a,  u_a^T B u_b = [a = b],  lambda_1 >= lambda_2 >= ...    (D directions)
    W = s (u_1 ... u_m)^T,  s such that ||W||^2 = m,      b = -W mu
    p_j = unit(unit(M_c) + 0.1 r_j),  M_c = sum_{i: y_i = c} w_i e_i,  e_i = unit(W x_i + b)

where the random r_j is there if a class has several proxies. First-order perturbation of the symmetric
eigenproblem (the Daleckii-Krein formula; Stewart and Sun, Matrix Perturbation Theory, 1990, ch. VI) gives

    du_a = sum_{b != a} u_b u_b^T (dS_t - lambda_a dB) u_a / (lambda_a - lambda_b) - u_a u_a^T dB u_a / 2

so that a value v with G_ba = u_b^T dv/du_a and F_ba = G_ba / (lambda_a - lambda_b), F_aa = 0, has

    dv = sum_ab F_ba u_b^T dS_t u_a - R_ba u_b^T dB u_a,      R_ba = lambda_a F_ba, R_aa = G_aa / 2.

A common factor of S_t, or of S_w, does not change W, so what is left of a sample's weight is its own term,
(x - mu)(x - mu)^T / n in S_t and (x - mu_y)(x - mu_y)^T / (n - c) in S_w. In the coordinates u_b^T (x - mu)
both are products of an (n, D) and a (D, m) matrix for each value; nothing is n x D x D, nor D x D for each
value.

Where two lambda are equal there is no derivative of single directions. Among the first m their rotation
against each other is left out, which changes no distance at the start; between the m-th and one that is cut
off it is left out as well, and `cut` says so. Where two are nearly equal the derivative holds for tiny
changes of the weights only. For larger ones `blur` takes the mean of 1 / (g + x), g = lambda_a - lambda_b,
over shifts x with a Cauchy distribution of half-width h = blur (lambda_a + lambda_b) / 2, g / (g^2 + h^2);
R_ba, which is finite where g is 0, goes from lambda_a F_ba to G_ba / 2 with it. 0: exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.frozen.start import OWN
from deconfuse.frozen.whitening import ROWS, Scatter, directions, parts

TIED = 1e-9  # of the largest lambda: a smaller difference is rounding
OWN_BYTES = 64 * 2**20  # of the rows' adjoints of e held at once


@dataclass(frozen=True)
class Whitened:
    """The moments of the samples, all D directions, and W (m, D), b (m,) as they follow, in float64.

    values (D,): lambda, descending; vectors (D, D): u_a in columns, with W's signs; shrink: r of B.
    """

    moments: Scatter
    values: Float[Tensor, " D"]
    vectors: Float[Tensor, "D D"]
    shrink: float
    weight: Float[Tensor, "m D"]
    bias: Float[Tensor, " m"]

    @classmethod
    def of(cls, moments: Scatter, shrink: float, like: Float[Tensor, "m D"]) -> "Whitened":
        """like: a W of the same samples, whose signs the directions get."""
        values, vectors, r = directions(moments, shrink, len(moments.mean))
        m, d = like.shape
        k = min(m, d)
        signs = torch.where((vectors[:, :k].T * like[:k].double()).sum(1) < 0, -1.0, 1.0)
        vectors[:, :k] *= signs
        weight = torch.zeros(m, d, dtype=torch.float64)
        weight[:k] = vectors[:, :k].T
        weight *= m**0.5 / weight.norm()
        return cls(moments, values, vectors, r, weight, -(weight @ moments.mean))

    @property
    def kept(self) -> int:
        """How many directions W has: m, at most D."""
        return min(self.weight.shape)

    @property
    def cut(self) -> bool:
        """True if last direction of W varies as much as one that is cut off: which one it is, is chance."""
        m, v = self.kept, self.values
        return m < len(v) and bool(v[m - 1] - v[m] <= TIED * v[0])


@dataclass(frozen=True)
class Adjoints:
    """The derivatives of K values in W, b and the proxies of the start, float64."""

    weight: Float[Tensor, "K m D"]
    bias: Float[Tensor, "K m"]
    proxies: Float[Tensor, "K ck m"]


@dataclass(frozen=True)
class Samples:
    """What the start is made of.

    weights (n,): 1, or 0 for a sample that takes no part; random (c k, m): the loss's proxies before they
    were placed; classes: c.
    """

    features: Float[Tensor, "n D"]
    labels: Int[Tensor, " n"]
    weights: Float[Tensor, " n"]
    random: Float[Tensor, "ck m"]
    classes: int

    def embedded(self, start: Whitened, most: int = ROWS) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """(rows, x, e, ||z||) of those that take part, at most so many rows at a time."""
        for rows in parts(self.weights, most):
            x = self.features[rows].double()
            z = F.linear(x, start.weight, start.bias)
            norm = z.norm(dim=1, keepdim=True)
            yield rows, x, torch.where(norm > 0, z / norm, 0.0), norm


def weight_derivatives(
    samples: Samples, start: Whitened, last: Adjoints, blur: float = 0.0
) -> Float[Tensor, "K n"]:
    """dv/dw_i of K values v for every sample, float64; 0 for samples that take no part."""
    result = torch.zeros(len(last.weight), len(samples.labels), dtype=torch.float64)
    _through_moments(samples, start, _through_proxies(samples, start, last, result), blur, result)
    return result


def _through_proxies(
    samples: Samples, start: Whitened, last: Adjoints, result: Float[Tensor, "K n"]
) -> Adjoints:
    """The adjoints with what the proxies add to those of W and b; result gets the class means' own part."""
    weight, bias, labels = last.weight.clone(), last.bias.clone(), samples.labels
    sums = torch.zeros(samples.classes, len(start.weight), dtype=torch.float64)
    for rows, _, e, _ in samples.embedded(start):
        sums.index_add_(0, labels[rows], e)
    of_sums = _of_sums(sums, samples.random.double(), last.proxies)
    most = max(1, min(ROWS, OWN_BYTES // (8 * len(bias) * len(start.weight))))
    for rows, x, e, norm in samples.embedded(start, most):
        along = of_sums[:, labels[rows]]  # (K, r, m)
        along_e = (along * e).sum(2)
        result[:, rows] += along_e
        of_z = torch.where(norm > 0, (along - along_e[..., None] * e) / norm, 0.0)
        weight += of_z.transpose(1, 2) @ x
        bias += of_z.sum(1)
    return Adjoints(weight, bias, last.proxies)


def _of_sums(
    sums: Float[Tensor, "c m"], random: Float[Tensor, "ck m"], proxies: Float[Tensor, "K ck m"]
) -> Float[Tensor, "K c m"]:
    """The adjoints of M_c from those of the proxies; 0 for classes whose M_c is 0."""
    c, each = len(sums), len(random) // len(sums)
    norm = sums.norm(dim=1, keepdim=True)
    u = torch.where(norm > 0, sums / norm, 0.0)
    q = u.repeat_interleave(each, 0) + (OWN * F.normalize(random, dim=1) if each > 1 else 0.0)
    length = q.norm(dim=1, keepdim=True).clamp_min(1e-30)
    p = q / length
    of_q = (proxies - (proxies * p).sum(2, keepdim=True) * p) / length
    of_u = of_q.unflatten(1, (c, each)).sum(2)
    return torch.where(norm > 0, (of_u - (of_u * u).sum(2, keepdim=True) * u) / norm, 0.0)


def _through_moments(
    samples: Samples, start: Whitened, last: Adjoints, blur: float, result: Float[Tensor, "K n"]
) -> None:
    """Add the parts of W and b to the result, by S_t, S_w and mu."""
    moments, k, d = start.moments, start.kept, len(start.values)
    of_mean = -(last.bias @ start.weight)
    total, within = _of_moments(start, last.weight - last.bias[..., None] * moments.mean, blur)
    trace = start.shrink / d * (within * (start.vectors.T @ start.vectors[:, :k])).sum((1, 2))
    for rows in parts(samples.weights):
        x = samples.features[rows].double()
        apart, inside = x - moments.mean, x - moments.means[samples.labels[rows]]
        result[:, rows] += of_mean @ apart.T / moments.size
        squared = inside.square().sum(1)
        apart, inside = apart @ start.vectors, inside @ start.vectors
        for i in range(len(total)):
            result[i, rows] += ((apart @ total[i]) * apart[:, :k]).sum(1) / moments.size
            if start.shrink:
                spread = trace[i] * squared + ((inside @ within[i]) * inside[:, :k]).sum(1)
                result[i, rows] -= spread / moments.inside


def _of_moments(
    start: Whitened, weight: Float[Tensor, "K m D"], blur: float
) -> tuple[Float[Tensor, "K D k"], Float[Tensor, "K D k"]]:
    """(F, R) of each value, from the adjoints of W."""
    k, m = start.kept, len(start.weight)
    along = (weight * start.weight).sum((1, 2), keepdim=True) / m
    scale = m**0.5 / start.vectors[:, :k].norm()
    of_u = scale * (weight - along * start.weight)[:, :k]
    g = (of_u @ start.vectors).transpose(1, 2)  # (K, D, k)
    gap, wide = start.values[:k] - start.values[:, None], start.values[:k] + start.values[:, None]
    tied = gap.abs() <= TIED * start.values[0].abs()
    inverse = gap / torch.where(tied, 1.0, gap.square() + (blur * wide / 2).square())
    f = torch.where(tied, 0.0, g * inverse)
    return f, torch.where(tied, g / 2, f * start.values[:k] + g / 2 * (1 - gap * inverse))
