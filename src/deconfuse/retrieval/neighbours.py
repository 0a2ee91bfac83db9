"""Exact nearest neighbours: a float32 product per tile finds candidates, float64 settles what it cannot tell.

|a - b|^2 = |a|^2 + |b|^2 - 2 a.b loses its digits where rows are close to each other and far from the origin.
So both sides are moved to the gallery's mean and scaled by a power of two first, in float64. Of the tiles'
result it is known how far off it may be (`_error`): where that could change the order, the differences a - b
of the rows as they were given are squared in float64, and where it could hide a neighbour, that query is
compared with the whole gallery in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TILE = (2048, 2048)  # queries x gallery rows whose distances are held at once; scripts.bench_retrieval
MANY = 256  # neighbours beyond which whole rows of distances are ranked, not tile after tile
HELD = 2**24  # float32 distances, or half as many of float64, at once
BLOCK = 64  # gallery rows of a tile of which the nearest is found first
CHUNK = 2**18  # numbers that are held in float64 at once
PRECISE = 1e-3  # of a distance: what may be off more than that is computed again
BAND = 64  # gallery rows that float64 products cannot tell apart, and more than k, up to which differences do
PARALLEL = 1e-29  # squared distance of unit rows below which they have one direction, to float64 rounding


@dataclass(frozen=True)
class Space:
    """Where queries and gallery are compared.

    unit: rows are scaled to length one first. lengths: of the rows, (q, 1) and (g, 1) in float64, None
    without unit. mean (m,): of the gallery, in float64; scale: a power of two, so that no square over- or
    underflows.
    own (q,): the gallery row that is the query itself, -1 for none.
    """

    query: Float[Tensor, "q m"]
    gallery: Float[Tensor, "g m"]
    unit: bool
    lengths: tuple[Tensor | None, Tensor | None]
    mean: Float[Tensor, " m"]
    scale: float
    own: Int[Tensor, " q"]

    @classmethod
    def of(cls, query: Tensor, gallery: Tensor, unit: bool, same: bool, twins: Tensor | None) -> "Space":
        """Three passes of the rows, some at a time; numbers that are not finite count as 0."""
        if not torch.isfinite(gallery.sum() + query.sum()):
            query, gallery = (side.nan_to_num(0.0, 0.0, 0.0) for side in (query, gallery))
        sides = (gallery,) if same else (gallery, query)
        lengths = [row_lengths(side) if unit else None for side in sides]
        total, low, high = gallery.new_zeros(gallery.shape[1], dtype=torch.float64), [], []
        for side, length in zip(sides, lengths, strict=True):
            for some in _chunks(side):
                rows = _double(side[some], None if length is None else length[some])
                total += rows.sum(0) if side is gallery else 0
                low.append(rows.amin(0))
                high.append(rows.amax(0))
        mean = total / max(1, len(gallery))
        widest = 0.0
        if low:
            ends = torch.stack(low).amin(0) - mean, torch.stack(high).amax(0) - mean
            widest = max(float(end.abs().max()) for end in ends)
        mantissa, _ = torch.frexp(torch.tensor(widest, dtype=torch.float64))
        scale = float(mantissa) / widest if widest else 1.0
        if same:
            own = torch.arange(len(query), device=query.device)
        else:
            own = (
                torch.full((len(query),), -1, device=query.device)
                if twins is None
                else twins.to(query.device)
            )
        return cls(query, gallery, unit, (lengths[-1], lengths[0]), mean, scale, own)

    def centred(self, side: int, rows: slice | Tensor, dtype: torch.dtype) -> Float[Tensor, "n m"]:
        """Rows of the queries (side 0) or the gallery (1), moved to the mean and scaled."""
        given, length = (self.query, self.gallery)[side][rows], self.lengths[side]
        result = torch.empty(given.shape, dtype=dtype, device=given.device)
        length = None if length is None else length[rows]
        for some in _chunks(given):
            part = _double(given[some], None if length is None else length[some])
            result[some] = part.sub_(self.mean).mul_(self.scale)
        return result

    def distance(self, rows: Int[Tensor, " p"], others: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
        """|a - b|^2 of queries and gallery rows, in float64, by their differences and unscaled."""
        found = [self.mean.new_empty(0)]
        for some in _chunks(rows, self.query.shape[1]):
            a, b = (
                _double(side[index[some]], None if length is None else length[index[some]])
                for side, index, length in zip(
                    (self.query, self.gallery), (rows, others), self.lengths, strict=True
                )
            )
            found.append((a - b).square_().sum(1))
        squared = torch.cat(found)
        return squared.masked_fill_(squared < PARALLEL, 0) if self.unit else squared


def row_lengths(rows: Float[Tensor, "n m"]) -> Float[Tensor, "n 1"]:
    """||row|| in float64; 1 for a row of zeros, which so stays one when it is divided."""
    found = [rows.new_ones(0, 1, dtype=torch.float64)]
    found += [rows[some].double().square().sum(1, keepdim=True).sqrt_() for some in _chunks(rows)]
    length = torch.cat(found)
    return torch.where(length > 0, length, 1.0)


def _chunks(rows: Tensor, wide: int = 0) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, wide or rows.shape[1]))
    return (slice(start, start + step) for start in range(0, len(rows), step))


def _double(rows: Tensor, length: Tensor | None) -> Tensor:
    return rows.to(torch.float64, copy=True) if length is None else rows / length


def pair_distances(
    query: Float[Tensor, "q m"],
    gallery: Float[Tensor, "g m"],
    rows: Int[Tensor, " p"],
    others: Int[Tensor, " p"],
) -> Float[Tensor, " p"]:
    """d of pairs of rows, each scaled to length one, in float64: right to float64's precision."""
    found = [query.new_empty(0, dtype=torch.float64)]
    for some in _chunks(rows, query.shape[1]):
        a, b = (side[index[some]] for side, index in ((query, rows), (gallery, others)))
        a, b = (_double(part, row_lengths(part)) for part in (a, b))
        found.append((a - b).square_().sum(1))
    return torch.cat(found)


