"""The inner loop of EIF: sums of exponentials of moved similarities, in one pass where that pays.

    total_bt = sum_c 2^( scale_bt (s_tc + sum_r reach_brt pull_brc) )

for b moves, t training samples and c proxies; s, reach and pull are the pieces of z'.p (see
`attribution.head.loss_change`). Written with torch's operators each of the b t c terms passes through a cache
four times. `one_pass` reads s once for a block of moves and keeps the terms in registers: by torch.compile on
processors, by a Triton kernel on CUDA devices. A first compilation takes seconds (later runs find it on the
disk), so it is for work that is worth it.
"""

import shutil
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.system.errors import UserError
from deconfuse.system.progress import console

LOG2E = 1.4426950408889634  # 2^(LOG2E x) = e^x
TILE_BYTES = 4 * 2**20  # of terms that torch's operators hold at once; they fit into a cache
SHARED_BYTES = 2**18  # of s that is read again for each move; fits the second-level cache of a core
WORTH = 1.5e10  # terms for each thread from which compiling, some 12 s, pays: one pass saves 0.8 ns a term
WORTH_CUDA = 5e10  # terms from which compiling the kernel, about a second, pays
COMPILERS = ("g++", "clang++", "c++")

Sums = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def by_operators(
    similarity: Float[Tensor, "t c"],
    reach: Float[Tensor, "b r t"],
    pull: Float[Tensor, "b r c"],
    scale: Float[Tensor, "b t"],
) -> Float[Tensor, "b t"]:
    """The sums by torch's operators, for any number r of sides and any type, a tile at a time."""
    b, t, c = len(reach), len(similarity), similarity.shape[1]
    total = torch.empty_like(scale)
    tile = min(t, max(1, TILE_BYTES // (4 * c)))
    block = min(b, max(1, TILE_BYTES // (4 * c * tile)))
    room = torch.empty(block * tile * c, dtype=pull.dtype, device=pull.device)
    for start in range(0, t, tile):
        rows = slice(start, start + tile)
        for first in range(0, b, block):
            some = slice(first, first + block)
            shape = *scale[some, rows].shape, c
            terms = room[: shape[0] * shape[1] * c].view(shape)
            part = reach[some, :, rows].transpose(1, 2)
            torch.baddbmm(similarity[rows].expand_as(terms), part, pull[some], out=terms)
            total[some, rows] = terms.mul_(scale[some, rows, None]).exp2_().sum(-1)
    return total


def one_pass(
    similarity: Float[Tensor, "t c"],
    reach: Float[Tensor, "b 2 t"],
    pull: Float[Tensor, "b 2 c"],
    scale: Float[Tensor, "b t"],
) -> Float[Tensor, "b t"]:
    """The sums of moves with two sides each, compiled for the processor by torch.compile; float32."""
    b, t, c = len(reach), len(similarity), similarity.shape[1]
    tile = max(2, SHARED_BYTES // (4 * c))
    if b < 2 or t < tile:  # sizes of one are compiled apart, and small ones are not worth it
        return by_operators(similarity, reach, pull, scale)
    total = torch.empty_like(scale)
    for start in (*range(0, t - tile, tile), t - tile):  # the last tile may overlap: all have one shape
        rows = slice(start, start + tile)
        part = reach[:, :, rows].contiguous(), pull, scale[:, rows].contiguous()
        total[:, rows] = _compiled()(similarity[rows], *part)
    return total


@cache
def _compiled() -> Sums:
    from torch._inductor import config

    config.compile_threads = 1  # one kernel needs no pool of processes
    return torch.compile(_terms_of_two, dynamic=True)


def _terms_of_two(similarity: Tensor, reach: Tensor, pull: Tensor, scale: Tensor) -> Tensor:
    moved = reach[:, 0, :, None] * pull[:, 0, None, :] + reach[:, 1, :, None] * pull[:, 1, None, :]
    return torch.exp2((similarity + moved) * scale[..., None]).sum(-1)


def on_cuda(similarity: Tensor, reach: Tensor, pull: Tensor, scale: Tensor) -> Float[Tensor, "b t"]:
    """As `one_pass`, by the Triton kernel."""
    from deconfuse.compute.triton_sums import sums

    return sums(similarity, reach, pull, scale)


def chosen(one_pass_: bool | str, device: torch.device, terms: float, sides: int) -> Sums:
    """Which of the functions here computes `terms` terms of moves with some number of sides.

    one_pass_: "auto" takes one pass if the moves have two sides each and the terms are worth a compilation;
    True and False always or never do. Without a compiler torch's operators do the work, and a line says so if
    one was asked for. Raises UserError for another word.
    """
    if one_pass_ not in ("auto", True, False):
        raise UserError(f"influence.one_pass={one_pass_} is not known; take auto, true or false")
    worth = {"cpu": WORTH * torch.get_num_threads(), "cuda": WORTH_CUDA}.get(device.type, float("inf"))
    wanted = terms >= worth if one_pass_ == "auto" else one_pass_
    if sides != 2 or not wanted:
        return by_operators
    if device.type == "cuda":
        return on_cuda if _has_triton() else by_operators
    if device.type == "cpu" and any(map(shutil.which, COMPILERS)):
        return one_pass
    if one_pass_ is True:
        console.print("influence.one_pass=true: there is no C++ compiler here; torch's operators do the work")
    return by_operators


@cache
def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
