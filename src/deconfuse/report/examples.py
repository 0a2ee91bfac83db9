"""What lies beside a sample on the report's pages: typical samples of a class, likely labels, neighbours."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.labels.relabel import Votes
from deconfuse.retrieval import directions
from deconfuse.retrieval.neighbours import nearest

TYPICAL = 6  # samples that stand for a class
LIKELY = 5  # labels of a sample, one for each of the keys 1 to 5
NEAR = 8  # neighbours of a test sample


def typical(
    z: Float[Tensor, "n m"], labels: Int[np.ndarray, " n"], doubted: Bool[np.ndarray, " n"], classes: int
) -> list[list[int]]:
    """Of each class the TYPICAL samples nearest to the mean direction of its members, nearest first.

    Samples that are doubted count neither for the mean nor as typical, unless all of a class are.
    """
    e = directions.unit(z, torch.float64).cpu().numpy()
    found: list[list[int]] = [[] for _ in range(classes)]
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(classes + 1))
    for c in range(classes):
        mine = order[ends[c] : ends[c + 1]]
        if len(mine):
            mine = mine[~doubted[mine]] if not doubted[mine].all() else mine
            closeness = e[mine] @ e[mine].mean(0)
            found[c] = mine[np.argsort(-closeness, kind="stable")[:TYPICAL]].tolist()
    return found


def likely(
    votes: Votes, recommended: Int[Tensor, " n"] | None = None
) -> Iterator[tuple[list[int], list[float]]]:
    """For each sample the at most LIKELY labels with the largest votes, and the votes, in [0, 1]; largest
    first, ties by class id. A sample without votes has none. recommended: a label that comes before them.
    """
    wanted = None if recommended is None else recommended.tolist()
    for start in range(0, len(votes.own), 1024):
        some = slice(start, start + 1024)
        rows = zip(votes.classes[some].tolist(), votes.share[some].tolist(), strict=True)
        for i, (classes, shares) in enumerate(rows, start):
            one = {c: share for c, share in zip(classes, shares, strict=True) if share > 0}
            best = sorted(one.items(), key=lambda item: (-item[1], item[0]))
            if one and wanted is not None:
                first = wanted[i]
                best = [(first, one.get(first, 0.0)), *(item for item in best if item[0] != first)]
            yield [c for c, _ in best[:LIKELY]], [float(f"{share:.4g}") for _, share in best[:LIKELY]]


def neighbours_of_queries(
    query: Float[Tensor, "q m"], gallery: Float[Tensor, "g m"], same: bool, twins: Int[Tensor, " q"] | None
) -> tuple[list[list[int]], list[list[float]]]:
    """Of each query its NEAR nearest gallery rows, and their squared distances; missing ones are left out."""
    k = min(NEAR, len(gallery) - int(same))
    if k < 1:
        return [[] for _ in range(len(query))], [[] for _ in range(len(query))]
    squared, index = nearest(query, gallery, k, same=same, unit=True, twins=twins)
    rows, distances = [], []
    for near, far in zip(index.tolist(), squared.tolist(), strict=True):
        rows.append([j for j in near if j >= 0])
        distances.append([float(f"{d:.4g}") for j, d in zip(near, far, strict=True) if j >= 0])
    return rows, distances
