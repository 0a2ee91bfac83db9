"""`exp_sums` on CUDA devices: a Triton kernel. Its tests run it in Triton's interpreter, on a processor.

A program computes a block of moves for a block of training samples. It reads each tile of s once for all its
moves, so the bytes of s are read b / MOVES times, mostly from the second-level cache; what remains is one
exponential, two products with reach and one with scale for each term.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MOVES, SAMPLES, PROXIES = 8, 8, 64  # of a program's tile: 4,096 terms, 32 for each of 128 threads


@triton.jit
def _kernel(
    similarity, reach, pull, scale, total, b, t, c, B: tl.constexpr, T: tl.constexpr, C: tl.constexpr
):
    rows = tl.program_id(0).to(tl.int64) * T + tl.arange(0, T)
    moves = tl.program_id(1).to(tl.int64) * B + tl.arange(0, B)
    inside = (moves < b)[:, None] & (rows < t)[None, :]
    place = moves[:, None] * t + rows[None, :]  # in scale and total; reach has two rows for each move
    both = moves[:, None] * 2 * t + rows[None, :]
    first = tl.load(reach + both, mask=inside, other=0.0)
    second = tl.load(reach + both + t, mask=inside, other=0.0)
    factor = tl.load(scale + place, mask=inside, other=0.0)
    found = tl.zeros((B, T), tl.float32)
    for start in range(0, c, C):
        columns = start + tl.arange(0, C)
        there = columns < c
        at = rows[:, None] * c + columns[None, :]
        near = tl.load(similarity + at, mask=(rows < t)[:, None] & there[None, :], other=0.0)
        at = moves[:, None] * 2 * c + columns[None, :]
        known = (moves < b)[:, None] & there[None, :]
        one = tl.load(pull + at, mask=known, other=0.0)
        other = tl.load(pull + at + c, mask=known, other=0.0)
        moved = first[:, :, None] * one[:, None, :] + second[:, :, None] * other[:, None, :]
        terms = tl.exp2((near[None, :, :] + moved) * factor[:, :, None])
        found += tl.sum(tl.where(there[None, None, :], terms, 0.0), axis=2)
    tl.store(total + place, found, mask=inside)


def sums(similarity: Tensor, reach: Tensor, pull: Tensor, scale: Tensor) -> Tensor:
    """The sums (b, t) of moves with two sides each, in float32; arguments as of `exp_sums.one_pass`."""
    b, t, c = len(reach), len(similarity), similarity.shape[1]
    total = torch.empty(b, t, dtype=torch.float32, device=similarity.device)
    grid = triton.cdiv(t, SAMPLES), triton.cdiv(b, MOVES)
    parts = (each.contiguous() for each in (similarity, reach, pull, scale))
    _kernel[grid](*parts, total, b, t, c, B=MOVES, T=SAMPLES, C=PROXIES)
    return total
