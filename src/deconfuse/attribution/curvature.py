"""Second derivatives of the training loss in the head's weight, and solving with them.

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

from deconfuse.attribution.head import TILE_BYTES, Training
from deconfuse.attribution.linear_algebra import factorise
from deconfuse.system.errors import UserError, at_least, one_of
from deconfuse.system.progress import console

WIDE_BYTES = 2 * 2**20  # of a tile's logits or embeddings: fits a cache
LARGEST_EXPLICIT = 4096  # weights; H has their square


def gradient_z(
    training: Training, z: Float[Tensor, "n m"], labels: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "n m"]:
    """dl/dz of each sample; its gradient in W is the rank-one (dl/dz) phi^T."""
    labels = training.labels if labels is None else labels
    return torch.func.grad(lambda z: training.loss(z, labels).sum())(z)


def sample_gradients(training: Training, labels: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n m"]:
    """dl/dz of each sample at W, in tiles: in closed form where the loss is a softmax of cosines.

    labels: others than the samples' own.
    """
    labels = training.labels if labels is None else labels
    if training.part_rows < len(training):
        return torch.cat([sample_gradients(part, labels[rows]) for rows, part in training.parts()])
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

    bend: the pieces of a softmax loss's second derivative, from `bend_of`; None: autograd, any loss.
    """
    b, m, _ = v.shape
    s = training.features @ v.flatten(0, 1).T  # (n, b m)
    if bend is not None:
        t = bend.product(s.view(-1, b, m)).flatten(1)
    else:
        t = torch.cat([hessian_product_z(training, training.z, each) for each in s.split(m, dim=1)], 1)
    return (training.total(t.T @ training.features) / len(training.all)).view(v.shape)


@dataclass(frozen=True)
class Bend:
    """d^2l/dz^2 of l = -log softmax_j(a (cos_j - b [j = y]))_y, in pieces that no product recomputes.

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
    """The closed form of the loss's second derivative, or None where it is no softmax of cosines."""
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
    """V -> H V; what of the second derivative no product changes is found once, unless that takes parts."""
    if training.part_rows >= len(training):
        return partial(hvp, training, bend=bend_of(training))

    def product(v: Tensor) -> Tensor:
        return sum(len(part) / len(training) * hvp(part, v, bend_of(part)) for _, part in training.parts())

    return product


def explicit(training: Training) -> Float[Tensor, "mD mD"]:
    """H as a matrix, for heads of at most LARGEST_EXPLICIT weights; raises UserError beyond."""
    m, dims = training.weight.shape
    if m * dims > LARGEST_EXPLICIT:
        raise UserError(
            f"influence.solver=explicit needs at most {LARGEST_EXPLICIT} weights, the head has {m * dims}; "
            "use influence.solver=cg"
        )
    product = hessian_of(training)
    basis = torch.eye(m * dims, dtype=training.weight.dtype, device=training.weight.device).view(-1, m, dims)
    h = torch.cat([product(part).flatten(1) for part in basis.split(256)])
    return (h + h.T) / 2


@dataclass(frozen=True)
class Spectrum:
    """Estimates of H's largest and smallest eigenvalue."""

    largest: float
    smallest: float


def spectrum(
    product: Callable[[Tensor], Tensor], like: Float[Tensor, "m D"], most: int = 30, seed: int = 0
) -> Spectrum:
    """Both ends of a symmetric matrix's spectrum by Lanczos with full reorthogonalisation.

    product: (1, m, D) -> (1, m, D); like: a tensor of the shape and type that the matrix acts on; most: how
    many products. largest is right to a per cent after some ten; smallest is an upper bound.
    """
    random = torch.Generator().manual_seed(seed)
    q = torch.randn(like.shape, generator=random, dtype=torch.float64).to(like)
    basis, alpha, beta = [q / q.norm()], [], []
    for _ in range(min(most, like.numel())):
        w = product(basis[-1][None])[0]
        alpha.append((w * basis[-1]).sum().item())
        for other in basis:
            w = w - (w * other).sum() * other
        beta.append(w.norm().item())
        if beta[-1] <= 1e-6 * max(map(abs, alpha)):
            break
        basis.append(w / w.norm())
    off = torch.diag(torch.tensor(beta[: len(alpha) - 1], dtype=torch.float64), 1)
    tridiagonal = torch.diag(torch.tensor(alpha, dtype=torch.float64)) + off + off.T
    values = factorise(
        torch.linalg.eigvalsh,
        tridiagonal,
        "the Hessian's eigenvalues by Lanczos",
        "look for features that are very large, or take influence=eif or tracin, which need no Hessian",
    )
    return Spectrum(values[-1].item(), values[0].item())


