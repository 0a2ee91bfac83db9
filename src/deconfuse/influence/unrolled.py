"""The derivative of d after a training in each training sample's weight, through all steps of the training.

    I(x, P) = -n dd(P; theta_T) / dw_x

theta_T is the end of a training of the head in which sample x has weight w_x in every batch's loss (1 in the
training as it is), and in the start that is computed from the samples, by its own batches, rates and
optimizer. Where training converges, this is influence=if
at a minimum; it needs no minimum, no damping and no inverse. Sign: > 0 harmful: more weight on x brings the
confused pair closer. Unit: d per unit of a sample's weight in the mean loss, so leaving the sample out
changes d by score / n.
"""

import math
import time
from dataclasses import replace

import torch
from jaxtyping import Float
from rich.progress import Progress
from torch import Tensor

from deconfuse.attribution.head import Sides, Targets, Training, chunks, side_gradient
from deconfuse.attribution.rows import of_every_process, place
from deconfuse.attribution.scores import room
from deconfuse.system import distributed
from deconfuse.system.errors import UserError, one_of
from deconfuse.system.progress import bar, console
from deconfuse.system.words import many
from deconfuse.training.recipe import Record
from deconfuse.unrolling import derivative, plans
from deconfuse.unrolling.batch_loss import Parameters
from deconfuse.unrolling.descent import Descent, checkpoints, ends

THROUGH = ("retraining", "training", "steps", "descent")
EPOCH, STEPS, SMOOTH = plans.Epochs(), plans.FullBatch(), plans.Smooth()
BLOCK_BYTES = 256 * 2**20  # of adjoints that go back side by side
SLOW, TIMED = 2, 3  # seconds from which the time is said beforehand; steps that it is measured by


def scores(
    training: Training,
    targets: Targets,
    *,
    through: str = "retraining",
    retraining: plans.Epochs = EPOCH,
    descent: plans.FullBatch = STEPS,
    smooth: plans.Smooth = SMOOTH,
    record: Record | None = None,
) -> Float[Tensor, "g n"]:
    """The derivative of every group's d in the weight of every training sample.

    through: retraining, the epochs of Eq. 7 from the trained head, which move W alone; training, that of a
    head and its proxies on frozen features, with its start where recipe.whiten computes it from the samples;
    steps, the same from its start as it was; descent, the counterfactual check's full-batch steps. smooth:
    what the scores are averaged over. record: of the training that is repeated. Raises UserError where it
    cannot be repeated.
    """
    for key, given, kind in (
        ("retraining", retraining, plans.Epochs),
        ("descent", descent, plans.FullBatch),
        ("smooth", smooth, plans.Smooth),
    ):
        if not isinstance(given, kind):
            raise UserError(
                f"influence.{key}={given} is not a group of keys; the training is chosen by "
                f"influence.through, and influence.{key}.KEY=VALUE sets one of them"
            )
    one_of("influence.through", through, THROUGH)
    whole = of_every_process(training)
    if through == "descent":
        made = [plans.full_batch(whole, descent)]
    elif through != "retraining":
        first = plans.as_trained(whole, record, through=through, blur=smooth.blur)
        others = range(1, smooth.orders)
        made = [first, *(replace(first, batches=plans.drawn(whole, record, order)) for order in others)]
    else:
        made = [plans.again(whole, retraining, order) for order in range(smooth.orders)]
    mine = distributed.share(len(targets)) if training.whole is not None else range(len(targets))
    some = replace(targets, groups=targets.groups[mine.start : mine.stop])
    found = _mean(whole, some, made, record, through)
    return (found if training.whole is None else distributed.joined(found))[:, place(training)]


def _mean(
    training: Training, targets: Targets, descents: list[Descent], record: Record | None, through: str
) -> Float[Tensor, "g n"]:
    """The scores by each descent, averaged; record: of the training that the first of them may repeat."""
    n, weight = len(training), training.weight
    result = room(len(targets), n, weight.dtype, weight.device, targets.folder)
    size = chunk_size(training, descents[0])
    total = sum(map(len, descents)) * math.ceil(len(targets) / size)
    with bar() as progress:
        tick = Said(progress, total, len(descents[0]), len(targets))
        for descent in descents if len(targets) else ():
            kept, last = checkpoints(descent)
            after = ends(descent, last)
            if descent is descents[0] and through in ("training", "steps"):
                plans.check_end(record, descent.start, after, through)
            for sides in chunks(targets, n, size, weight.device):
                slopes = _end(training, descent, after, sides)
                found = derivative.weight_derivatives(descent, kept, slopes, tick)
                rows = slice(sides.rows.start, sides.rows.stop)
                result[rows] -= (found * (n / len(descents))).to(result)
    return result


class Said:
    """Advances a bar by a step back, and says after the first few how long all of them take."""

    def __init__(self, progress: Progress, total: int, steps: int, explanations: int):
        self.progress, self.total, self.done = progress, total, 0
        self.task = progress.add_task("influence (unrolled)", total=total, note="")
        self.what = f"back through {many(steps, 'step')} for {many(explanations, 'explanation')}"
        self.began = 0.0

    def __call__(self) -> None:
        """The end of a step."""
        self.progress.advance(self.task)
        self.done += 1
        if self.done == 1:  # the first one also allocates
            self.began = time.perf_counter()
        elif self.done == 1 + TIMED:
            left = (time.perf_counter() - self.began) / TIMED * (self.total - self.done)
            if left > SLOW:
                console.print(f"unrolled: {self.what}, some {left:.0f} seconds")


def chunk_size(training: Training, descent: Descent) -> int:
    """The number of groups whose adjoints go back side by side, such that they fit BLOCK_BYTES."""
    numbers = sum(
        (len(optimizer.begin(torch.zeros(1))) + 2) * descent.start[name].numel()
        for name, optimizer in descent.optimizers.items()
    )
    numbers += descent.start["weight"].numel() if descent.begun else 0
    batch = max(map(len, descent.batches), default=1)
    wide = 8 * batch * (len(training.weight) + len(getattr(training.loss, "proxies", ())))
    return max(1, BLOCK_BYTES // (training.weight.element_size() * (numbers + wide)))


def _end(training: Training, descent: Descent, after: Parameters, sides: Sides) -> Parameters:
    """The gradient of each group's d in the parameters that move, at the end of the training."""
    there = replace(training, weight=after["weight"][0], bias=after["bias"][0])
    g = side_gradient(there, sides)  # (b, r, m)
    found = {"weight": g.transpose(1, 2) @ sides.features, "bias": g.sum(1)}
    return {
        name: found.get(name, g.new_zeros(len(g), *descent.start[name].shape)) for name in descent.optimizers
    }
