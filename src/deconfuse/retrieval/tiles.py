"""The nearest rows by products, tile after tile: the distances of two sides are never all held at once."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.retrieval.coordinates import chunks

BLOCK = 64  # gallery rows of a tile of which the nearest is found first


def with_squares(wide: Float[Tensor, "n wide"]) -> Float[Tensor, "n wide"]:
    """Rows (x, 1, |x|^2), where the first m columns of wide are x; the last two are filled in place.

    |a - b|^2 = (-2 a, |a|^2, 1) . (b, 1, |b|^2): one product writes a tile, and no other pass over it adds
    the squares.
    """
    wide[:, -2].fill_(1)
    for some in chunks(wide):
        wide[some, -1] = wide[some, :-2].square().sum(1)  # in pairs: more digits than a product keeps
    return wide


def tiled(
    query: Float[Tensor, "q wide"],
    gallery: Float[Tensor, "g wide"],
    k: int,
    same: bool,
    own: Int[Tensor, " q"],
    tile: tuple[int, int],
) -> Iterator[tuple[slice, Float[Tensor, "t k"], Int[Tensor, "t k"]]]:
    """The k nearest by products, in the rows' own type, tile after tile; ties in any order.

    query and gallery: rows as `with_squares` makes them, the same ones where same.
    """
    distance = torch.full((len(query), k), torch.inf, dtype=query.dtype, device=query.device)
    index = torch.full((len(query), k), -1, dtype=torch.long, device=query.device)
    memory = query.new_empty(min(tile[0], len(query)), min(tile[1], len(gallery)))
    for start in range(0, len(query), tile[0]):
        stop = min(start + tile[0], len(query))
        some = query[start:stop]
        turned = torch.cat([-2 * some[:, :-2], some[:, -1:], some[:, -2:-1]], 1)
        for first in range(start if same else 0, len(gallery), tile[1]):
            last = min(first + tile[1], len(gallery))
            squared = memory[: stop - start, : last - first]
            torch.mm(turned, gallery[first:last].T, out=squared)
            mine = own[start:stop]
            here = ((mine >= first) & (mine < last)).nonzero()[:, 0]
            squared[here, mine[here] - first] = torch.inf
            _keep(distance[start:stop], index[start:stop], squared, first)
            if same and last > stop:  # what was found for these rows as columns comes before their own tiles
                after = max(stop, first)
                _keep(distance[after:last], index[after:last], squared[:, after - first :].T, start)
    for start in range(0, len(query), tile[0]):
        some = slice(start, min(start + tile[0], len(query)))
        yield some, distance[some], index[some]


def _keep(
    distance: Float[Tensor, "t k"], index: Int[Tensor, "t k"], squared: Float[Tensor, "t g"], first: int
) -> None:
    """Put into distance and index what is nearer in squared, the distances to gallery rows from first on.

    The k smallest of a row lie in the k blocks of it whose smallest are smallest, so little is sorted.
    """
    k, columns = distance.shape[1], squared.shape[1]
    wide = BLOCK if columns % BLOCK == 0 and columns > k * BLOCK else 1
    blocks = squared.unflatten(1, (-1, wide))
    # (t, columns / wide); a transposed tile is reduced along its memory, which is several times as fast.
    least = blocks.amin(2) if squared.stride(1) == 1 else squared.T.unflatten(0, (-1, wide)).amin(1).T
    rows = torch.nonzero(least.amin(1) < distance[:, -1])[:, 0]
    if not len(rows):
        return
    some = least[rows].topk(min(k, least.shape[1]), largest=False).indices
    value, place = blocks[rows[:, None], some].flatten(1).topk(min(k, columns), largest=False)
    place = some.gather(1, place // wide) * wide + place % wide
    both = torch.cat([distance[rows], value], 1)
    known = torch.cat([index[rows], place + first], 1)
    distance[rows], order = both.topk(k, largest=False)
    index[rows] = known.gather(1, order)
