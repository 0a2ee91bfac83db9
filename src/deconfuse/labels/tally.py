"""Votes by class: the sum of exp(-d) over each class's members among a sample's k nearest others.

Where k is large, the sums need nobody's neighbours in order: the distance of the k-th says who counts.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.retrieval.coordinates import Coordinates, chunks, rounding
from deconfuse.retrieval.neighbours import HELD, PRECISE, nearest
from deconfuse.system.progress import track

CACHED = 2**17  # distances that are ranked at once: so few stay in the processor's cache


def tally(
    squared: Float[Tensor, "t k"],
    classes: Int[Tensor, "t k"],
    c: int,
    sizes: Float[Tensor, " c"] | None = None,
    own: Int[Tensor, " t"] | None = None,
) -> Float[Tensor, "t c"]:
    """P(label) of each label, by squared distances, closest first, and the neighbours' labels.

    sizes: of the classes, for votes that are fair to small ones, see `fairly`; own: the samples' labels. In
    float64: the votes of labels with as many neighbours each differ by little more than the distances do.
    """
    weight = _weights(squared.double().sqrt())
    return fairly(weight.new_zeros(len(weight), c).scatter_add_(1, classes, weight), sizes, own)


def fairly(
    total: Float[Tensor, "t c"], sizes: Float[Tensor, " c"] | None, own: Int[Tensor, " t"] | None
) -> Float[Tensor, "t c"]:
    """P(l) / size(l), scaled to a sum of 1; P itself if sizes is None.

    A sample does not count for the size of its own class.
    """
    if sizes is None:
        return total
    others = sizes.expand_as(total) - torch.nn.functional.one_hot(own, len(sizes))
    total = total / others.clamp_min(1)
    return total / total.sum(1, keepdim=True)


def _weights(distance: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """exp(-d) / sum exp(-d), relative to the closest: far-away samples do not underflow to 0/0."""
    weight = torch.exp(distance[:, :1] - distance)
    return weight / weight.sum(1, keepdim=True)


def by_class(
    rows: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"],
    k: int,
    c: int,
    voters: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, "n c"]:
    """P(l) = sum_i exp(-d_i) [y_i = l] / sum_i exp(-d_i) over the k nearest other voters, in float64.

    d: the distance of rows scaled to length one, by products of float64. Samples of which rounding leaves in
    doubt who the k-th neighbour is, or how far a very close one is, get their neighbours one by one.
    """
    inside = torch.arange(len(rows), device=rows.device) if voters is None else voters.nonzero()[:, 0]
    own = torch.full_like(labels, -1)
    own[inside] = torch.arange(len(inside), device=rows.device)
    gallery, theirs = (rows, labels) if voters is None else (rows[inside], labels[inside])
    k = min(k, len(inside) - 1)
    coordinates = Coordinates.of(rows, gallery, True, voters is None, own)
    total = torch.empty(len(rows), c, dtype=torch.float64, device=rows.device)
    open_, tiles = torch.zeros_like(labels, dtype=torch.bool), torch.arange(len(rows), device=rows.device)
    tiles = tiles.split(max(1, HELD // (2 * len(gallery))))
    memory, count = total.new_empty(len(tiles[0]), len(gallery)), _counter(coordinates, theirs, c, k)
    with ThreadPoolExecutor(torch.get_num_threads() if rows.device.type == "cpu" else 1) as pool:
        for some in track(tiles, "votes of many neighbours", len(tiles)):
            tile = _products(coordinates, some, memory[: len(some)])
            parts = zip(*(each.split(max(1, CACHED // len(gallery))) for each in tile), strict=True)
            done = list(pool.map(lambda part: count(*part), parts))
            total[some], open_[some] = (torch.cat(each) for each in zip(*done, strict=True))
    for some in open_.nonzero()[:, 0].split(max(1, HELD // (2 * k))):
        squared, index = nearest(rows[some], gallery, k, same=False, unit=True, twins=own[some])
        total[some] = tally(squared, theirs[index], c)
    return total


def _counter(coordinates: Coordinates, labels: Int[Tensor, " g"], c: int, k: int) -> Callable:
    """A function of products -2 q.g (t, g), which it overwrites, and squared lengths of the samples (t, 1).

    It returns P (t, c), and which samples are in doubt. On a CPU the k within reach are picked out, as their
    roots and exponentials cost less than the picking does; elsewhere all are computed.
    """
    norms = torch.cat(
        [coordinates.centred(1, some, torch.float64).square().sum(1) for some in chunks(coordinates.gallery)]
    )
    members = None if labels.device.type == "cpu" else torch.nn.functional.one_hot(labels, c).double()
    error, scale = 3 * rounding(coordinates.query.shape[1]), coordinates.scale

    def count(products: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if members is None:
            least, reach, beyond = _picked(products.numpy(), lengths.numpy(), norms.numpy(), k)
            total = _added(products.numpy(), least, reach, scale, labels.numpy(), c)
            least, reach, beyond, total = map(torch.from_numpy, (least, reach, beyond, total))
        else:
            squared = products.add_(norms).add_(lengths).clamp_min_(0)
            part = squared.topk(k + 1, largest=False).values
            least, reach, beyond = part[:, :1], part[:, k - 1 : k], part[:, k:]
            weight = (least.sqrt() - squared.sqrt()).div_(scale).exp_().mul_(squared <= reach)
            total = weight @ members
        unsure = error * (lengths + reach)
        doubt = (beyond - reach <= 2 * unsure) | (unsure > PRECISE * least)
        return total / total.sum(1, keepdim=True), doubt[:, 0]

    return count


def _picked(
    squared: Float[np.ndarray, "t g"],
    lengths: Float[np.ndarray, "t 1"],
    norms: Float[np.ndarray, " g"],
    k: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The smallest of each row's squared distances, the k-th and the next one, (t, 1) each.

    squared: products -2 q.g, which become the squared distances. NumPy selects several times as fast as
    torch.
    """
    squared += norms
    squared += lengths
    np.maximum(squared, 0, out=squared)
    part = np.partition(squared, k - 1, axis=1)
    return part[:, :k].min(1, keepdims=True), part[:, k - 1 : k].copy(), part[:, k:].min(1, keepdims=True)


