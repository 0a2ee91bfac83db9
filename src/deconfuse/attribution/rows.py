"""The rows of a training side: which of them are this process's, and how many are looked at at once.

Of several processes each holds a shard of the training set, its own rows. What is summed over all samples is
summed over the shard and passed through `total`. Where the rows of a side are too many for memory, `parts`
yields a few at a time, each part with a training side of its own.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Sides, Targets, Training, chunk_size, chunks
from deconfuse.attribution.scores import blocks, room
from deconfuse.compute.placement import brought, release
from deconfuse.retrieval.directions import unit
from deconfuse.system import distributed
from deconfuse.system.arrays import let_go
from deconfuse.system.errors import UserError
from deconfuse.system.progress import console, track

PART_BYTES = 512 * 2**20  # of similarities, or features, of a part of the training set
PART_ROWS = 2**16  # the most rows that a part has; larger parts are not faster
NARROW = 1e-2  # variance of e below which EIF in float32 is off by more than 1e-4 of the largest score


def own(training: Training) -> Training:
    """This process's shard of the training set; the set itself where there is one process."""
    if distributed.world() == 1:
        return training
    rows = distributed.share(len(training))
    some = slice(rows.start, rows.stop)
    features, labels = training.features[some], training.labels[some]
    return replace(training, features=features, labels=labels, whole=training, start=rows.start)


def of_every_process(training: Training) -> Training:
    """The training set that a side is a shard of; the side itself if it is not a shard."""
    return training.whole or training


def place(training: Training) -> slice:
    """The rows of the whole training set that a side holds."""
    return slice(training.start, training.start + len(training))


def total(training: Training, part: Tensor) -> Tensor:
    """The sum over the whole training set of what was summed over a side's rows."""
    return part if training.whole is None else distributed.total(part)


