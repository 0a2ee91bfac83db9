"""Nearest neighbours in tiles, and the retrieval metrics made of them."""

import warnings
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

TILE = (2048, 2048)  # queries x gallery rows whose distances are held at once; scripts.bench_retrieval
MANY = 256  # neighbours beyond which whole rows of distances are ranked, not tile after tile
HELD = 2**24  # of their distances, at once
LLOYD = 20  # passes of k-means at most, as is usual where NMI is reported
SEEDED = 4096  # clusters up to which k-means++ picks the start; beyond, it takes longer than the passes


@torch.no_grad()
def nearest(
    query: Float[Tensor, "q m"],
    gallery: Float[Tensor, "g m"],
    k: int,
    *,
    same: bool,
    tile: tuple[int, int] = TILE,
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The k nearest gallery rows of each query: squared Euclidean distances and indices.

    Closest first, ties by index. same: query and gallery are the same rows, and none is its own
    neighbour; a tile then serves its rows and its columns, which halves the products. k is capped at
    what there is. tile: queries and gallery rows at a time.
    """
    k = min(k, len(gallery) - same)
    if k > MANY:
        blocks = [each[1:] for each in _ranked(query, gallery, k, same)]
        return tuple(torch.cat(part) for part in zip(*blocks, strict=True))
    distance = torch.full((len(query), k), torch.inf, dtype=query.dtype, device=query.device)
    index = torch.zeros((len(query), k), dtype=torch.long, device=query.device)
    norms, lengths = query.square().sum(1), gallery.square().sum(1)
    memory = query.new_empty(min(tile[0], len(query)), min(tile[1], len(gallery)))
    for start in range(0, len(query) if k else 0, tile[0]):
        stop = min(start + tile[0], len(query))
        for first in range(start if same else 0, len(gallery), tile[1]):
            last = min(first + tile[1], len(gallery))
            squared = memory[: stop - start, : last - first]
            torch.addmm(lengths[first:last], query[start:stop], gallery[first:last].T, alpha=-2, out=squared)
            squared += norms[start:stop, None]
            if same and first < stop:
                own = torch.arange(first, min(stop, last), device=query.device)
                squared[own - start, own - first] = torch.inf
            _keep(distance[start:stop], index[start:stop], squared, first)
            if same and last > stop:  # what was found for these rows as columns comes before their own tiles
                after = max(stop, first)
                _keep(distance[after:last], index[after:last], squared[:, after - first :].T, start)
    return distance.clamp_min_(0), index


def _keep(
    distance: Float[Tensor, "t k"], index: Int[Tensor, "t k"], squared: Float[Tensor, "t g"], first: int
) -> None:
    """Put into distance and index what is nearer in squared, the distances to gallery rows from first on.

    All of them come after those kept so far, so a tie changes nothing.
    """
    k, least = distance.shape[1], squared.amin(1)
    rows = torch.nonzero(least < distance[:, -1])[:, 0]
    if not len(rows):
        return
    if k == 1:  # argmin takes the first of several equals
        distance[rows, 0], index[rows, 0] = least[rows], squared[rows].argmin(1) + first
        return
    both = torch.cat([distance[rows], squared[rows]], 1)
    place = _smallest(both, k)
    kept = index[rows].gather(1, place.clamp_max(k - 1))
    distance[rows] = both.gather(1, place)
    index[rows] = torch.where(place < k, kept, place - k + first)


def _smallest(values: Float[Tensor, "t g"], k: int) -> Int[Tensor, "t k"]:
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


def _ranked(
    query: Float[Tensor, "q m"], gallery: Float[Tensor, "g m"], k: int, same: bool
) -> Iterator[tuple[slice, Float[Tensor, "t k"], Int[Tensor, "t k"]]]:
    """`nearest`, some whole rows of distances at a time: (which queries, distances, indices).

    With many neighbours, putting each tile's into those kept so far costs more than the distances do.
    """
    norms, lengths, t = query.square().sum(1), gallery.square().sum(1), max(1, HELD // len(gallery))
    for start in range(0, len(query), t):
        some = slice(start, min(start + t, len(query)))
        squared = torch.addmm(lengths, query[some], gallery.T, alpha=-2) + norms[some, None]
        if same:
            squared.diagonal(start).fill_(torch.inf)
        index = _smallest(squared, k)
        yield some, squared.gather(1, index).clamp_min_(0), index


def metrics(
    query: Float[Tensor, "q m"],
    gallery: Float[Tensor, "g m"],
    query_labels: Int[Tensor, " q"],
    gallery_labels: Int[Tensor, " g"],
    *,
    same: bool,
    ranks: tuple[int, ...] = (1, 2, 4, 8),
) -> dict[str, float]:
    """Recall@k: share of queries with one of their class among the k nearest. MAP@R (Musgrave et
    al., ECCV 2020, eq. 1-2): with R the number of gallery samples of the query's class,

        MAP@R = 1/R sum_{i<=R} precision@i [the i-th neighbour is of the class],  mean over queries.

    All in [0, 1]. Queries whose class the gallery lacks are left out; where that is all, 0.
    """
    counts = torch.bincount(gallery_labels, minlength=int(query_labels.max()) + 1)
    relevant = counts[query_labels] - int(same)  # (q,) R of each query
    most = max(1, int(relevant.max()))
    k = min(max(*ranks, most), len(gallery) - same)
    if k > MANY:  # never all queries x k at once
        blocks = _ranked(query, gallery, k, same)
    else:
        blocks = [(slice(None), *nearest(query, gallery, k, same=same))]
    found = [
        _hit(gallery_labels[index] == query_labels[some, None], relevant[some], ranks, most)
        for some, _, index in blocks
    ]
    asked = relevant > 0
    names = [*(f"R@{rank}" for rank in ranks), "MAP@R"]
    values = torch.cat(found)[asked].mean(0).tolist() if asked.any() else [0.0] * len(names)
    return dict(zip(names, values, strict=True))


def _hit(
    hits: Bool[Tensor, "t k"], relevant: Int[Tensor, " t"], ranks: tuple[int, ...], most: int
) -> Float[Tensor, "t r"]:
    """Each query's share in every R@k, then in MAP@R."""
    position = torch.arange(1, most + 1, device=hits.device)[: hits.shape[1]]
    within = hits[:, :most] & (position <= relevant[:, None])
    precision = within.cumsum(1, dtype=torch.int32) / position.double() * within
    average = precision.sum(1) / relevant.clamp_min(1)
    return torch.stack([*(hits[:, :rank].any(1).double() for rank in ranks), average], 1)


def nmi(embeddings: Float[Tensor, "q m"], labels: Int[Tensor, " q"], seed: int = 0) -> float:
    """Normalised mutual information of the labels and as many k-means clusters as there are labels.

        NMI = 2 I(labels; clusters) / (H(labels) + H(clusters)),  in [0, 1]; 1: the clusters are the classes

    One seeded start, by k-means++ up to SEEDED classes and random samples beyond, and at most LLOYD
    passes of O(q c m) operations, with c classes.
    """
    classes = len(labels.unique())
    start = "k-means++" if classes <= SEEDED else "random"
    means = KMeans(classes, init=start, n_init=1, max_iter=LLOYD, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than classes
        clusters = means.fit_predict(embeddings.cpu().numpy())
    return float(normalized_mutual_info_score(labels.cpu().numpy(), clusters))