def _added(
    squared: Float[np.ndarray, "t g"],
    least: Float[np.ndarray, "t 1"],
    reach: Float[np.ndarray, "t 1"],
    scale: float,
    labels: Int[np.ndarray, " g"],
    c: int,
) -> Float[np.ndarray, "t c"]:
    """The sum over each label of exp((nearest - d) / scale), over the rows with d^2 within reach."""
    (place,) = np.nonzero((squared <= reach).ravel())
    t, g = squared.shape
    ends = np.searchsorted(place, g * np.arange(t + 1))
    row = np.repeat(np.arange(t), np.diff(ends))
    weight = (np.sqrt(least)[row, 0] - np.sqrt(squared.ravel()[place])) / scale
    torch.from_numpy(weight).exp_()  # NumPy has no fast exponential for every processor
    return np.bincount(row * c + labels[place - row * g], weight, t * c).reshape(t, c)


def _products(
    coordinates: Coordinates, some: Int[Tensor, " t"], products: Float[Tensor, "t g"]
) -> tuple[Float[Tensor, "t g"], Float[Tensor, "t 1"]]:
    """(-2 q.g of some samples and the gallery, inf for the sample itself; squared lengths of the samples).

    products: where they are put.
    """
    q = coordinates.centred(0, some, torch.float64)
    lengths, twice = q.square().sum(1, keepdim=True), -2 * q
    for columns in chunks(coordinates.gallery):
        torch.mm(twice, coordinates.centred(1, columns, torch.float64).T, out=products[:, columns])
    mine = coordinates.own[some]
    products[(mine >= 0).nonzero()[:, 0], mine[mine >= 0]] = torch.inf
    return products, lengths
