"""Influence scores (e, n), which may exceed memory: their storage, and sums over them in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.system.arrays import scratch

HELD_BYTES = 256 * 2**20  # of scores at most are held in memory; larger arrays are on the disk
BLOCK_BYTES = 32 * 2**20  # of scores on the disk are read at once


def room(
    e: int, n: int, dtype: torch.dtype, device: torch.device, folder: Path | None
) -> Float[Tensor, "e n"]:
    """Zeros on the device; beyond HELD_BYTES in an unnamed file in the folder, unless folder is None."""
    if folder is None or e * n * dtype.itemsize <= HELD_BYTES:
        return torch.zeros(e, n, dtype=dtype, device=device)
    return torch.from_numpy(scratch(folder, (e, n), torch.empty(0, dtype=dtype).numpy().dtype))


def blocks(scores: Float[Tensor, "e n"]) -> Iterator[Float[Tensor, "s n"]]:
    """The scores in order, in blocks of explanations of at most BLOCK_BYTES."""
    _, n = scores.shape
    yield from scores.split(max(1, BLOCK_BYTES // max(1, n * scores.dtype.itemsize)))


@dataclass(frozen=True)
class Acting:
    """Each training sample's scores over all explanations; NaN if there are no explanations.

    mean: of the scores; absolute: the mean of |score|; harmful: the share of explanations with a score > 0.
    """

    mean: Float[Tensor, " n"]
    absolute: Float[Tensor, " n"]
    harmful: Float[Tensor, " n"]


def acting(scores: Float[Tensor, "e n"]) -> Acting:
    """The means over explanations; scores that are on the disk are summed block by block in float64."""
    if scores.numel() * scores.dtype.itemsize <= HELD_BYTES:
        return Acting(scores.mean(0), scores.abs().mean(0), (scores > 0).float().mean(0))
    totals = torch.zeros(3, scores.shape[1], dtype=torch.float64, device=scores.device)
    for block in blocks(scores):
        totals[0] += block.sum(0, dtype=torch.float64)
        totals[1] += block.abs().sum(0, dtype=torch.float64)
        totals[2] += (block > 0).sum(0)
    return Acting(*(totals / len(scores)).to(scores.dtype))


def columns(
    scores: Float[Tensor, "e n"], rows: Int[Tensor, " k"] | None, folder: Path | None
) -> Float[Tensor, "e k"]:
    """The scores of some samples, copied; all, as they are, for None."""
    if rows is None:
        return scores
    found, start = room(len(scores), len(rows), scores.dtype, scores.device, folder), 0
    for block in blocks(scores):
        found[start : start + len(block)] = block[:, rows.to(block.device)]
        start += len(block)
    return found


def among_all(
    scores: Float[Tensor, "e k"], rows: Int[Tensor, " k"] | None, n: int, folder: Path | None
) -> Float[Tensor, "e n"]:
    """The scores of some samples in their places among n, where all others score 0; rows is None for all."""
    if rows is None:
        return scores
    found, start = room(len(scores), n, scores.dtype, scores.device, folder), 0
    for block in blocks(scores):
        found[start : start + len(block)][:, rows.to(block.device)] = block
        start += len(block)
    return found


def unscored(scores: Float[Tensor, "e n"]) -> int:
    """The number of explanations whose scores are all 0, which explain nothing."""
    return sum(int((~block.any(1)).sum()) for block in blocks(scores))


def unsound(scores: Float[Tensor, "e n"]) -> int:
    """The number of explanations with a score that is not finite."""
    return sum(int((~torch.isfinite(block)).any(1).sum()) for block in blocks(scores))
