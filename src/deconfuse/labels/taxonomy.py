"""Classify training classes by their relabel suggestions (Liu et al., section 5, Table 5).

In a class with few suggestions, single samples are wrong. If a class has many that agree on one label, the
two classes should perhaps be merged.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MANY, FEW = 0.10, 0.05  # shares of a class's samples with suggestions
ENTROPY = 0.35  # nats, th_H
LEAN = 0.9  # share of the suggestions
KINDS = ("centralized", "diversified", "individual", "others")


def taxonomy(
    labels: Int[np.ndarray, " n"],
    recommended: Int[np.ndarray, " n"],
    suggested: Bool[np.ndarray, " n"],
    many: float = MANY,
    few: float = FEW,
    entropy: float = ENTROPY,
    lean: float = LEAN,
) -> pd.DataFrame:
    """A row for each class with suggestions, by class id. suggested: True for samples to be relabelled.

    p_l is the share of the class's suggestions that recommend label l, and H = -sum p_l log p_l, in nats.
    kind, as in the paper: if a share of more than `many` of the samples has suggestions, centralized if H <
    `entropy` and else diversified; individual if the share is less than `few`; else others. kind_by_share,
    as in the authors' scripts: the same with max p_l >= `lean` for centralized. leans_to: the label of max
    p_l, ties to the smaller id.
    """
    rows = []
    for c in np.unique(labels[suggested]):
        mine = labels == c
        says, counts = np.unique(recommended[mine & suggested], return_counts=True)
        p = counts / counts.sum()
        share, h = float(counts.sum() / mine.sum()), float(-(p * np.log(p)).sum())
        kinds = [_kind(share, one, many, few) for one in (h < entropy, bool(p.max() >= lean))]
        rows.append((c, mine.sum(), counts.sum(), share, says[counts.argmax()], p.max(), h, *kinds))
    columns = "class samples suggestions share leans_to lean entropy kind kind_by_share".split()
    return pd.DataFrame(rows, columns=columns)


def _kind(share: float, one_label: bool, many: float, few: float) -> str:
    if share > many:
        return "centralized" if one_label else "diversified"
    return "individual" if share < few else "others"


def merges(table: pd.DataFrame, kind: str = "kind") -> Int[np.ndarray, "m 2"]:
    """(class, the class to merge it with) of each class that is centralized by the column `kind`."""
    return table.loc[table[kind] == "centralized", ["class", "leans_to"]].to_numpy(np.int64)


def merge_quality(
    pairs: Int[np.ndarray, "m 2"], groups: tuple[tuple[int, ...], ...], num_classes: int
) -> dict[str, float | int | None] | None:
    """Precision and recall, in [0, 1], of the pairs of training classes that merging joins.

    Merging is transitive: a with b and b with c joins a and c. A pair is right if both classes are in one of
    the groups known to look alike. precision is None if nothing is joined; the whole result is None if no two
    training classes are known to look alike.
    """
    known = _pairs(groups, num_classes)
    if not known:
        return None
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(num_classes, num_classes))
    _, component = connected_components(graph, directed=False)
    joined = _pairs([np.flatnonzero(component == one).tolist() for one in np.unique(component)], num_classes)
    right = len(joined & known)
    return {
        "joined": len(joined),
        "known": len(known),
        "precision": right / len(joined) if joined else None,
        "recall": right / len(known),
    }


def _pairs(groups: Iterable[Sequence[int]], num_classes: int) -> set[tuple[int, int]]:
    """The ordered pairs of training classes (ids below num_classes) that share a group."""
    return {
        (int(a), int(b)) for group in groups for a, b in combinations(sorted(group), 2) if b < num_classes
    }
