"""Influence scores (e, n), more than memory holds if need be: where they lie, what is summed over them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.system.arrays import scratch

HELD_BYTES = 256 * 2**20  # of scores in memory; more of them lie on the disk
BLOCK_BYTES = 32 * 2**20  # of those on the disk, looked at at once


def room(
    e: int, n: int, dtype: torch.dtype, device: torch.device, folder: Path | None
) -> Float[Tensor, "e n"]:
    """Zeros: on the device, or, beyond HELD_BYTES, in an unnamed file in the folder (None: never)."""
    if folder is None or e * n * dtype.itemsize <= HELD_BYTES:
        return torch.zeros(e, n, dtype=dtype, device=device)
    return torch.from_numpy(scratch(folder, (e, n), torch.empty(0, dtype=dtype).numpy().dtype))


def blocks(scores: Float[Tensor, "e n"]) -> Iterator[Float[Tensor, "s n"]]:
    """Some explanations at a time, in order."""
    _, n = scores.shape
    yield from scores.split(max(1, BLOCK_BYTES // max(1, n * scores.dtype.itemsize)))


@dataclass(frozen=True)
class Acting:
    """How each training sample acts on all that is explained; NaN where that is nothing.

    mean: of its scores; absolute: of their sizes; harmful: the share that is > 0.
    """

    mean: Float[Tensor, " n"]
    absolute: Float[Tensor, " n"]
    harmful: Float[Tensor, " n"]


def acting(scores: Float[Tensor, "e n"]) -> Acting:
    """The means over explanations; of so many that they come in blocks, summed in float64."""
    if scores.numel() * scores.dtype.itemsize <= HELD_BYTES:
        return Acting(scores.mean(0), scores.abs().mean(0), (scores > 0).float().mean(0))
    totals = torch.zeros(3, scores.shape[1], dtype=torch.float64, device=scores.device)
    for block in blocks(scores):
        totals[0] += block.sum(0, dtype=torch.float64)
        totals[1] += block.abs().sum(0, dtype=torch.float64)
        totals[2] += (block > 0).sum(0)
    return Acting(*(totals / len(scores)).to(scores.dtype))


def unscored(scores: Float[Tensor, "e n"]) -> int:
    """How many explanations have no score but 0, and so explain nothing."""
    return sum(int((~block.any(1)).sum()) for block in blocks(scores))


def unsound(scores: Float[Tensor, "e n"]) -> int:
    """How many explanations have a score that is not finite."""
    return sum(int((~torch.isfinite(block)).any(1).sum()) for block in blocks(scores))
