"""What lies where: a device's free memory, rows that come to it in parts, and exact arithmetic.

Features lie in mapped files. What fits into a device's memory is put there once (`placed`); what does not
goes through it in parts (`brought`), each copied while the device still computes with the one before.
"""

import gc
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

RESERVE = 0.25  # of a device's memory, left free for what is computed from the rows that lie there
Tensors = tuple[Tensor, ...]


def free_bytes(device: torch.device) -> float:
    """How many bytes of the device's memory this process can still take; infinite where nothing tells.

    Memory that torch holds in its cache counts as free.
    """
    if device.type != "cuda":
        return float("inf")
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def total_bytes(device: torch.device) -> float:
    """The size of the device's memory; infinite where nothing tells."""
    return float(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else float("inf")


def fits(nbytes: int, device: torch.device) -> bool:
    """True if so many bytes can lie on the device and RESERVE of its memory remains free."""
    free = free_bytes(device)
    return free == float("inf") or nbytes + RESERVE * total_bytes(device) <= free


def placed(rows: Tensor, device: torch.device) -> Tensor:
    """The rows on the device if they fit there, else where they are."""
    if rows.device.type == device.type or not fits(rows.nbytes, device):
        return rows
    return rows.to(device)


def brought(parts: Iterable[Tensors], device: torch.device) -> Iterator[Tensors]:
    """Each part, on the device; used by the time that the next one is asked for.

    On a CUDA device the rows of a part are copied to page-locked memory and from there on a stream of their
    own, while the device computes what was asked of the part before.
    """
    if device.type != "cuda":
        for part in parts:
            yield tuple(each.to(device) for each in part)
        return
    stream = torch.cuda.Stream(device)
    for part in parts:
        with torch.cuda.stream(stream):
            moved = tuple(each if each.is_cuda else _sent(each, device) for each in part)
        now = torch.cuda.current_stream(device)
        now.wait_stream(stream)
        for each in moved:
            each.record_stream(now)
        yield moved


def _sent(rows: Tensor, device: torch.device) -> Tensor:
    return rows.contiguous().pin_memory().to(device, non_blocking=True)


def release(device: torch.device) -> None:
    """Give what torch holds in its cache back to the device, after unreachable tensors are collected."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def exact() -> Iterator[None]:
    """float32 products and convolutions without TF32, which keeps 10 of a factor's 23 bits.

    It serves as a decorator too: every function that computes scores, distances or solves has it.
    """
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    as_is = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    torch.set_float32_matmul_precision("highest")
    try:
        with cudnn.flags(**as_is, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


# Lightning's words for mixed precision, and the type that products and convolutions then have.
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def mixed(precision: str | int | None, device: torch.device) -> AbstractContextManager:
    """What a forward pass is in for Lightning's trainer.precision: autocast where that is mixed."""
    kind = MIXED.get(str(precision))
    return nullcontext() if kind is None else torch.autocast(device.type, dtype=kind)
