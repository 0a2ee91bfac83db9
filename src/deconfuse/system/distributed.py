"""Several processes do one job: which rows are whose, and how their parts are put together.

All processes go through the same steps in the same order, as each function here waits for all of them. In a
process on its own every one of them is the identity. What joins the processes is torch.distributed's default
group: gloo on processors, NCCL on GPUs.
"""

from collections.abc import Callable, Iterable, Iterator
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
    """How many processes do this job."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if _joined() else 0


def first() -> bool:
    """True in the process that writes and speaks."""
    return rank() == 0


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def share(n: int, size: int = 1) -> range:
    """The rows of n that are this process's: a block of whole batches of `size`, so that every batch is one
    that a process on its own would have; empty where there are fewer batches than processes."""
    batches, parts = -(-n // size), world()
    start, stop = (min(batches * i // parts * size, n) for i in (rank(), rank() + 1))
    return range(start, stop)


def joined(part: Shaped[Tensor, "k *d"]) -> Shaped[Tensor, "n *d"]:
    """The parts of all processes, one after the other; they may differ in length."""
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
    """Row i of the result is the one that some process has as row i; what two have is kept once.

    Raises ValueError where a row is nobody's.
    """
    places, found = joined(rows), joined(part)
    missing = n - len(places.unique())
    if missing:
        raise ValueError(f"{missing} of {n} rows were found by no process")
    result = found.new_empty(n, *part.shape[1:])
    result[places.to(found.device)] = found
    return result


def in_turn(mine: Iterable[Shaped[Tensor, "k *d"]]) -> Iterator[Shaped[Tensor, "k *d"]]:
    """The batches of all processes, one process's after the other's; each holds its own until its turn."""
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
    """The sum over all processes."""
    if world() == 1:
        return part
    there = _there(part).clone()
    dist.all_reduce(there)
    return there.to(part.device)


def _there(part: Tensor) -> Tensor:
    """Where the group can send it from."""
    return part.detach().cuda() if dist.get_backend() == "nccl" else part.detach()


def told(make: Callable[[], T]) -> T:
    """What the first process makes; the others are told."""
    if world() == 1:
        return make()
    value = [make() if first() else None]
    dist.broadcast_object_list(value)
    return value[0]


def agreed(value: T, what: str) -> T:
    """The value; raises UserError in every process where they do not all have the same.

    what: the value, in words, for the message.
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
    """Until all processes are here."""
    total(torch.zeros(1))


def mine_to_say() -> bool:
    """True in the first process to ask: what several of them meet is said once. Before they have joined, in
    the first one that torchrun started."""
    if not _joined():
        return started_first()
    return dist.distributed_c10d._get_default_store().add("said", 1) == 1
