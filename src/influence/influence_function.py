"""Influence functions for metric learning (Eq. 4 of Liu et al., after Koh and Liang, ICML 2017).

    I(x, P) = grad d(P)^T (H + lambda I)^-1 grad l(x)

H: Hessian of the mean training loss in the head's weight. This is the negative of Eq. 4, so that it has
the project's sign: > 0 harmful, as giving x more weight moves the head by -(H + lambda I)^-1 grad l(x),
which then shrinks d. Unit: d per unit of a sample's weight in the mean loss (n times its weight).
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from src.curvature import bend_of, conjugate_gradient, damping_of, explicit, gradient_z, hvp, lissa
from src.errors import count, flag, one_of
from src.head import Sides, Targets, Training, along, score_chunks, weight_gradient
from src.kronecker import fit
from src.progress import console

BLOCK_BYTES = 256 * 2**20  # of right sides solved side by side


def scores(
    training: Training,
    targets: Targets,
    *,
    solver: str = "cg",
    damping: float = 1e-2,
    damping_unit: str = "relative",
    tolerance: float = 1e-3,
    max_products: int = 100,
    precondition: bool = True,
    scale: float = 500.0,
    batch: int = 1,
    seed: int = 0,
    chunk: int | None = None,
) -> Float[Tensor, "g n"]:
    """IF of every training sample on every group.

    solver: cg (until the residual is below tolerance; `precondition` helps it with EKFAC factors),
    explicit (H as a matrix, small heads) or lissa (one pass; damping is then LiSSA's own: lambda =
    damping * scale). damping_unit: relative, to H's largest eigenvalue, or absolute. Says the largest
    relative residual of the solves.
    """
    one_of("influence.solver", solver, ("cg", "explicit", "lissa"))
    count("influence.max_products", max_products, 1)
    count("influence.batch", batch, 1)
    flag("influence.precondition", precondition)
    gradients, bend = gradient_z(training, training.z), bend_of(training)
    value = damping * scale if solver == "lissa" else damping_of(training, damping, damping_unit, seed)[0]
    inverse = _inverse(training, value) if solver == "explicit" else None

    def product(x: Tensor) -> Tensor:
        return hvp(training, x, bend) + value * x

    helper = None
    if solver == "cg" and precondition and value > 0:
        helper = partial(fit(training, seed).solve, damping=value)

    def solve(v: Tensor) -> Tensor:
        if solver == "lissa":
            return lissa(training, v, scale, damping, batch)
        if solver == "explicit":
            return (v.flatten(1) @ inverse).view_as(v)
        return conjugate_gradient(product, v, tolerance, max_products, helper)

    worst = 0.0

    def score(sides: Sides) -> Tensor:
        nonlocal worst
        v = weight_gradient(training, sides)
        x = solve(v)
        norms = v.norm(dim=(1, 2)).clamp_min(1e-30)
        worst = max(worst, ((product(x) - v).norm(dim=(1, 2)) / norms).max().item())
        return along(training, gradients, x)

    wide = 6 * training.weight.nbytes + 3 * training.z.nbytes  # of one right side, while it is solved
    result = score_chunks(training, targets, f"if, {solver}", score, chunk or max(1, BLOCK_BYTES // wide))
    if len(targets):
        console.print(f"solved with {solver}: largest relative residual {worst:.2g}")
    return result


def _inverse(training: Training, value: float) -> Float[Tensor, "mD mD"]:
    h = explicit(training)
    return torch.linalg.inv(h + value * torch.eye(len(h), dtype=h.dtype, device=h.device))