def damping_of(
    product: Callable[[Tensor], Tensor],
    like: Float[Tensor, "m D"],
    damping: float,
    unit: str,
    seed: int = 0,
    most: int = 30,
) -> tuple[float, Spectrum]:
    """(lambda, spectrum): damping as given (absolute), or times H's largest eigenvalue (relative).

    product and like: as of `spectrum`. Says once what the spectrum is, and warns where H + lambda I is not
    positive definite.
    """
    at_least("influence.damping", damping, 0)
    one_of("influence.damping_unit", unit, ("relative", "absolute"))
    ends = spectrum(product, like, most, seed)
    value = damping * ends.largest if unit == "relative" else damping
    console.print(f"Hessian: eigenvalues from {ends.smallest:.3g} to {ends.largest:.3g}, damping {value:.3g}")
    if ends.smallest + value <= 0:
        console.print(
            "warning: the damped Hessian is indefinite, so its inverse turns some directions around; "
            f"raise influence.damping above {-ends.smallest / max(ends.largest, 1e-30):.2g} (relative)"
        )
    return value, ends


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    v: Float[Tensor, "b m D"],
    tolerance: float,
    most: int,
    precondition: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "b m D"]:
    """x with A x = v for b right sides side by side, A v given by `product`, A positive definite.

    Stops where ||A x - v|| <= tolerance ||v|| for all, or after `most` products, or for one right side
    where it meets a direction of negative curvature. Each x is the one with the smallest residual on its way.
    """
    precondition = precondition or (lambda r: r)
    dot = lambda a, b: (a * b).sum((1, 2), keepdim=True)  # noqa: E731
    x, goal = torch.zeros_like(v), tolerance * v.norm(dim=(1, 2), keepdim=True)
    r = v.clone()
    p = precondition(r)
    rho = dot(r, p)
    best, least = x.clone(), r.norm(dim=(1, 2))
    open_ = torch.nonzero(least > goal[:, 0, 0])[:, 0]  # rows that are not solved yet
    r, p, rho = r[open_], p[open_], rho[open_]
    for _ in range(most):
        if not len(open_):
            break
        ap = product(p)
        curvature = dot(p, ap)
        step = torch.where(curvature > 0, rho / curvature, 0.0)
        x[open_] += step * p
        r = r - step * ap
        y = precondition(r)
        new = dot(r, y)
        p, rho = y + new / rho * p, new
        left = r.norm(dim=(1, 2))
        better = left < least[open_]
        best[open_[better]], least[open_[better]] = x[open_[better]], left[better]
        going = (curvature[:, 0, 0] > 0) & (left > goal[open_][:, 0, 0])
        open_, r, p, rho = open_[going], r[going], p[going], rho[going]
    return best


def lissa(
    training: Training, v: Float[Tensor, "b m D"], scale: float, damping: float, batch: int, epochs: int = 1
) -> Float[Tensor, "b m D"]:
    """h <- v + (1 - damping) h - H_batch h / scale over batches in data set order, then h / scale.

    Koh and Liang (2017), as the EIF authors' scripts run it (batch 1). Converges towards
    (H + damping * scale I)^-1 v where it converges. One sample after the other: of several processes each
    does all of it.
    """
    training = training.all
    n, h = len(training), v.clone()
    for _ in range(epochs):
        for start in range(0, n, batch):
            rows = slice(start, start + batch)
            phi = training.features[rows]  # (t, D)
            t, labels = len(phi), training.labels[rows]
            s = torch.einsum("bmd,td->btm", h, phi)
            z = training.z[rows].repeat(len(v), 1)
            bent = hessian_product_z(training, z, s.flatten(0, 1), labels.repeat(len(v))).view_as(s)
            h = v + (1 - damping) * h - torch.einsum("btm,td->bmd", bent, phi) / (t * scale)
            if not torch.isfinite(h).all():
                raise UserError(
                    f"LiSSA diverged at sample {start}; raise influence.scale (now {scale:g}) above the "
                    "largest eigenvalue of a sample's Hessian, or use influence.solver=cg"
                )
    return h / scale
