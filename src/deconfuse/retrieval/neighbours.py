"""Exact nearest neighbours: float32 products find the candidates, and float64 decides where they cannot.

|a - b|^2 = |a|^2 + |b|^2 - 2 a.b loses its digits where rows are close to each other and far from the origin.
So both sides are first moved to the gallery's median and scaled by a power of two, in float64. `_error`
bounds how far off a product's distance is. Where two candidates are closer than that, the differences a - b
of the rows as they were given are squared in float64. Where a gallery row that is no candidate may be nearer,
the query is compared with the whole gallery by products in float64, which takes some eight times as long.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TILE = (2048, 2048)  # queries x gallery rows whose distances are held at once; scripts.bench_retrieval
MANY = 256  # neighbours beyond which whole rows of distances are ranked, not tile after tile
HELD = 2**24  # float32 distances, or half as many of float64, at once
BLOCK = 64  # gallery rows of a tile of which the nearest is found first
CHUNK = 2**18  # numbers that are held in float64 at once
PRECISE = 1e-4  # a distance that may be off by more than this share of itself is computed again in float64
TIE = 1e-9  # distances that differ by less than this share, and by less than their error, count as equal
SAMPLE = 257  # gallery rows of which the median is taken
PARALLEL = 1e-29  # squared distance of unit rows below which they have one direction, to float64 rounding


@dataclass(frozen=True)
class Space:
    """Where queries and gallery are compared.

    unit: rows are scaled to length one first. lengths: of the rows, (q, 1) and (g, 1) in float64, None
    without unit. centre (m,): the median of up to SAMPLE gallery rows, in float64. It is a median because one
    row that is far away moves a mean, and the lower one of two, a number that rows have, because differences
    from it are then exact. scale: a power of two, so that no square overflows or underflows.
    own (q,): the gallery row that is the query itself, -1 for none.
    """

    query: Float[Tensor, "q m"]
    gallery: Float[Tensor, "g m"]
    unit: bool
    lengths: tuple[Tensor | None, Tensor | None]
    centre: Float[Tensor, " m"]
    scale: float
    own: Int[Tensor, " q"]

    @classmethod
    def of(cls, query: Tensor, gallery: Tensor, unit: bool, same: bool, twins: Tensor | None) -> "Space":
        """Measure centre and scale, some rows at a time. Numbers that are not finite count as 0."""
        if not torch.isfinite(gallery.sum() + query.sum()):
            query, gallery = (side.nan_to_num(0.0, 0.0, 0.0) for side in (query, gallery))
        sides = (gallery,) if same else (gallery, query)
        lengths = [row_lengths(side) if unit else None for side in sides]
        sample = torch.arange(0, len(gallery), max(1, len(gallery) // SAMPLE), device=gallery.device)
        centre = _double(gallery[sample], lengths[0][sample] if unit else None).median(0).values
        low, high = [], []
        for side, length in zip(sides, lengths, strict=True):
            for some in _chunks(side):
                rows = _double(side[some], None if length is None else length[some])
                low.append(rows.amin(0))
                high.append(rows.amax(0))
        ends = torch.stack(low).amin(0) - centre, torch.stack(high).amax(0) - centre
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
        return cls(query, gallery, unit, (lengths[-1], lengths[0]), centre, scale, own)

    def centred(self, side: int, rows: slice | Tensor, dtype: torch.dtype) -> Float[Tensor, "n m"]:
        """Rows of the queries (side 0) or the gallery (1), moved to the centre and scaled."""
        given, length = (self.query, self.gallery)[side][rows], self.lengths[side]
        result = torch.empty(given.shape, dtype=dtype, device=given.device)
        length = None if length is None else length[rows]
        for some in _chunks(given):
            part = _double(given[some], None if length is None else length[some])
            result[some] = part.sub_(self.centre).mul_(self.scale)
        return result

    def distance(self, rows: Int[Tensor, " p"], others: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
        """|a - b|^2 of queries and gallery rows, in float64, by their differences and unscaled."""
        found = [self.centre.new_empty(0)]
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

    @cached_property
    def kinds(self) -> tuple[Int[Tensor, " g"], Int[Tensor, " u"]]:
        """(which of u different rows each gallery row is, one gallery row of each)."""
        rows = self.gallery / self.lengths[1] if self.unit else self.gallery
        _, kind = rows.unique(dim=0, return_inverse=True)
        one = torch.empty(int(kind.max()) + 1, dtype=torch.long, device=kind.device)
        one[kind] = torch.arange(len(kind), device=kind.device)
        return kind, one

    def distance_by_kind(self, rows: Int[Tensor, " p"], others: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
        """As `distance`, but once for a query and all copies of a gallery row."""
        kind, one = self.kinds
        pairs, place = (rows * len(one) + kind[others]).unique(return_inverse=True)
        return self.distance(pairs // len(one), one[pairs % len(one)])[place]


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
    """(squared distances, gallery rows, open) of the k nearest among the candidates of some queries.

    approximate and index: the candidates by products, closest first. open: a gallery row that is no candidate
    may be nearer than the k-th.
    """
    squared, lengths = approximate.double().clamp_min_(0), lengths.double()
    error = _error(squared, lengths, space.query.shape[1], approximate.dtype)
    index = index.masked_fill(torch.isinf(squared), -1)
    error.masked_fill_(index < 0, 0)
    close = squared.diff(dim=1) < error[:, 1:] + error[:, :-1]
    tie = close & (error <= TIE * squared)[:, 1:]  # never of float32 products
    doubtful = (error > PRECISE * squared) & (index >= 0)
    doubtful[:, 1:] |= close & ~tie
    doubtful[:, :-1] |= close & ~tie
    bound = squared[:, -1] - error[:, -1]  # a row that is no candidate is no nearer
    squared = squared.gather(1, _starts(tie)) / space.scale**2
    row, column = doubtful.nonzero(as_tuple=True)
    squared[row, column] = space.distance(rows[row], index[row, column])
    order = index.argsort(dim=1)
    order = order.gather(1, squared.gather(1, order).argsort(dim=1, stable=True))[:, :k]
    found, chosen, exact = (each.gather(1, order) for each in (squared, index, doubtful))
    if index.shape[1] == k:  # there are no others: one more was asked for
        return found, chosen, torch.zeros_like(exact[:, 0])
    reach = found[:, -1] * space.scale**2
    reach = torch.where(exact[:, -1], reach, reach + error.amax(1))
    return found, chosen, ~(reach < bound)


def _starts(tie: Bool[Tensor, "t pairs"]) -> Int[Tensor, "t k"]:
    """Where the run of ties that each candidate is in begins; tie: with the candidate before."""
    place = torch.arange(tie.shape[1] + 1, device=tie.device).repeat(len(tie), 1)
    place[:, 1:].masked_fill_(tie, 0)
    return place.cummax(1).values


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
            parts = some[open_], lengths[open_]
            chosen = _at_the_end(space, *parts, squared[open_], k)
            found[open_], index[open_], _ = _settled(space, *parts, *chosen, k)
        yield some, found, index


def _at_the_end(
    space: Space, rows: Int[Tensor, " t"], lengths: Tensor, squared: Float[Tensor, "t g"], k: int
) -> tuple[Float[Tensor, "t k"], Int[Tensor, "t k"]]:
    """(products, gallery rows) of the k nearest where float64's rounding decides which row is the k-th.

    squared: products with the whole gallery. Rows that are within TIE as far as the k-th are equal. Where
    rounding is more than that, as it is of rows that nearly coincide, the rows' differences decide.
    """
    reach = squared.kthvalue(k, dim=1).values[:, None]
    error = 2 * _error(reach, lengths, space.query.shape[1], torch.float64)
    level = squared.masked_fill(squared > reach + error, torch.inf)
    apart = (error > TIE * reach).expand_as(level)
    level = torch.where((level >= reach - error) & ~torch.isinf(level) & ~apart, reach, level)
    row, column = (apart & ~torch.isinf(level)).nonzero(as_tuple=True)
    level[row, column] = space.distance_by_kind(rows[row], column) * space.scale**2
    index = smallest(level, k)
    found = level.gather(1, index)
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


@torch.no_grad()
def farthest(
    query: Float[Tensor, "q m"], gallery: Float[Tensor, "g m"], own: Int[Tensor, " q"]
) -> Int[Tensor, " q"]:
    """The gallery row that is farthest from each query, rows scaled to length one; ties by index.

    By products in float64 of rows moved to the gallery's mean. own: the gallery row that is the query itself,
    -1 for none; where there is no other, the result is -1.
    """
    far = torch.full_like(own, -1)
    g = gallery / row_lengths(gallery)
    mean = g.mean(0)
    g -= mean
    norms, columns = g.square().sum(1), torch.arange(len(gallery), device=gallery.device)
    for some in torch.arange(len(query), device=query.device).split(max(1, HELD // (2 * len(gallery)))):
        q = query[some] / row_lengths(query[some]) - mean
        lengths = q.square().sum(1)
        squared = torch.addmm(norms, q, g.T, alpha=-2) + lengths[:, None]
        mine = (own[some] >= 0).nonzero()[:, 0]
        squared[mine, own[some][mine]] = -torch.inf
        most = squared.amax(1, keepdim=True)
        level = squared >= most - 2 * _error(most, lengths, query.shape[1], torch.float64)
        first = torch.where(level & ~torch.isinf(squared), columns, len(columns)).amin(1)
        far[some] = torch.where(first < len(columns), first, -1)
    return far


def smallest(values: Float[Tensor, "t g"], k: int) -> Int[Tensor, "t k"]:
    """Where each row's k smallest values are, smallest first, ties by place."""
    last = values.kthvalue(k, dim=1).values[:, None]
    chosen, level = values < last, values == last
    chosen |= level & (level.cumsum(1) <= k - chosen.sum(1, keepdim=True))
    place = chosen.nonzero()[:, 1].view(len(values), k)
    return place.gather(1, values.gather(1, place).argsort(dim=1, stable=True))
