"""Influence functions for metric learning (Eq. 4 of Liu et al., after Koh and Liang, ICML 2017).

    I(x, P) = grad d(P)^T (H + lambda I)^-1 grad l(x)

H: Hessian of the mean training loss in what is attributed, the head's weight or more. This is the
negative of Eq. 4, so that it has the project's sign: > 0 harmful, as giving x more weight moves theta by
-(H + lambda I)^-1 grad l(x), which then shrinks d. Unit: d per unit of a sample's weight in the mean
loss, so leaving the sample out changes d by score / n.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.curvature import explicit, hessian_of, sample_gradients
from deconfuse.attribution.head import Sides, Targets, Training, along, weight_gradient
from deconfuse.attribution.kronecker import fit
from deconfuse.attribution.network import Network, score_groups
from deconfuse.attribution.rows import part_rows, score_chunks
from deconfuse.attribution.solving import conjugate_gradient, damping_of, residuals, say_residuals
from deconfuse.system.errors import UserError, at_least, count, one_of
from deconfuse.system.linear_algebra import factorise
from deconfuse.training.recipe import Record
from deconfuse.unrolling.damping import PLAN, chosen
from deconfuse.unrolling.subsets import SubsetRetraining

BLOCK_BYTES = 256 * 2**20  # of right sides solved side by side
NETWORK_LANCZOS = 12  # vectors as long as theta, held at once
ADVICE = " or influence.solver.max_products"  # of the warning about what is not solved


@dataclass(frozen=True)
class Solver:
    """How (H + lambda I) x = v is solved.

    kind: cg, conjugate gradients until the relative residual is at most `tolerance`, with at most
    `max_products` Hessian-vector products, on the head preconditioned with EKFAC factors; or explicit, which
    inverts H + lambda I as a matrix, for small heads.
    """

    kind: str = "cg"
    tolerance: float = 1e-3
    max_products: int = 100

    def __post_init__(self):
        one_of("influence.solver.kind", self.kind, ("cg", "explicit"))
        at_least("influence.solver.tolerance", self.tolerance, 1e-12)
        count("influence.solver.max_products", self.max_products, 1)


def scores(
    training: Training | Network,
    targets: Targets,
    *,
    solver: Solver = Solver(),
    damping: float | str = 1e-2,
    auto: SubsetRetraining = PLAN,
    seed: int = 0,
    record: Record | None = None,
) -> Float[Tensor, "g n"]:
    """IF of every training sample on every group.

    damping: lambda in units of H's largest eigenvalue, or auto, by trainings as `auto` and record describe
    them. seed: of the estimates of H's eigenvalues, and of the labels drawn for the EKFAC factors. Prints the
    largest relative residual of the solves. Raises UserError for kind=explicit where theta is more than the
    head, or where the head is too large.
    """
    if not isinstance(solver, Solver):
        raise UserError(
            f"influence.solver={solver} is not a group of keys; give influence.solver.kind=cg, or explicit"
        )
    if isinstance(training, Network):
        if solver.kind != "cg":
            raise UserError(
                f"influence.solver.kind={solver.kind} works with params=head; use influence.solver.kind=cg"
            )
        return _of_network(training, targets, solver, damping, seed)

    def score_by(side: Training, some: Targets, value: float) -> Tensor:
        return scores(side, some, solver=solver, damping=value, seed=seed)

    damping = chosen(damping, training, targets, auto, record, score_by)
    gradients, hessian = sample_gradients(training), hessian_of(training)
    value, _ = damping_of(hessian, training.weight, damping, seed)
    found: list[float] = []

    def product(x: Tensor) -> Tensor:
        return hessian(x) + value * x

    solve = _solve(training, product, value, solver, seed)

    def score(sides: Sides) -> Callable[[slice, Training], Tensor]:
        v = weight_gradient(training, sides)
        x = solve(v)
        found.extend(residuals(product, x, v))
        return lambda rows, part: along(part, gradients[rows], x)

    wide = 6 * training.weight.nbytes + 3 * part_rows(training) * gradients[:1].nbytes  # of one right side
    result = score_chunks(training, targets, f"if, {solver.kind}", score, max(1, BLOCK_BYTES // wide))
    say_residuals(solver.kind, found, solver.tolerance, ADVICE)
    return result


def _solve(
    training: Training, product: Callable[[Tensor], Tensor], damping: float, solver: Solver, seed: int
) -> Callable[[Float[Tensor, "b m D"]], Float[Tensor, "b m D"]]:
    """v -> (H + damping I)^-1 v on the head; product: with that matrix."""
    if solver.kind == "explicit":
        h = explicit(training)
        damped = h + damping * torch.eye(len(h), dtype=h.dtype, device=h.device)
        fix = f"raise influence.damping (lambda is {damping:.3g} now), or take influence.solver.kind=cg"
        what = "influence.solver.kind=explicit, the damped Hessian"
        inverse = factorise(torch.linalg.inv, damped, what, fix)
        return lambda v: (v.flatten(1) @ inverse).view_as(v)
    helper = partial(fit(training, seed).solve, damping=damping) if damping > 0 else None
    return lambda v: conjugate_gradient(product, v, solver.tolerance, solver.max_products, helper)


def _of_network(
    network: Network, targets: Targets, solver: Solver, damping: float, seed: int
) -> Float[Tensor, "g n"]:
    """IF where theta is more than the head; each product of the solve passes all training samples."""

    def hessian(x: Tensor) -> Tensor:
        return network.hessian_product(x[0, 0])[None, None]

    value, _ = damping_of(hessian, network.theta[None], damping, seed, most=NETWORK_LANCZOS)
    found: list[float] = []

    def product(x: Tensor) -> Tensor:
        return hessian(x) + value * x

    def score(i: int) -> Tensor:
        v = network.distance_gradient(network.theta, *network.sides(targets, i))[None, None]
        x = conjugate_gradient(product, v, solver.tolerance, solver.max_products)
        found.extend(residuals(product, x, v))
        return network.along(x[0, 0])

    result = score_groups(network, targets, "if, cg", score)
    say_residuals("cg", found, solver.tolerance, ADVICE)
    return result
