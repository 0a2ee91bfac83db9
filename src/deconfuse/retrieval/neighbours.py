"""Exact nearest neighbours: float32 products find the candidates, and float64 decides where they cannot.

Rows are compared in the coordinates of `retrieval.coordinates`, whose `product_error` bounds how far off a
product's distance is. Where two candidates are closer than that, the differences a - b
of the rows as they were given are squared in float64. Where a gallery row that is no candidate may be nearer,
the query is compared with the whole gallery by products in float64, which takes some eight times as long.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.retrieval.coordinates import Coordinates, chunks, product_error, rounding, row_lengths
from deconfuse.retrieval.tiles import tiled, with_squares

TILE = (2048, 2048)  # queries x gallery rows whose distances are held at once; scripts.bench_retrieval
MANY = 256  # neighbours beyond which whole rows of distances are ranked, not tile after tile
HELD = 2**24  # float32 distances, or half as many of float64, at once
PRECISE = 1e-4  # a distance that may be off by more than this share of itself is computed again in float64
TIE = 1e-12  # error of a float64 product, as a share of d, up to which distances within it count as equal


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
    coordinates = Coordinates.of(query, gallery, unit, same, twins)
    every = torch.arange(len(query), device=query.device)
    if k > MANY:
        for rows, squared, index in _whole(coordinates, every, k):
            yield slice(int(rows[0]), int(rows[-1]) + 1), squared, index
        return
    most = min(k + 1, len(gallery) - same)  # one more, to know how far what is not kept is at least
    g = with_squares(coordinates.centred(1, slice(None), query.dtype, 2))
    q = g if same else with_squares(coordinates.centred(0, slice(None), query.dtype, 2))
    for some, approximate, index in tiled(q, g, most, same, coordinates.own, tile):
        parts = every[some], q[some, -1], approximate, index
        squared, index, open_ = _settled(coordinates, *parts, k)
        for rows, exact, nearer in _whole(coordinates, every[some][open_], k) if open_.any() else ():
            squared[rows - some.start], index[rows - some.start] = exact, nearer
        yield some, squared, index


def _settled(
    coordinates: Coordinates,
    rows: Int[Tensor, " t"],
    lengths: Tensor,
    approximate: Tensor,
    index: Tensor,
    k: int,
) -> tuple[Float[Tensor, "t k"], Int[Tensor, "t k"], Bool[Tensor, " t"]]:
    """(squared distances, gallery rows, open) of the k nearest among the candidates of some queries.

    approximate and index: the candidates by products, closest first. open: a gallery row that is no candidate
    may be nearer than the k-th.
    """
    squared, lengths, m = approximate.double().clamp_min_(0), lengths.double(), coordinates.query.shape[1]
    error = product_error(squared, lengths, m, approximate.dtype)
    index = index.masked_fill(torch.isinf(squared), -1)
    error.masked_fill_(index < 0, 0)
    close = (squared.diff(dim=1) < error[:, 1:] + error[:, :-1]) | _equal(squared, m)
    tie = close & (error <= TIE * squared)[:, 1:]  # never of float32 products
    doubtful = (error > PRECISE * squared) & (index >= 0)
    doubtful[:, 1:] |= close & ~tie
    doubtful[:, :-1] |= close & ~tie
    bound = squared[:, -1] - error[:, -1]  # a row that is no candidate is no nearer
    squared = squared.gather(1, _starts(tie)) / coordinates.scale**2
    row, column = doubtful.nonzero(as_tuple=True)
    squared[row, column] = coordinates.distance(rows[row], index[row, column])
    squared = _levelled(squared, m)
    order = _order(squared, index)[:, :k]
    found, chosen, exact = (each.gather(1, order) for each in (squared, index, doubtful))
    if index.shape[1] == k:  # there are no others: one more was asked for
        return found, chosen, torch.zeros_like(exact[:, 0])
    reach = found[:, -1] * coordinates.scale**2
    reach = torch.where(exact[:, -1], reach, reach + error.amax(1))
    return found, chosen, ~(reach < bound)


def _order(squared: Float[Tensor, "t k"], index: Int[Tensor, "t k"]) -> Int[Tensor, "t k"]:
    """The places of the candidates, closest first, ties by gallery row."""
    order = index.argsort(dim=1)
    return order.gather(1, squared.gather(1, order).argsort(dim=1, stable=True))


def _levelled(squared: Float[Tensor, "t k"], m: int) -> Float[Tensor, "t k"]:
    """The distances, with runs made equal in which each differs from the next by rounding alone.

    So rounding does not decide between rows that are equally far, whichever way they were found.
    """
    sorted_, place = squared.sort(dim=1)
    tie = _equal(sorted_, m)
    some = (tie & (sorted_.diff(dim=1) > 0)).any(1).nonzero()[:, 0]
    if len(some):
        level = sorted_[some].gather(1, _starts(tie[some]))
        squared[some] = squared[some].scatter(1, place[some], level)
    return squared


def _equal(ascending: Float[Tensor, "t k"], m: int) -> Bool[Tensor, "t pairs"]:
    """Whether each distance is as large as the one before it, to the rounding of m squares in float64."""
    within = rounding(m) * ascending[:, 1:]
    return (ascending.diff(dim=1) <= within) & ~torch.isinf(ascending[:, 1:])


def _starts(tie: Bool[Tensor, "t pairs"]) -> Int[Tensor, "t k"]:
    """Where the run of ties that each candidate is in begins; tie: with the candidate before."""
    place = torch.arange(tie.shape[1] + 1, device=tie.device).repeat(len(tie), 1)
    place[:, 1:].masked_fill_(tie, 0)
    return place.cummax(1).values


def _whole(
    coordinates: Coordinates, rows: Int[Tensor, " t"], k: int
) -> Iterator[tuple[Int[Tensor, " s"], Float[Tensor, "s k"], Int[Tensor, "s k"]]]:
    """As `search`, by products with the whole gallery in float64."""
    for some in rows.split(max(1, HELD // (2 * len(coordinates.gallery)))):
        q = coordinates.centred(0, some, torch.float64)
        lengths = q.square().sum(1)
        squared = q.new_empty(len(some), len(coordinates.gallery))
        for columns in chunks(coordinates.gallery):
            g = coordinates.centred(1, columns, torch.float64)
            squared[:, columns] = torch.addmm(g.square().sum(1), q, g.T, alpha=-2) + lengths[:, None]
        squared.clamp_min_(0)
        own = coordinates.own[some]
        squared[(own >= 0).nonzero()[:, 0], own[own >= 0]] = torch.inf
        value, index = squared.topk(min(k + 1, squared.shape[1]), largest=False)
        index = index.masked_fill(torch.isinf(value), -1)
        found, index, open_ = _settled(coordinates, some, lengths, value, index, k)
        if open_.any():
            parts = some[open_], lengths[open_]
            chosen = _at_the_end(coordinates, *parts, squared[open_], k)
            found[open_], index[open_], _ = _settled(coordinates, *parts, *chosen, k)
        yield some, found, index


def _at_the_end(
    coordinates: Coordinates, rows: Int[Tensor, " t"], lengths: Tensor, squared: Float[Tensor, "t g"], k: int
) -> tuple[Float[Tensor, "t k"], Int[Tensor, "t k"]]:
    """(products, gallery rows) of the k nearest where float64's rounding decides which row is the k-th.

    squared: products with the whole gallery. Rows that are within TIE as far as the k-th are equal. Where
    rounding is more than that, as it is of rows that nearly coincide, the rows' differences decide.
    """
    reach = squared.kthvalue(k, dim=1).values[:, None]
    error = 2 * product_error(reach, lengths, coordinates.query.shape[1], torch.float64)
    slack = torch.maximum(error, rounding(coordinates.query.shape[1]) * reach)
    level = squared.masked_fill(squared > reach + slack, torch.inf)
    apart = (error > TIE * reach).expand_as(level)
    level = torch.where((level >= reach - slack) & ~torch.isinf(level) & ~apart, reach, level)
    row, column = (apart & ~torch.isinf(level)).nonzero(as_tuple=True)
    level[row, column] = coordinates.distance_by_kind(rows[row], column) * coordinates.scale**2
    reach = level.kthvalue(k, dim=1).values[:, None]
    level = torch.where((level - reach).abs() <= rounding(coordinates.query.shape[1]) * reach, reach, level)
    index = smallest(level, k)
    found = level.gather(1, index)
    return found, index.masked_fill(torch.isinf(found), -1)


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
        level = squared >= most - 2 * product_error(most, lengths, query.shape[1], torch.float64)
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
