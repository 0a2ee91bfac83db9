"""The process group of a job: which rows each process has, and how results are gathered, summed and shared.

All processes take the same steps in the same order, as each function here waits for all of them. Without a
group, in a process of its own, every function returns what it is given. The group is torch.distributed's
default group: gloo on processors, NCCL on GPUs.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Int, Shaped
from torch import Tensor

from deconfuse.system.errors import UserError
from deconfuse.system.progress import started_first

T = TypeVar("T")


def world() -> int:
    """The number of processes of this job."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _joined() else 0


def first() -> bool:
    """True in the process that writes files and prints."""
    return rank() == 0


_alone: list[bool] = []  # one entry for each `alone` that is in force


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works as if there were no others, which wait elsewhere."""
    _alone.append(True)
    try:
        yield
    finally:
        _alone.pop()


def _joined() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()


def share(n: int, size: int = 1) -> range:
    """This process's rows of n: a block of whole batches of `size`.

    So every batch is one that a single process would have. Empty if there are fewer batches than processes.
    """
    batches, parts = -(-n // size), world()
    start, stop = (min(batches * i // parts * size, n) for i in (rank(), rank() + 1))
    return range(start, stop)


def joined(part: Shaped[Tensor, "k *d"]) -> Shaped[Tensor, "n *d"]:
    """The parts of all processes, concatenated in the order of the processes; their lengths may differ."""
    if world() == 1:
        return part
    there = _there(part)
    length = torch.tensor([len(part)], device=there.device)
    lengths = [torch.empty_like(length) for _ in range(world())]
    dist.all_gather(lengths, length)
    longest = max(map(int, lengths))
    padded = F.pad(there, [0, 0] * (part.ndim - 1) + [0, longest - len(part)]).contiguous()
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([one[: int(k)] for one, k in zip(parts, lengths, strict=True)]).to(part.device)


def by_row(part: Shaped[Tensor, "k *d"], rows: Int[Tensor, " k"], n: int) -> Shaped[Tensor, "n *d"]:
    """The n rows in order, from processes that each have some; a row that two processes have is kept once.

    rows: the places of the part's rows. Raises ValueError if no process has some row.
    """
    places, found = joined(rows), joined(part)
    missing = n - len(places.unique())
    if missing:
        raise ValueError(f"{missing} of {n} rows were found by no process")
    result = found.new_empty(n, *part.shape[1:])
    result[places.to(found.device)] = found
    return result


def in_turn(mine: Iterable[Shaped[Tensor, "k *d"]]) -> Iterator[Shaped[Tensor, "k *d"]]:
    """The batches of all processes, those of process 0 first; each process holds its own until its turn."""
    if world() == 1:
        yield from mine
        return
    own = list(mine)
    for process in range(world()):
        kinds: list = [[(batch.shape, batch.dtype) for batch in own] if process == rank() else None]
        dist.broadcast_object_list(kinds, src=process)
        for i, (shape, dtype) in enumerate(kinds[0]):
            there = _there(own[i] if process == rank() else torch.empty(shape, dtype=dtype))
            dist.broadcast(there, src=process)
            yield there.cpu()


def total(part: Tensor) -> Tensor:
    """The sum of the parts of all processes."""
    if world() == 1:
        return part
    there = _there(part).clone()
    dist.all_reduce(there)
    return there.to(part.device)


def _there(part: Tensor) -> Tensor:
    """The tensor on a device from which the group can send it."""
    return part.detach().cuda() if dist.get_backend() == "nccl" else part.detach()


def told(make: Callable[[], T]) -> T:
    """What `make` returns in the first process; the others receive it."""
    if world() == 1:
        return make()
    value = [make() if first() else None]
    dist.broadcast_object_list(value)
    return value[0]


def agreed(value: T, what: str) -> T:
    """Return the value; raises UserError in every process if their values differ.

    what: the name of the value, for the message.
    """
    if world() == 1:
        return value
    values: list = [None] * world()
    dist.all_gather_object(values, value)
    other = next((i for i, one in enumerate(values) if one != values[0]), None)
    if other is not None:
        raise UserError(
            f"process {other} has another {what} than process 0; all need the same files and the same words"
        )
    return value


def wait() -> None:
    """Wait until all processes have come here."""
    total(torch.zeros(1))


def mine_to_say() -> bool:
    """True in the first process that asks, so that an error which several processes meet is printed once.

    Before the group exists, it is True in the first process that torchrun started.
    """
    if not _joined():
        return started_first()
    return dist.distributed_c10d._get_default_store().add("said", 1) == 1
