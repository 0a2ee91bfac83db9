"""Influence functions with an EKFAC curvature (Grosse et al., 2023, section 2.2) on the head.

    I(x, P) = grad d(P)^T (F + lambda I)^-1 grad l(x)

F: the Fisher matrix in eigenvalue-corrected Kronecker form, positive semi-definite, inverted in closed
form. Sign: > 0 harmful. Unit: d per unit of a sample's weight in the mean loss,
divided by the length of the move in W if `relative`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.curvature import sample_gradients
from deconfuse.attribution.head import Sides, Targets, Training, along, weight_gradient
from deconfuse.attribution.kronecker import fit
from deconfuse.attribution.rows import part_rows, parts, score_chunks
from deconfuse.system.errors import at_least
from deconfuse.training.recipe import Record
from deconfuse.unrolling.damping import PLAN, chosen
from deconfuse.unrolling.subsets import SubsetRetraining

BLOCK_BYTES = 256 * 2**20  # of gradients of d solved side by side


def scores(
    training: Training,
    targets: Targets,
    *,
    damping: float | str = 1e-2,
    auto: SubsetRetraining = PLAN,
    relative: bool = False,
    seed: int = 0,
    record: Record | None = None,
) -> Float[Tensor, "g n"]:
    """EKFAC influence of every training sample on every group.

    damping: in units of F's largest eigenvalue, or auto, by trainings as `auto` and record describe them.
    relative: divide by ||(F + lambda I)^-1 grad l(x)||, theta-RelatIF (Barshan et al., AISTATS 2020, eq. 9):
    the influence per unit of length that the sample moves W, so that outliers do not lead every list.
    """

    def score_by(side: Training, some: Targets, value: float) -> Tensor:
        return scores(side, some, damping=value, relative=relative, seed=seed)

    damping = chosen(damping, training, targets, auto, record, score_by)
    at_least("influence.damping", damping, 1e-9)
    gradients, factors = sample_gradients(training), fit(training, seed)
    value = factors.damping(damping)
    norms = None
    if relative:
        squared = [
            factors.squared_norms(gradients[rows], part.features, value) for rows, part in parts(training)
        ]
        norms = torch.cat(squared).sqrt()

    def score(sides: Sides) -> Callable[[slice, Training], Tensor]:
        x = factors.solve(weight_gradient(training, sides), value)

        def of(rows: slice, part: Training) -> Tensor:
            found = along(part, gradients[rows], x)
            return found if norms is None else torch.where(norms[rows] > 0, found / norms[rows], 0.0)

        return of

    wide = 4 * training.weight.nbytes + part_rows(training) * gradients[:1].nbytes  # of one group
    return score_chunks(training, targets, "ekfac", score, max(1, BLOCK_BYTES // wide))
