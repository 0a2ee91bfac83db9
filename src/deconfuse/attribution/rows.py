"""The rows of a training side: which of them are this process's, and how many are looked at at once.

Of several processes each holds a shard of the training set, its own rows. What is summed over all samples is
summed over the shard and passed through `total`. Where the rows of a side are too many for memory, `parts`
yields a few at a time, each part with a training side of its own.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Sides, Targets, Training, chunk_size, chunks
from deconfuse.attribution.scores import blocks, room
from deconfuse.retrieval.directions import unit
from deconfuse.system import distributed
from deconfuse.system.arrays import let_go
from deconfuse.system.progress import track

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


def part_rows(training: Training) -> int:
    """How many rows a part has, at least 1: as many as PART_BYTES hold, and at most PART_ROWS."""
    wide = max(*training.weight.shape, len(getattr(training.loss, "proxies", ())))
    return max(1, min(len(training), PART_ROWS, PART_BYTES // (wide * training.weight.dtype.itemsize)))


def parts(training: Training) -> Iterator[tuple[slice, Training]]:
    """(rows, the side of these rows), in order.

    What is derived from a part, such as z, is freed with the part, so it is never held for all rows. If one
    part is enough, that part is the side itself, which keeps what was derived from it before.
    """
    step = part_rows(training)
    if step >= len(training):
        yield slice(0, len(training)), training
        return
    for start in range(0, len(training), step):
        rows = slice(start, min(start + step, len(training)))
        some = {"features": training.features[rows], "labels": training.labels[rows]}
        yield rows, replace(training, **some, start=training.start + start)
        let_go(training.features.data_ptr())


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
    n = len(training)
    size = size or chunk_size(targets, part_rows(training))
    result = room(len(targets), n, training.weight.dtype, training.weight.device, targets.folder)
    for sides in track(chunks(targets, n, size), f"influence ({what})", math.ceil(len(targets) / size)):
        of = score(sides)
        for rows, part in parts(training):
            result[sides.rows.start : sides.rows.stop, rows] = of(rows, part)
    return result


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
