"""Nearest neighbours in tiles, and the retrieval metrics made of them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

TILE_BYTES = 64 * 2**20  # of distances held at once; never queries x gallery


def nearest(
    query: Float[Tensor, "q m"],
    gallery: Float[Tensor, "g m"],
    k: int,
    *,
    same: bool,
    tile: int | None = None,
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The k nearest gallery rows of each query: squared Euclidean distances and indices.

    Closest first, ties by index. same: query and gallery are the same rows, and none is its own
    neighbour. k is capped at what there is. tile: queries at a time (by memory).
    """
    k = min(k, len(gallery) - same)
    tile = tile or max(1, TILE_BYTES // (4 * len(gallery)))
    norms = gallery.square().sum(1)
    distances, indices = [], []
    for start in range(0, len(query), tile):
        rows = query[start : start + tile]
        squared = norms - 2 * rows @ gallery.T  # (t, g), short of ||row||^2, which orders nothing
        if same:
            own = torch.arange(start, start + len(rows), device=rows.device)
            squared[own - start, own] = torch.inf
        value, index = squared.topk(k, largest=False, sorted=True)
        # topk takes any of several equals at the k-th place: such rows are sorted whole.
        tied = torch.nonzero((squared <= value[:, -1:]).sum(1) > k)[:, 0]
        if len(tied):
            index[tied] = torch.argsort(squared[tied], dim=1, stable=True)[:, :k]
            value[tied] = squared[tied].gather(1, index[tied])
        order = torch.argsort(index, dim=1)
        order = order.gather(1, torch.argsort(value.gather(1, order), dim=1, stable=True))
        distances.append((value.gather(1, order) + rows.square().sum(1, keepdim=True)).clamp_min(0))
        indices.append(index.gather(1, order))
    return torch.cat(distances), torch.cat(indices)


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

    All in [0, 1]. Queries whose class the gallery lacks count 0 for recall and are left out of MAP@R.
    """
    counts = torch.bincount(gallery_labels, minlength=int(query_labels.max()) + 1)
    relevant = counts[query_labels] - int(same)  # (q,) R of each query
    k = max(*ranks, int(relevant.max()))
    _, index = nearest(query, gallery, k, same=same)
    hits = gallery_labels[index] == query_labels[:, None]  # (q, k)
    result = {f"R@{rank}": hits[:, :rank].any(1).float().mean().item() for rank in ranks}
    position = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    within = hits & (position <= relevant[:, None])
    precision = within.cumsum(1) / position
    average = (precision * within).sum(1) / relevant.clamp_min(1)
    result["MAP@R"] = average[relevant > 0].mean().item() if (relevant > 0).any() else 0.0
    return result