def part_rows(training: Training, n: int | None = None) -> int:
    """How many of n rows a part has, at least 1: as many as PART_BYTES hold, and at most PART_ROWS.

    n: by default the side's number of rows.
    """
    n = len(training) if n is None else n
    wide = max(*training.weight.shape, len(getattr(training.loss, "proxies", ())))
    return max(1, min(n, PART_ROWS, PART_BYTES // (wide * training.weight.dtype.itemsize)))


def parts(training: Training, most: int | None = None) -> Iterator[tuple[slice, Training]]:
    """(rows, the side of these rows), in order, on the device of the weight.

    What is derived from a part, such as z, is freed with the part, so it is never held for all rows. If one
    part is enough, that part is the side itself, which keeps what was derived from it before. most: rows of a
    part; None: `part_rows`.
    """
    step, there = most or part_rows(training), training.weight.device
    if step >= len(training) and training.here:
        yield slice(0, len(training)), training
        return
    places = [slice(start, min(start + step, len(training))) for start in range(0, len(training), step)]
    moved = brought(((training.features[rows], training.labels[rows]) for rows in places), there)
    for rows, (features, labels) in zip(places, moved, strict=True):
        yield rows, replace(training, features=features, labels=labels, start=training.start + rows.start)
        let_go(training.features.data_ptr())


def whole_in_one(training: Training) -> bool:
    """True if `parts` yields the side itself: all its rows lie on the device and are one part."""
    return training.here and part_rows(training) >= len(training)


def projected(training: Training, features: Float[Tensor, "q D"]) -> Float[Tensor, "q m"]:
    """z = W phi + b of other samples' features, on the device of the weight."""
    weight = training.weight
    if features.device.type == weight.device.type:
        return F.linear(features, weight, training.bias)
    parts_ = ((part,) for part in features.split(part_rows(training, len(features))))
    some = brought(parts_, weight.device)
    return torch.cat([F.linear(part, weight, training.bias) for (part,) in some])


def weighted_sum(training: Training, r: Float[Tensor, "n k"]) -> Float[Tensor, "k D"]:
    """sum_k r_k phi_k^T over a side's rows; r is on the device of the weight."""
    return sum(r[rows].T @ part.features for rows, part in parts(training))


def embeddings(training: Training) -> Float[Tensor, "n m"]:
    """z of all rows, not normalised: what compares directions scales them itself, in float64."""
    weight = training.weight
    result = torch.empty(len(training), len(weight), dtype=weight.dtype, device=weight.device)
    for rows, part in parts(training):
        result[rows] = part.z
    return result


def is_narrow(training: Training) -> bool:
    """True if embeddings have nearly one direction: the variance of e, 1 - ||mean e||^2, is below NARROW.

    Cosines, losses and slopes then differ by so little that float32 holds few or none of their digits.
    """
    mean = sum(unit(part.z, torch.float64).sum(0) for _, part in parts(training)) / len(training)
    return 1 - mean.square().sum().item() < NARROW


def in_float64(training: Training) -> Training:
    """The same side in float64, its features in memory; what follows from it has its type."""
    return replace(
        training,
        features=training.features.double(),
        weight=training.weight.double(),
        bias=training.bias.double(),
        loss=copy.deepcopy(training.loss).double(),
    )


def losses(training: Training) -> Float[Tensor, " n"]:
    """The loss of each row at W, in nats."""
    return torch.cat([part.losses for _, part in parts(training)])


def score_chunks(
    training: Training,
    targets: Targets,
    what: str,
    score: Callable[[Sides], Callable[[slice, Training], Float[Tensor, "b t"]]],
    size: int | None = None,
) -> Float[Tensor, "g n"]:
    """The scores of all groups on a side's rows, a chunk of groups and a part of the rows at a time.

    score: is called once for each chunk, and returns a function that is called with each part (the rows and
    their side) and returns that part's scores. size: groups in a chunk; None: as many as fit into memory.
    what: the method's name, which the progress bar shows.
    """
    n, device = len(training), training.weight.device
    size = size or chunk_size(targets, part_rows(training))
    result = room(len(targets), n, training.weight.dtype, device, targets.folder)
    least = Least(size, part_rows(training))

    def attempt(sides: Sides) -> None:
        if len(sides.rows) > least.groups:
            for some in sides.split(least.groups):
                attempt(some)
            return
        try:
            of = score(sides)
            for rows, part in parts(training, least.rows):
                result[sides.rows.start : sides.rows.stop, rows] = of(rows, part)
        except torch.OutOfMemoryError:
            again = least.halve(len(sides.rows))
        else:
            return
        if not again:
            raise UserError(
                f"influence ({what}): the memory of {device} is too small for one explanation; take "
                "trainer.accelerator=cpu, or a device with more memory"
            )
        release(device)
        attempt(sides)

    for sides in track(
        chunks(targets, n, size, device), f"influence ({what})", math.ceil(len(targets) / size)
    ):
        attempt(sides)
    return result


@dataclass
class Least:
    """How many groups and rows are looked at at once: fewer after each time that memory was too small."""

    groups: int
    rows: int
    said: bool = False

    def halve(self, groups: int) -> bool:
        """Halve the groups, or the rows where there is one group; False where both are one already."""
        if groups == 1 and self.rows == 1:
            return False
        if groups > 1:
            self.groups = groups // 2
        else:
            self.rows //= 2
        if not self.said:
            console.print("the device's memory is too small for so much at once; going on in smaller parts")
        self.said = True
        return True


def of_all(shard: Float[Tensor, "g k"], n: int, folder: Path, dtype: torch.dtype) -> Float[Tensor, "g n"]:
    """The scores of the rows of all processes, rounded to dtype, from those of this process's shard.

    They are exchanged a block of explanations at a time; scores that exceed memory lie in the folder, in each
    process.
    """
    if distributed.world() == 1 and shard.dtype == dtype:
        return shard
    result, start = room(len(shard), n, dtype, shard.device, folder), 0
    for block in blocks(result):
        block.copy_(distributed.joined(shard[start : start + len(block)].T.contiguous()).T)
        start += len(block)
    return result
