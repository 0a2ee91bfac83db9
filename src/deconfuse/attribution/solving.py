"""Solving A x = v with a large symmetric matrix A = H + lambda I that is known by its products only."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.system.errors import at_least
from deconfuse.system.linear_algebra import factorise
from deconfuse.system.progress import console
from deconfuse.system.words import agree, many


@dataclass(frozen=True)
class Spectrum:
    """Estimates of a symmetric matrix's largest and smallest eigenvalue."""

    largest: float
    smallest: float


def spectrum(
    product: Callable[[Tensor], Tensor], like: Float[Tensor, "m D"], most: int = 30, seed: int = 0
) -> Spectrum:
    """Both ends of a symmetric matrix's spectrum by Lanczos with full reorthogonalisation.

    product: (1, m, D) -> (1, m, D); like: a tensor of the shape and type that the matrix acts on; most: the
    largest number of products; seed: of the first vector. After some ten products `largest` is accurate to a
    per cent; `smallest` is an upper bound of the smallest eigenvalue.
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
    seed: int = 0,
    most: int = 30,
) -> tuple[float, Spectrum]:
    """(lambda, spectrum): lambda is damping times H's largest eigenvalue.

    product, like, most: as in `spectrum`. Prints the spectrum and lambda, and a warning if H + lambda I is
    not positive definite.
    """
    at_least("influence.damping", damping, 0)
    ends = spectrum(product, like, most, seed)
    value = damping * ends.largest
    console.print(f"Hessian: eigenvalues from {ends.smallest:.3g} to {ends.largest:.3g}, damping {value:.3g}")
    if ends.smallest + value <= 0:
        console.print(
            "warning: the damped Hessian is indefinite, so its inverse turns some directions around; "
            f"raise influence.damping above {-ends.smallest / max(ends.largest, 1e-30):.2g}"
        )
    return value, ends


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    v: Float[Tensor, "b m D"],
    tolerance: float,
    most: int,
    precondition: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "b m D"]:
    """x with A x = v for b right sides side by side; `product` computes A v, A is positive definite.

    Stops when ||A x - v|| <= tolerance ||v|| for all right sides, or after `most` products. If A is not
    positive definite, a right side also stops at a direction of negative curvature. Each x returned is the
    iterate with the smallest residual.
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


def residuals(
    product: Callable[[Tensor], Tensor], x: Float[Tensor, "b m D"], v: Float[Tensor, "b m D"]
) -> list[float]:
    """||A x - v|| / ||v|| of each right side."""
    norms = v.norm(dim=(1, 2)).clamp_min(1e-30)
    return ((product(x) - v).norm(dim=(1, 2)) / norms).tolist()


def say_residuals(kind: str, found: list[float], tolerance: float, advice: str) -> None:
    """Print the largest relative residual, and a warning if some are above 10 times the tolerance.

    kind: the solver. advice: what else than influence.damping to change, the end of the warning.
    """
    if not found:
        return
    console.print(f"solved with {kind}: largest relative residual {max(found):.2g}")
    open_ = sum(not value <= 10 * tolerance for value in found)
    nothing = sum(value == 1 for value in found) if kind == "cg" else 0  # no step improved on x = 0
    if open_:
        console.print(
            f"warning: {open_} of {many(len(found), 'explanation')} {agree(open_)} not solved (tolerance "
            f"{tolerance:g}), so their scores are those of another damping"
            + (f", and {nothing} of them not at all, with scores of 0" if nothing else "")
            + f"; raise influence.damping{advice}"
        )
