"""First and second derivatives of the training loss in the head's weight.

H is the Hessian of the mean training loss in W (m, D). Its products never need more than the features:
for V (m, D), with S = phi V^T (n, m) and T = d^2l/dz^2 . S row by row,  H V = T^T phi / n.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.attribution.head import Training
from deconfuse.attribution.rows import of_every_process, parts, total, whole_in_one
from deconfuse.compute.exp_sums import TILE_BYTES
from deconfuse.system.errors import UserError

WIDE_BYTES = 2 * 2**20  # of a tile's logits or embeddings: fits a cache
LARGEST_EXPLICIT = 4096  # weights; H has their square


def gradient_z(
    training: Training, z: Float[Tensor, "n m"], labels: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "n m"]:
    """dl/dz of each sample; its gradient in W is the rank-one (dl/dz) phi^T."""
    labels = training.labels if labels is None else labels
    return torch.func.grad(lambda z: training.loss(z, labels).sum())(z)


def sample_gradients(training: Training, labels: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n m"]:
    """dl/dz of each sample at W, in tiles; in closed form if the loss is a softmax of cosines.

    labels: by default the training labels.
    """
    labels = training.labels if labels is None else labels
    if not whole_in_one(training):
        return torch.cat([sample_gradients(part, labels[rows]) for rows, part in parts(training)])
    result = torch.empty_like(training.z)
    wide = len(training.proxies) if hasattr(training.loss, "proxies") else int(training.labels.max()) + 1
    tile = max(1, WIDE_BYTES // (4 * max(wide, training.z.shape[1])))
    for start in range(0, len(training), tile):
        rows = slice(start, start + tile)
        if training.softmax is None:
            result[rows] = gradient_z(training, training.z[rows], labels[rows])
        else:
            bend = _bend(training, training.z[rows], labels[rows])
            result[rows] = (bend.pull - bend.along[:, None] * bend.unit) * bend.shrink[:, None]
    return result


def hessian_product_z(
    training: Training,
    z: Float[Tensor, "n m"],
    direction: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "n m"]:
    """T = d^2l/dz^2 . S, row by row: the gradient of (dl/dz) . S, as the second derivative is symmetric."""
    return torch.func.grad(lambda z: (gradient_z(training, z, labels) * direction).sum())(z)


def hvp(training: Training, v: Float[Tensor, "b m D"], bend: "Bend | None" = None) -> Float[Tensor, "b m D"]:
    """H V for b matrices at once; 4 b n m (D + c) operations.

    bend: the pieces of a softmax loss's second derivative, from `bend_of`; None: autograd, for any loss.
    """
    return total(training, _summed_product(training, v, bend)) / len(of_every_process(training))


def _summed_product(
    training: Training, v: Float[Tensor, "b m D"], bend: "Bend | None"
) -> Float[Tensor, "b m D"]:
    """The sum over a side's rows of each one's d^2l/dW^2 V."""
    b, m, _ = v.shape
    s = training.features @ v.flatten(0, 1).T  # (n, b m)
    if bend is not None:
        t = bend.product(s.view(-1, b, m)).flatten(1)
    else:
        t = torch.cat([hessian_product_z(training, training.z, each) for each in s.split(m, dim=1)], 1)
    return (t.T @ training.features).view(v.shape)


@dataclass(frozen=True)
class Bend:
    """d^2l/dz^2 of l = -log softmax_j(a (cos_j - b [j = y]))_y, in pieces that all products share.

    unit (n, m): e = z/||z||; shrink (n,): 1/||z||; share (n, c): the softmax q; pull (n, m):
    v = dl/de = a (q - onehot) P; along (n,): v . e. Then dl/dz = (v - (v . e) e) / ||z||.
    """

    a: float
    proxies: Float[Tensor, "c m"]
    unit: Float[Tensor, "n m"]
    shrink: Float[Tensor, " n"]
    share: Float[Tensor, "n c"]
    pull: Float[Tensor, "n m"]
    along: Float[Tensor, " n"]

    def product(self, s: Float[Tensor, "n b m"]) -> Float[Tensor, "n b m"]:
        """T = d^2l/dz^2 . S by the chain rule, in tiles of training samples.

        e' = (s - (s.e) e)/||z||, q' = a q (P e' - q . P e'), v' = a q' P, and
        T = (v' - (v'.e + v.e') e - (v.e) e')/||z|| - (v - (v.e) e) (s.e)/||z||^2.
        """
        n, b, _ = s.shape
        result = torch.empty_like(s)
        tile = max(1, TILE_BYTES // (4 * b * len(self.proxies)))
        for start in range(0, n, tile):
            rows = slice(start, start + tile)
            e, v, q = self.unit[rows, None], self.pull[rows, None], self.share[rows, None]
            shrink, along = self.shrink[rows, None, None], self.along[rows, None, None]
            inside = (s[rows] * e).sum(2, keepdim=True)
            turn = (s[rows] - inside * e) * shrink  # e'
            logits = turn @ self.proxies.T
            bent = q * (logits - (q * logits).sum(2, keepdim=True))
            change = (self.a**2 * bent) @ self.proxies  # v'
            back = ((change * e).sum(2, keepdim=True) + (v * turn).sum(2, keepdim=True)) * e
            result[rows] = (change - back - along * turn) * shrink - (v - along * e) * inside * shrink**2
        return result


def bend_of(training: Training) -> Bend | None:
    """The closed form of the loss's second derivative; None if the loss is not a softmax of cosines."""
    return None if training.softmax is None else _bend(training, training.z, training.labels)


def _bend(training: Training, z: Float[Tensor, "t m"], labels: Int[Tensor, " t"]) -> Bend:
    a, margin = training.softmax
    shrink, proxies = z.square().sum(1).rsqrt(), training.proxies
    logits = (z @ proxies.T).mul_((a * shrink)[:, None])
    if margin:
        logits[torch.arange(len(z), device=z.device), labels] -= a * margin
    share = F.softmax(logits, dim=1)
    unit, pull = z * shrink[:, None], a * (share @ proxies - proxies[labels])
    return Bend(a, proxies, unit, shrink, share, pull, (pull * unit).sum(1))


def hessian_of(training: Training) -> Callable[[Float[Tensor, "b m D"]], Float[Tensor, "b m D"]]:
    """V -> H V. If the rows fit into memory, the pieces that all products share are computed once."""
    if whole_in_one(training):
        return partial(hvp, training, bend=bend_of(training))

    def product(v: Tensor) -> Tensor:
        own = sum(_summed_product(part, v, bend_of(part)) for _, part in parts(training))
        return total(training, own) / len(of_every_process(training))

    return product


def explicit(training: Training) -> Float[Tensor, "mD mD"]:
    """H as a matrix; raises UserError for a head of more than LARGEST_EXPLICIT weights."""
    m, dims = training.weight.shape
    if m * dims > LARGEST_EXPLICIT:
        raise UserError(
            f"influence.solver.kind=explicit needs at most {LARGEST_EXPLICIT} weights, the head has "
            f"{m * dims}; use influence.solver.kind=cg"
        )
    product = hessian_of(training)
    basis = torch.eye(m * dims, dtype=training.weight.dtype, device=training.weight.device).view(-1, m, dims)
    h = torch.cat([product(part).flatten(1) for part in basis.split(256)])
    return (h + h.T) / 2
