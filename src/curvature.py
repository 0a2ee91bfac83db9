"""Second derivatives of the training loss in the head's weight, and solving with them.

H is the Hessian of the mean training loss in W (m, D). Its products never need more than the features:
for V (m, D), with S = phi V^T (n, m) and T = d^2l/dz^2 . S row by row,  H V = T^T phi / n.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.errors import UserError, at_least, one_of
from src.head import Training
from src.progress import console

LARGEST_EXPLICIT = 4096  # weights; H has their square


def gradient_z(
    training: Training, z: Float[Tensor, "n m"], labels: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "n m"]:
    """dl/dz of each sample; its gradient in W is the rank-one (dl/dz) phi^T."""
    labels = training.labels if labels is None else labels
    return torch.func.grad(lambda z: training.loss(z, labels).sum())(z)


def hessian_product_z(
    training: Training,
    z: Float[Tensor, "n m"],
    direction: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "n m"]:
    """T = d^2l/dz^2 . S, row by row: the gradient of (dl/dz) . S, as the second derivative is symmetric."""
    return torch.func.grad(lambda z: (gradient_z(training, z, labels) * direction).sum())(z)


def hvp(training: Training, v: Float[Tensor, "b m D"]) -> Float[Tensor, "b m D"]:
    """H V for b matrices at once; 4 b n m D operations."""
    b, m, _ = v.shape
    s = training.features @ v.flatten(0, 1).T  # (n, b m)
    parts = [hessian_product_z(training, training.z, each) for each in s.split(m, dim=1)]
    t = torch.cat(parts, 1) if b > 1 else parts[0]
    return (t.T @ training.features / len(training)).view(v.shape)


def explicit(training: Training) -> Float[Tensor, "mD mD"]:
    """H as a matrix, for heads of at most LARGEST_EXPLICIT weights; raises UserError beyond."""
    m, dims = training.weight.shape
    if m * dims > LARGEST_EXPLICIT:
        raise UserError(
            f"influence.solver=explicit needs at most {LARGEST_EXPLICIT} weights, the head has {m * dims}; "
            "use influence.solver=cg"
        )
    basis = torch.eye(m * dims, dtype=training.z.dtype, device=training.z.device).view(-1, m, dims)
    h = torch.cat([hvp(training, part).flatten(1) for part in basis.split(256)])
    return (h + h.T) / 2


@dataclass(frozen=True)
class Spectrum:
    """Estimates of H's largest and smallest eigenvalue."""

    largest: float
    smallest: float


def spectrum(training: Training, iterations: int = 30, seed: int = 0) -> Spectrum:
    """Both ends of H's spectrum by Lanczos with full reorthogonalisation.

    largest is right to a per cent after some ten iterations; smallest is an upper bound.
    """
    shape = training.weight.shape
    iterations = min(iterations, training.weight.numel())
    random = torch.Generator().manual_seed(seed)
    q = torch.randn(shape, generator=random, dtype=torch.float64).to(training.weight)
    basis, alpha, beta = [q / q.norm()], [], []
    for _ in range(iterations):
        w = hvp(training, basis[-1][None])[0]
        alpha.append((w * basis[-1]).sum().item())
        for other in basis:
            w = w - (w * other).sum() * other
        beta.append(w.norm().item())
        if beta[-1] <= 1e-6 * max(map(abs, alpha)):
            break
        basis.append(w / w.norm())
    k = len(alpha)
    off = torch.tensor(beta[: k - 1], dtype=torch.float64)
    t = torch.diag(torch.tensor(alpha, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
    values = torch.linalg.eigvalsh(t)
    return Spectrum(values[-1].item(), values[0].item())


def damping_of(training: Training, damping: float, unit: str, seed: int = 0) -> tuple[float, Spectrum]:
    """(lambda, spectrum): damping as given (absolute), or times H's largest eigenvalue (relative).

    Says once what the spectrum is, and warns where H + lambda I is not positive definite.
    """
    at_least("influence.damping", damping, 0)
    one_of("influence.damping_unit", unit, ("relative", "absolute"))
    ends = spectrum(training, seed=seed)
    value = damping * ends.largest if unit == "relative" else damping
    console.print(
        f"Hessian of the head: eigenvalues from {ends.smallest:.3g} to {ends.largest:.3g}, "
        f"damping {value:.3g}"
    )
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

    Stops where ||A x - v|| <= tolerance ||v|| for all, or after `most` products. Where a direction of
    negative curvature is met, that right side keeps what it has.
    """
    precondition = precondition or (lambda r: r)
    dot = lambda a, b: (a * b).sum((1, 2), keepdim=True)  # noqa: E731
    x, r = torch.zeros_like(v), v.clone()
    y = precondition(r)
    p, rho, goal = y.clone(), dot(r, y), tolerance * v.norm(dim=(1, 2), keepdim=True)
    for _ in range(most):
        going = r.norm(dim=(1, 2), keepdim=True) > goal
        if not going.any():
            break
        ap = product(p)
        curvature = dot(p, ap)
        going &= curvature > 0
        step = torch.where(going, rho / torch.where(going, curvature, 1.0), 0.0)
        x, r = x + step * p, r - step * ap
        y = precondition(r)
        new = dot(r, y)
        p = torch.where(going, y + new / torch.where(rho > 0, rho, 1.0) * p, 0.0)
        rho = new
        if not going.any():
            break
    return x


def lissa(
    training: Training, v: Float[Tensor, "b m D"], scale: float, damping: float, batch: int, epochs: int = 1
) -> Float[Tensor, "b m D"]:
    """h <- v + (1 - damping) h - H_batch h / scale over batches in data set order, then h / scale.

    Koh and Liang (2017), as the EIF authors' scripts run it (batch 1). Converges towards
    (H + damping * scale I)^-1 v where it converges.
    """
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
