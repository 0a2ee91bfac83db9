"""Influence functions by LiSSA, as the EIF authors' scripts run them (Koh and Liang, ICML 2017, section 3).

    I(x, P) = grad d(P)^T (H + lambda I)^-1 grad l(x),   lambda = damping * scale

H: Hessian of the mean training loss in the head's weight; the inverse is approximated by one pass over the
training set. Sign: > 0 harmful; the scripts store the negative. Unit: d per unit of a sample's weight in
the mean loss.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.curvature import hessian_of, hessian_product_z, sample_gradients
from deconfuse.attribution.head import Sides, Targets, Training, along, weight_gradient
from deconfuse.attribution.rows import of_every_process, part_rows, score_chunks
from deconfuse.attribution.solving import residuals, say_residuals
from deconfuse.system.errors import UserError, at_least, count

BLOCK_BYTES = 256 * 2**20  # of right sides solved side by side
SOLVED = 1e-3  # the relative residual that influence=if asks for; the warning compares with it


def scores(
    training: Training,
    targets: Targets,
    *,
    damping: float = 0.01,
    scale: float = 500.0,
    batch: int = 1,
) -> Float[Tensor, "g n"]:
    """LiSSA's influence of every training sample on every group.

    damping: LiSSA's own, so lambda = damping * scale. batch: samples per step of the recursion. Prints the
    largest relative residual of the solves. Raises UserError where the recursion diverges.
    """
    value = at_least("influence.damping", damping, 0) * at_least("influence.scale", scale, 1e-12)
    count("influence.batch", batch, 1)
    gradients, hessian = sample_gradients(training), hessian_of(training)
    found: list[float] = []

    def product(x: Tensor) -> Tensor:
        return hessian(x) + value * x

    def score(sides: Sides) -> Callable[[slice, Training], Tensor]:
        v = weight_gradient(training, sides)
        x = lissa(training, v, scale, damping, batch)
        found.extend(residuals(product, x, v))
        return lambda rows, part: along(part, gradients[rows], x)

    wide = 6 * training.weight.nbytes + 3 * part_rows(training) * gradients[:1].nbytes  # of one right side
    result = score_chunks(training, targets, "if, lissa", score, max(1, BLOCK_BYTES // wide))
    say_residuals("lissa", found, SOLVED, ", or use influence=if")
    return result


def lissa(
    training: Training, v: Float[Tensor, "b m D"], scale: float, damping: float, batch: int, epochs: int = 1
) -> Float[Tensor, "b m D"]:
    """h <- v + (1 - damping) h - H_batch h / scale over batches in data set order, then h / scale.

    Converges towards (H + damping * scale I)^-1 v where it converges. Each step needs the one before, so
    every one of several processes passes over the training set of all.
    """
    training = of_every_process(training)
    n, h = len(training), v.clone()
    for _ in range(epochs):
        for start in range(0, n, batch):
            rows = slice(start, start + batch)
            phi, z = training.some(rows)  # (t, D), (t, m)
            t, labels = len(phi), training.labels[rows]
            s = torch.einsum("bmd,td->btm", h, phi)
            bent = hessian_product_z(
                training, z.repeat(len(v), 1), s.flatten(0, 1), labels.repeat(len(v))
            ).view_as(s)
            h = v + (1 - damping) * h - torch.einsum("btm,td->bmd", bent, phi) / (t * scale)
            if not torch.isfinite(h).all():
                raise UserError(
                    f"LiSSA diverged at sample {start}; raise influence.scale (now {scale:g}) above the "
                    "largest eigenvalue of a sample's Hessian, or use influence=if"
                )
    return h / scale
