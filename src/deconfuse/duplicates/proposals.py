"""Which pairs of pictures may be copies: one's low frequencies are like those of a part of the other.

A picture's low frequencies are its discrete cosine transform without the mean, as in a perceptual hash, but
as numbers instead of signs. After a crop they are those of a window of the original, so each picture is
looked up by its WINDOWS too.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.compute.placement import exact
from deconfuse.duplicates.sketches import SIDE
from deconfuse.system.progress import track

ORDER = 8  # frequencies in each direction: ORDER^2 - 1 numbers, as the mean is left out
NEAR = 4  # pictures that are proposed for each one
LIKE = 0.9  # least correlation of the low frequencies of what is proposed
TILE_BYTES = 32 * 2**20  # of correlations that are held at once
TINY = 1e-3  # of a grey of 255: a deviation, or a length, that is none
CHUNK = 4096  # pictures whose frequencies are computed at once
# Parts of a picture's length, as (start, length): the whole, and what a crop may leave.
WHOLE = (0.0, 1.0), (0.0, 1.0)
WINDOWS = (
    WHOLE,
    *(((y, 0.94), (x, 0.94)) for y, x in ((0, 0), (0, 0.06), (0.06, 0), (0.06, 0.06))),
    ((0.04, 0.92), (0.04, 0.92)),
)


def cosines(start: float, length: float) -> Float[np.ndarray, "f s"]:
    """The rows cos(pi k (u - start) / length), k < ORDER, over SIDE pixels; start, length: shares of them.

    u is the middle of a pixel; a pixel counts by the share of it that is in the window.
    """
    edge = np.arange(SIDE + 1) / SIDE
    inside = np.clip(edge[1:], start, start + length) - np.clip(edge[:-1], start, start + length)
    u = (np.arange(SIDE) + 0.5) / SIDE
    return np.cos(np.pi * np.arange(ORDER)[:, None] * (u - start) / length) * inside / length


def frequencies(grey: Int[np.ndarray, "n s s"], window, device: torch.device) -> Float[Tensor, "n k"]:
    """The low frequencies of a window of each picture, without the mean."""
    rows, columns = (torch.from_numpy(cosines(*side)).float().to(device) for side in window)
    found = []
    for start in range(0, len(grey), CHUNK):
        some = torch.from_numpy(grey[start : start + CHUNK]).to(device).float()
        found.append((rows @ (some @ columns.T)).flatten(1)[:, 1:])
    return torch.cat(found)


@dataclass(frozen=True)
class Pairs:
    """Pairs a < b of pictures that may be copies. flip (p,): whether the mirror image of a is meant.

    place (p, 4): (sx, tx, sy, ty), where in b a point of a (or of its mirror image) is: x -> sx x + tx, in
    [-1, 1]; by the most alike of the windows.
    """

    a: Int[Tensor, " p"]
    b: Int[Tensor, " p"]
    flip: Bool[Tensor, " p"]
    place: Float[Tensor, "p 4"]


@exact()
def proposed(grey: Int[np.ndarray, "n s s"], mirrored: bool, device: torch.device) -> Pairs:
    """The pairs of which one is among the NEAR likeliest copies of the other.

    How alike: the largest cosine of the low frequencies of a window of one and of the whole other one, each
    frequency divided by the root of its deviation over all pictures; at least LIKE. mirrored: also pairs of
    which one is like the mirror image of the other. Tile after tile; nothing is n x n in memory.
    """
    found = []
    scale = frequencies(grey, WHOLE, device).std(0, correction=0).clamp_min(TINY).sqrt()
    asked = torch.stack([_unit(frequencies(grey, window, device) / scale) for window in WINDOWS])
    sign = torch.tensor([1.0, -1.0], device=device).repeat(ORDER, ORDER // 2).flatten()[1:]
    for flip in range(1 + mirrored):
        queries = asked * sign if flip else asked
        pairs = []
        for start, value, index in _likeliest(queries, asked[0]):
            at, place = (value >= LIKE).nonzero(as_tuple=True)
            row, other = at + start, index[at, place]
            pairs.append(torch.stack([torch.minimum(row, other), torch.maximum(row, other)]))
        a, b = torch.cat(pairs, 1).unique(dim=1)
        flipped = torch.full_like(a, flip, dtype=torch.bool)
        found.append(Pairs(a, b, flipped, _places(queries, asked, a, b, flip)))
    return Pairs(*(torch.cat([getattr(each, one.name) for each in found]) for one in fields(Pairs)))


def _unit(rows: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Rows of length 1; of 0 where the picture is of nearly one grey."""
    length = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(length > TINY, length, torch.inf)


def _likeliest(
    queries: Float[Tensor, "w n k"], whole: Float[Tensor, "n k"]
) -> Iterator[tuple[int, Float[Tensor, "t m"], Int[Tensor, "t m"]]]:
    """(first row, the largest cosines, the rows they are with) of some rows after the other."""
    n, rows = len(whole), max(1, TILE_BYTES // (8 * len(whole)))
    own = torch.arange(n, device=whole.device)
    for start in track(range(0, n, rows), "comparing pictures", math.ceil(n / rows)):
        some = slice(start, start + rows)
        best = queries[0, some] @ whole.T
        for query in queries[1:]:
            torch.maximum(best, query[some] @ whole.T, out=best)
        mine = own[some]
        best[mine - start, mine] = -1
        value, index = best.topk(min(NEAR, n), dim=1)
        yield start, value, index


def _places(
    queries: Float[Tensor, "v n k"],
    whole: Float[Tensor, "v n k"],
    a: Int[Tensor, " p"],
    b: Int[Tensor, " p"],
    flip: bool,
) -> Float[Tensor, "p 4"]:
    """Pairs.place by the window with the largest cosine: of a (flip: of its mirror image), or else of b."""
    cosine = [(queries[:, a] * whole[0, b]).sum(2), (queries[0, a] * whole[:, b]).sum(2)]
    best = torch.cat(cosine).argmax(0)
    of_b = [(length, 2 * start + length - 1) for window in WINDOWS for start, length in window]
    of_a = [(1 / scale, -shift / scale) for scale, shift in of_b]
    table = torch.tensor([of_a, of_b], dtype=torch.float32, device=a.device)
    table = table.view(2, -1, 2, 2).flip(2)  # x before y
    if flip:  # what lies to the right in a lies to the left in its mirror image
        table[0, :, 0, 1] *= -1
    return table.flatten(0, 1)[best].flatten(1)
