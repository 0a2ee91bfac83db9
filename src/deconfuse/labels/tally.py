"""Votes by class: the sum of exp(-d) over each class's members among a sample's k nearest others.

Where k is large, the sums need nobody's neighbours in order: the distance of the k-th says who counts.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.retrieval.coordinates import Coordinates, rounding
from deconfuse.retrieval.neighbours import HELD, PRECISE, nearest
from deconfuse.system.progress import track

COLUMNS = 2**20  # numbers of gallery rows that are moved to the centre at once
CACHED = 2**18  # distances that are ranked at once: so few stay in the processor's cache


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
    open_, adds = torch.zeros_like(labels, dtype=torch.bool), _adder(theirs, c)
    tiles = torch.arange(len(rows), device=rows.device).split(max(1, HELD // (2 * len(gallery))))
    memory = total.new_empty(len(tiles[0]), len(gallery))
    with ThreadPoolExecutor(torch.get_num_threads() if rows.device.type == "cpu" else 1) as pool:
        for some in track(tiles, "votes of many neighbours", len(tiles)):
            squared, lengths = _squared(coordinates, some, memory[: len(some)])
            step = max(1, CACHED // len(gallery))
            parts = list(zip(squared.split(step), lengths.split(step), strict=True))
            done = list(pool.map(lambda part: _counted(coordinates, *part, adds, k), parts))
            total[some], open_[some] = (torch.cat(each) for each in zip(*done, strict=True))
    for some in open_.nonzero()[:, 0].split(max(1, HELD // (2 * k))):
        squared, index = nearest(rows[some], gallery, k, same=False, unit=True, twins=own[some])
        total[some] = tally(squared, theirs[index], c)
    return total


def _counted(
    coordinates: Coordinates,
    squared: Float[Tensor, "t g"],
    lengths: Float[Tensor, "t 1"],
    adds: Callable,
    k: int,
) -> tuple[Float[Tensor, "t c"], Bool[Tensor, " t"]]:
    """(P, which samples are in doubt) of some samples, by their scaled distances to the gallery."""
    least, reach, beyond = _ranked(squared, k)
    unsure = rounding(coordinates.query.shape[1]) * 3 * (lengths + reach)
    doubt = (beyond - reach <= 2 * unsure) | (unsure > PRECISE * least)
    total = adds(squared, least.sqrt(), reach, coordinates.scale)
    return total / total.sum(1, keepdim=True), doubt[:, 0]


def _adder(labels: Int[Tensor, " g"], c: int) -> Callable[..., Float[Tensor, "t c"]]:
    """What adds up exp((nearest - d) / scale) by label, over the gallery rows with d^2 within reach.

    On a CPU the few that are within reach are picked out, as roots and exponentials cost more than the
    picking; elsewhere all are computed, and a product adds them up.
    """
    if labels.device.type == "cpu":
        theirs = labels.numpy()

        def picked(squared: Tensor, nearest: Tensor, reach: Tensor, scale: float) -> Tensor:
            values, inside = squared.numpy(), squared.numpy() <= reach.numpy()
            row = np.repeat(np.arange(len(values)), np.count_nonzero(inside, axis=1))
            column = np.flatnonzero(inside) - row * values.shape[1]
            weight = nearest.numpy()[row, 0] - np.sqrt(values[inside])
            np.exp(np.divide(weight, scale, out=weight), out=weight)
            sums = np.bincount(row * c + theirs[column], weight, len(values) * c)
            return torch.from_numpy(sums).view(-1, c)

        return picked
    members = torch.nn.functional.one_hot(labels, c).double()

    def multiplied(squared: Tensor, nearest: Tensor, reach: Tensor, scale: float) -> Tensor:
        weight = (nearest - squared.sqrt()).div_(scale).exp_().mul_(squared <= reach)
        return weight @ members

    return multiplied


def _ranked(values: Float[Tensor, "t g"], k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest value of each row, the k-th smallest and the next one, (t, 1) each.

    On a CPU by NumPy, whose selection is several times as fast.
    """
    if values.device.type == "cpu":
        part = torch.from_numpy(np.partition(values.numpy(), k - 1, axis=1))
    else:
        part = values.topk(k + 1, largest=False).values
    return part[:, :k].amin(1, keepdim=True), part[:, k - 1 : k], part[:, k:].amin(1, keepdim=True)


def _squared(
    coordinates: Coordinates, some: Int[Tensor, " t"], squared: Float[Tensor, "t g"]
) -> tuple[Float[Tensor, "t g"], Float[Tensor, "t 1"]]:
    """(scaled squared distances to the gallery, inf to the sample itself; squared lengths of the samples).

    squared: where the distances are put.
    """
    q = coordinates.centred(0, some, torch.float64)
    lengths, g = q.square().sum(1, keepdim=True), len(coordinates.gallery)
    step = max(1, COLUMNS // q.shape[1])
    for start in range(0, g, step):
        part = coordinates.centred(1, slice(start, start + step), torch.float64)
        squared[:, start : start + step] = torch.addmm(part.square().sum(1), q, part.T, alpha=-2)
    squared.add_(lengths).clamp_min_(0)
    mine = coordinates.own[some]
    squared[(mine >= 0).nonzero()[:, 0], mine[mine >= 0]] = torch.inf
    return squared, lengths
