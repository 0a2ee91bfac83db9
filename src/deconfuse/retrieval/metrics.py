"""Retrieval metrics: R@k and MAP@R from one search of the nearest neighbours, and NMI from k-means."""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from deconfuse.retrieval.neighbours import search
from deconfuse.retrieval.queries import Queries

LLOYD = 20  # passes of k-means at most, as is usual where NMI is reported
SEEDED = 4096  # clusters up to which k-means++ picks the start; beyond, it takes longer than the passes


@dataclass(frozen=True)
class Answers:
    """What one search says of q queries: the nearest gallery row of each (-1: there is none), R, the number
    of gallery samples of its class beside itself, and `metrics` (MAP@R only where asked)."""

    first: Int[Tensor, " q"]
    relevant: Int[Tensor, " q"]
    found: dict[str, float]


def answer(test: Queries, *, ranks: tuple[int, ...], unit: bool, whole: bool = True) -> Answers:
    """One search for everything: R@1 is the share of queries with R > 0 whose first is of their class.

    whole: MAP@R too, for which R neighbours are searched. unit: as of `nearest`.
    """
    query_labels, gallery_labels, twins = test.query_labels, test.gallery_labels, test.twins
    counts = torch.bincount(gallery_labels, minlength=int(query_labels.max()) + 1)
    relevant = counts[query_labels] - int(test.same)  # (q,) R of each query
    if twins is not None:
        relevant = relevant - ((twins >= 0) & (gallery_labels[twins.clamp_min(0)] == query_labels)).long()
    most = max(1, int(relevant.max())) if whole else 1
    first, shares = [], []
    k = max(*ranks, most)
    blocks = search(test.query, test.gallery, k, same=test.same, unit=unit, twins=twins)
    for some, _, index in blocks:
        hits = (gallery_labels[index.clamp_min(0)] == query_labels[some, None]) & (index >= 0)
        shares.append(_hit(hits, relevant[some], ranks, most))
        first.append(index[:, 0] if index.shape[1] else index.new_full((len(index),), -1))
    asked = relevant > 0
    names = [*(f"R@{rank}" for rank in ranks), "MAP@R"]
    values = torch.cat(shares)[asked].mean(0).tolist() if asked.any() else [0.0] * len(names)
    found = dict(zip(names, values, strict=True))
    return Answers(torch.cat(first), relevant, found)


def metrics(test: Queries, *, ranks: tuple[int, ...] = (1, 2, 4, 8), unit: bool = False) -> dict[str, float]:
    """Recall@k: share of queries with one of their class among the k nearest. MAP@R (Musgrave et
    al., ECCV 2020, eq. 1-2): with R the number of gallery samples of the query's class,

        MAP@R = 1/R sum_{i<=R} precision@i [the i-th neighbour is of the class],  mean over queries.

    All in [0, 1]. Queries whose class the gallery lacks are left out; where that is all, 0.
    """
    return answer(test, ranks=ranks, unit=unit).found


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


MEASURES = ("R@1", "MAP@R")  # what two models of one data set are compared by