@torch.no_grad()
def nearest(
    query: Float[Tensor, "q m"],
    gallery: Float[Tensor, "g m"],
    k: int,
    *,
    same: bool,
    unit: bool = False,
    twins: Int[Tensor, " q"] | None = None,
    tile: tuple[int, int] = TILE,
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The k nearest gallery rows of each query: squared Euclidean distances and indices.

    Closest first, ties by index: the order is that of float64, and a distance is off by PRECISE of itself at
    most. same: query and gallery are the same rows, and none is its own neighbour; a tile then serves its
    rows and its columns, which halves the products. twins: the gallery row that is the query itself and so no
    neighbour of it, -1 for none. unit: rows are scaled to length one first, in float64. k is at most the
    number of gallery rows; where a query has fewer neighbours than others, its last are -1 at distance inf.
    tile: queries and gallery rows at a time.
    """
    blocks = [each[1:] for each in search(query, gallery, k, same=same, unit=unit, twins=twins, tile=tile)]
    distance, index = (torch.cat(part) for part in zip(*blocks, strict=True))
    return distance.to(query.dtype), index


@torch.no_grad()
def search(
    query: Float[Tensor, "q m"],
    gallery: Float[Tensor, "g m"],
    k: int,
    *,
    same: bool,
    unit: bool = False,
    twins: Int[Tensor, " q"] | None = None,
    tile: tuple[int, int] = TILE,
) -> Iterator[tuple[slice, Float[Tensor, "t k"], Int[Tensor, "t k"]]]:
    """`nearest`, some queries at a time: (which, squared distances in float64, indices)."""
    k = min(k, len(gallery) - same)
    if k <= 0 or not len(query):
        yield (
            slice(0, len(query)),
            query.new_empty(len(query), k).double(),
            query.new_empty(len(query), k).long(),
        )
        return
    space, every = Space.of(query, gallery, unit, same, twins), torch.arange(len(query), device=query.device)
    if k > MANY:
        for rows, squared, index in _whole(space, every, k):
            yield slice(int(rows[0]), int(rows[-1]) + 1), squared, index
        return
    most = min(k + 1, len(gallery) - same)  # one more, to know how far what is not kept is at least
    g = space.centred(1, slice(None), query.dtype)
    q = g if same else space.centred(0, slice(None), query.dtype)
    for some, approximate, index in _tiled(q, g, most, same, space.own, tile):
        parts = every[some], q[some].square().sum(1), approximate, index
        squared, index, open_ = _settled(space, *parts, k)
        for rows, exact, nearer in _whole(space, every[some][open_], k) if open_.any() else ():
            squared[rows - some.start], index[rows - some.start] = exact, nearer
        yield some, squared, index


def _error(squared: Tensor, lengths: Tensor, m: int, dtype: torch.dtype) -> Tensor:
    """How far off |a|^2 + |b|^2 - 2 a.b may be, from d itself (t, k) and |a|^2 (t,).

    A sum of m products is off by some sqrt(m) roundings of |a|^2 + |b|^2, which is 3 |a|^2 + 2 d at most.
    """
    return torch.finfo(dtype).eps * (4 + m**0.5) * (3 * lengths[:, None] + 2 * squared)


def _settled(
    space: Space, rows: Int[Tensor, " t"], lengths: Tensor, approximate: Tensor, index: Tensor, k: int
) -> tuple[Float[Tensor, "t k"], Int[Tensor, "t k"], Bool[Tensor, " t"]]:
    """The k nearest of some queries by the products' nearest, exact where it matters; and where a gallery row
    that is not among these may be nearer."""
    m, dtype = space.query.shape[1], approximate.dtype
    squared, lengths = approximate.double().clamp_min_(0), lengths.double()
    error = _error(squared, lengths, m, dtype)
    close = squared.diff(dim=1) < error[:, 1:] + error[:, :-1]
    doubtful = error > PRECISE * squared
    doubtful[:, 1:] |= close
    doubtful[:, :-1] |= close
    doubtful &= index >= 0
    bound = squared[:, -1] - error[:, -1]  # what is not among these is no nearer
    row, column = doubtful.nonzero(as_tuple=True)
    squared /= space.scale**2
    squared[row, column] = space.distance(rows[row], index[row, column])
    order = index.argsort(dim=1)
    order = order.gather(1, squared.gather(1, order).argsort(dim=1, stable=True))[:, :k]
    found, chosen, exact = (each.gather(1, order) for each in (squared, index, doubtful))
    reach = found[:, -1] * space.scale**2
    reach = torch.where(exact[:, -1], reach, reach + error.amax(1))
    whole = index.shape[1] >= len(space.gallery) - 1 and index.shape[1] == k
    open_ = torch.zeros_like(reach, dtype=torch.bool) if whole else ~(reach < bound)
    return found, chosen, open_


def _whole(
    space: Space, rows: Int[Tensor, " t"], k: int
) -> Iterator[tuple[Int[Tensor, " s"], Float[Tensor, "s k"], Int[Tensor, "s k"]]]:
    """As `search`, by products with the whole gallery in float64."""
    for some in rows.split(max(1, HELD // (2 * len(space.gallery)))):
        q = space.centred(0, some, torch.float64)
        lengths = q.square().sum(1)
        squared = q.new_empty(len(some), len(space.gallery))
        for columns in _chunks(space.gallery):
            g = space.centred(1, columns, torch.float64)
            squared[:, columns] = torch.addmm(g.square().sum(1), q, g.T, alpha=-2) + lengths[:, None]
        squared.clamp_min_(0)
        own = space.own[some]
        squared[(own >= 0).nonzero()[:, 0], own[own >= 0]] = torch.inf
        value, index = squared.topk(min(k + 1, squared.shape[1]), largest=False)
        index = index.masked_fill(torch.isinf(value), -1)
        found, index, open_ = _settled(space, some, lengths, value, index, k)
        if open_.any():
            parts = some[open_], lengths[open_], squared[open_]
            found[open_], index[open_] = _by_differences(space, *parts, k)
        yield some, found, index


def _by_differences(
    space: Space, rows: Int[Tensor, " t"], lengths: Tensor, squared: Float[Tensor, "t g"], k: int
) -> tuple[Float[Tensor, "t k"], Int[Tensor, "t k"]]:
    """The k smallest of whole rows of float64 distances, those that may be among them by their differences.

    Where more than BAND rows beyond k are equally far to float64's rounding, they count as ties.
    """
    reach = squared.kthvalue(k, dim=1).values[:, None]
    error = 2 * _error(reach, lengths, space.query.shape[1], torch.float64)
    there = ~torch.isinf(squared)
    band = there & (squared >= reach - error) & (squared <= reach + error)
    tied = band & (band.sum(1, keepdim=True) > k + BAND)
    row, column = (there & (squared <= reach + error) & ~tied).nonzero(as_tuple=True)
    exact = torch.where(tied, reach / space.scale**2, torch.inf)
    exact[row, column] = space.distance(rows[row], column)
    index = smallest(exact, k)
    found = exact.gather(1, index)
    return found, index.masked_fill(torch.isinf(found), -1)


def _tiled(
    query: Tensor, gallery: Tensor, k: int, same: bool, own: Tensor, tile: tuple[int, int]
) -> Iterator[tuple[slice, Float[Tensor, "t k"], Int[Tensor, "t k"]]]:
    """The k nearest by products, in the rows' own type, tile after tile; ties in any order."""
    distance = torch.full((len(query), k), torch.inf, dtype=query.dtype, device=query.device)
    index = torch.full((len(query), k), -1, dtype=torch.long, device=query.device)
    norms, lengths = query.square().sum(1), gallery.square().sum(1)
    memory = query.new_empty(min(tile[0], len(query)), min(tile[1], len(gallery)))
    for start in range(0, len(query), tile[0]):
        stop = min(start + tile[0], len(query))
        for first in range(start if same else 0, len(gallery), tile[1]):
            last = min(first + tile[1], len(gallery))
            squared = memory[: stop - start, : last - first]
            torch.addmm(lengths[first:last], query[start:stop], gallery[first:last].T, alpha=-2, out=squared)
            squared += norms[start:stop, None]
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


def smallest(values: Float[Tensor, "t g"], k: int) -> Int[Tensor, "t k"]:
    """Where each row's k smallest values are, smallest first, ties by place."""
    if 8 * k > values.shape[1] > MANY:  # so many that ranking all of them is quicker
        return values.argsort(dim=1, stable=True)[:, :k]
    value, place = values.topk(k, largest=False, sorted=True)
    # topk takes any of several equals at the k-th place, and leaves equals in any order.
    beyond = (values <= value[:, -1:]).sum(1) > k
    tied = torch.nonzero(~beyond & (value[:, 1:] == value[:, :-1]).any(1))[:, 0]
    if len(tied):
        by_place = place[tied].sort(1).values
        place[tied] = by_place.gather(1, values[tied].gather(1, by_place).argsort(dim=1, stable=True))
    beyond = torch.nonzero(beyond)[:, 0]
    if len(beyond):
        place[beyond] = torch.argsort(values[beyond], dim=1, stable=True)[:, :k]
    return place
