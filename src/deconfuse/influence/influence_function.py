"""Influence functions for metric learning (Eq. 4 of Liu et al., after Koh and Liang, ICML 2017).

    I(x, P) = grad d(P)^T (H + lambda I)^-1 grad l(x)

H: Hessian of the mean training loss in what is attributed, the head's weight or more. This is the
negative of Eq. 4, so that it has the project's sign: > 0 harmful, as giving x more weight moves theta by
-(H + lambda I)^-1 grad l(x), which then shrinks d. Unit: d per unit of a sample's weight in the mean
loss, so leaving the sample out changes d by score / n.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.curvature import (
    conjugate_gradient,
    damping_of,
    explicit,
    hessian_of,
    lissa,
    sample_gradients,
)
from deconfuse.attribution.head import Sides, Targets, Training, along, score_chunks, weight_gradient
from deconfuse.attribution.kronecker import fit
from deconfuse.attribution.linear_algebra import factorise
from deconfuse.attribution.network import Network, score_groups
from deconfuse.system.errors import UserError, at_least, count, flag, one_of
from deconfuse.system.progress import console

BLOCK_BYTES = 256 * 2**20  # of right sides solved side by side
WHOLE_LANCZOS = 12  # vectors as long as theta, held at once


def scores(
    training: Training | Network,
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
    relative residual of the solves. Raises UserError for another solver than cg where theta is more than
    the head.
    """
    one_of("influence.solver", solver, ("cg", "explicit", "lissa"))
    count("influence.max_products", max_products, 1)
    count("influence.batch", batch, 1)
    flag("influence.precondition", precondition)
    if isinstance(training, Network):
        if solver != "cg":
            raise UserError(f"influence.solver={solver} works with params=head; use influence.solver=cg")
        return _whole(training, targets, damping, damping_unit, tolerance, max_products, seed)
    at_least("influence.tolerance", tolerance, 1e-12)
    gradients, hessian = sample_gradients(training), hessian_of(training)
    if solver == "lissa":
        value = at_least("influence.damping", damping, 0) * at_least("influence.scale", scale, 1e-12)
    else:
        value, _ = damping_of(hessian, training.weight, damping, damping_unit, seed)
    inverse = _inverse(training, value) if solver == "explicit" else None

    def product(x: Tensor) -> Tensor:
        return hessian(x) + value * x

    helper = None
    if solver == "cg" and precondition and value > 0:
        helper = partial(fit(training, seed).solve, damping=value)

    def solve(v: Tensor) -> Tensor:
        if solver == "lissa":
            return lissa(training, v, scale, damping, batch)
        if solver == "explicit":
            return (v.flatten(1) @ inverse).view_as(v)
        return conjugate_gradient(product, v, tolerance, max_products, helper)

    residuals: list[float] = []

    def score(sides: Sides) -> Callable[[slice, Training], Tensor]:
        v = weight_gradient(training, sides)
        x = solve(v)
        residuals.extend(_residuals(product, x, v))
        return lambda rows, part: along(part, gradients[rows], x)

    rows = training.part_rows * gradients[:1].nbytes
    wide = 6 * training.weight.nbytes + 3 * rows  # of one right side, while it is solved
    result = score_chunks(training, targets, f"if, {solver}", score, chunk or max(1, BLOCK_BYTES // wide))
    _say(solver, residuals, tolerance)
    return result


def _residuals(product: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> list[float]:
    """||A x - v|| / ||v|| of each right side."""
    norms = v.norm(dim=(1, 2)).clamp_min(1e-30)
    return ((product(x) - v).norm(dim=(1, 2)) / norms).tolist()


def _say(solver: str, residuals: list[float], tolerance: float) -> None:
    """How well the systems were solved; a warning where some were not."""
    if not residuals:
        return
    console.print(f"solved with {solver}: largest relative residual {max(residuals):.2g}")
    open_ = sum(not value <= 10 * tolerance for value in residuals)
    nothing = sum(value == 1 for value in residuals) if solver == "cg" else 0  # x = 0 was never improved on
    if open_:
        console.print(
            f"warning: {open_} of {len(residuals)} explanations are not solved (tolerance {tolerance:g}), so "
            "their scores are those of another damping"
            + (f", and {nothing} of them not at all, with scores of 0" if nothing else "")
            + "; raise influence.damping"
            + (", or use influence.solver=cg" if solver == "lissa" else " or influence.max_products")
        )


def _whole(
    network: Network,
    targets: Targets,
    damping: float,
    damping_unit: str,
    tolerance: float,
    max_products: int,
    seed: int,
) -> Float[Tensor, "g n"]:
    """IF where theta is more than the head; each product of the solve passes all training samples."""

    def hessian(x: Tensor) -> Tensor:
        return network.hessian_product(x[0, 0])[None, None]

    like = network.theta[None]
    value, _ = damping_of(hessian, like, damping, damping_unit, seed, most=WHOLE_LANCZOS)
    residuals: list[float] = []

    def product(x: Tensor) -> Tensor:
        return hessian(x) + value * x

    def score(i: int) -> Tensor:
        v = network.distance_gradient(network.theta, *network.sides(targets, i))[None, None]
        x = conjugate_gradient(product, v, tolerance, max_products)
        residuals.extend(_residuals(product, x, v))
        return network.along(x[0, 0])

    result = score_groups(network, targets, "if, cg", score)
    _say("cg", residuals, tolerance)
    return result


def _inverse(training: Training, value: float) -> Float[Tensor, "mD mD"]:
    h = explicit(training)
    damped = h + value * torch.eye(len(h), dtype=h.dtype, device=h.device)
    fix = f"raise influence.damping (lambda is {value:.3g} now), or take influence.solver=cg"
    return factorise(torch.linalg.inv, damped, "influence.solver=explicit, the damped Hessian", fix)
