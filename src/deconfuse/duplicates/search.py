"""Near-identical pictures among all parts of a split, in groups; the embeddings do not decide on them."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.duplicates.confirm import likeness
from deconfuse.duplicates.proposals import proposed
from deconfuse.duplicates.sketches import HASH, draw, phash
from deconfuse.retrieval.neighbours import nearest
from deconfuse.system.errors import flag
from deconfuse.system.progress import console

LARGEST = 200_000  # samples among which copies are looked for, each against all
NEAR = 4  # nearest others of each row of finished features that are looked at
SAME_ROWS = 1e-6  # squared distance of finished features, which have no pictures, for copies


@dataclass(frozen=True)
class Search:
    """find: whether to look for near-identical pictures. mirrored: also for those that are mirrored."""

    find: bool
    mirrored: bool

    def __post_init__(self):
        flag("duplicates.find", self.find)
        flag("duplicates.mirrored", self.mirrored)


@dataclass(frozen=True)
class Duplicates:
    """Groups of near-identical pictures.

    part (k,), row (k,): of each sample in a group, its part (train, query or gallery) and row there; group
    (k,): its group, from 0; ascending by group, then part and row. distance, bits (k,): squared distance of
    the embeddings, and different bits of the hash, to the nearest other of its group; bits is -1 without
    pictures.
    """

    part: np.ndarray
    row: Int[np.ndarray, " k"]
    group: Int[np.ndarray, " k"]
    distance: Float[np.ndarray, " k"]
    bits: Int[np.ndarray, " k"]

    def rows(self, part: str) -> Int[np.ndarray, " r"]:
        """The rows of a part that are in a group."""
        return self.row[self.part == part]


def search(
    plan: Search,
    split: Split,
    z: dict[str, Float[Tensor, "_ m"]],
    used: Int[Tensor, " r"] | None = None,
) -> Duplicates | None:
    """The groups of all parts; None where the plan does not look, or, saying so, among more than LARGEST.

    z: embeddings of any length, by part. used: the training samples that count (all); the others are in no
    group.

    A pair of pictures is one of copies if `proposals.proposed` has it and `confirm.likeness` is more than 0,
    whatever the embeddings. Finished features have no pictures: there a pair is one whose squared distance,
    scaled to length one, is at most SAME_ROWS. Groups are the connected components of pairs.
    """
    if not plan.find:
        return None
    parts = split.parts
    total = sum(map(len, parts.values()))
    if total > LARGEST:
        console.print(f"duplicates: not looked for among {total:,} samples, more than {LARGEST:,}")
        return None
    rows = torch.cat([z[name] for name in parts])
    if isinstance(split.image, ImageSpec):
        found = _alike(list(parts.values()), plan.mirrored, rows)
    else:
        found = _same_rows(rows)
    if split.twins is not None:  # one file that is query and gallery is no copy
        offset = len(split.train) + len(split.query)
        own = np.full(len(rows), -1)
        own[len(split.train) : offset] = np.where(split.twins >= 0, split.twins + offset, -1)
        found = found.where(own[found.first] != found.second)
    if used is not None:
        there = np.ones(total, bool)
        there[: len(split.train)] = False
        there[used.cpu().numpy()] = True
        found = found.where(there[found.first] & there[found.second])
    return _grouped(list(parts), [len(part) for part in parts.values()], found)


@dataclass(frozen=True)
class _Pairs:
    """Copies first < second, the squared distance of their embeddings, and the different bits of the hash."""

    first: Int[np.ndarray, " p"]
    second: Int[np.ndarray, " p"]
    distance: Float[np.ndarray, " p"]
    bits: Int[np.ndarray, " p"]

    def where(self, mask: Bool[np.ndarray, " p"]) -> "_Pairs":
        return _Pairs(self.first[mask], self.second[mask], self.distance[mask], self.bits[mask])


def _alike(parts: list[Part], mirrored: bool, rows: Float[Tensor, "n m"]) -> _Pairs:
    """The pairs of near-identical pictures."""
    device, sketches = rows.device, draw(parts)
    pairs = proposed(sketches.grey, mirrored, device)
    same = likeness(pairs, sketches, device) > 0
    first, second, flip = (each.cpu().numpy()[same] for each in (pairs.a, pairs.b, pairs.flip))
    grey = sketches.grey[first]
    grey[flip] = grey[flip, :, ::-1]
    bits = [int((phash(a) != phash(b)).sum()) for a, b in zip(grey, sketches.grey[second], strict=True)]
    ends = (F.normalize(rows[torch.from_numpy(end).to(device)].double()) for end in (first, second))
    distance = torch.sub(*ends).square().sum(1).cpu().numpy()
    # A pair may be alike as it is and mirrored; the one that differs in fewer bits counts.
    order = np.lexsort([bits, second, first])
    _, kept = np.unique(np.stack([first, second])[:, order], axis=1, return_index=True)
    return _Pairs(first, second, distance, np.array(bits, np.int64)).where(order[kept])


def _same_rows(rows: Float[Tensor, "n m"]) -> _Pairs:
    """The pairs of rows with one direction, of which one is among the NEAR nearest of the other."""
    k = min(NEAR, len(rows) - 1)
    squared, index = (each.cpu().numpy() for each in nearest(rows, rows, k, same=True, unit=True))
    a, at = np.nonzero((squared <= SAME_ROWS) & (index >= 0))
    b = index[a, at]
    ends = np.stack([np.minimum(a, b), np.maximum(a, b)], 1)
    pairs, where = np.unique(ends, axis=0, return_index=True)
    distance = squared[a, at][where].astype(np.float64)
    return _Pairs(pairs[:, 0], pairs[:, 1], distance, np.full(len(pairs), -1))


def _grouped(names: list[str], sizes: list[int], pairs: _Pairs) -> Duplicates:
    """The connected components, largest first, ties by their first sample."""
    n, first, second = sum(sizes), pairs.first, pairs.second
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    members = np.unique(np.concatenate([first, second]))
    best_distance, best_bits = np.full(n, np.inf), np.full(n, HASH**2)
    for ends in (first, second):
        np.minimum.at(best_distance, ends, pairs.distance)
        np.minimum.at(best_bits, ends, pairs.bits)
    counts = np.bincount(component[members], minlength=n)
    start = {c: i for i, c in reversed(list(zip(members.tolist(), component[members].tolist(), strict=True)))}
    keys = [
        (-counts[c], start[c], i) for i, c in zip(members.tolist(), component[members].tolist(), strict=True)
    ]
    order = members[sorted(range(len(keys)), key=keys.__getitem__)]
    _, group = np.unique([start[c] for c in component[order].tolist()], return_inverse=True)
    places: dict[int, int] = {}
    group = np.array([places.setdefault(int(g), len(places)) for g in group], np.int64)
    part = np.repeat(np.array(names, object), sizes)[order]
    offsets = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)[order]
    return Duplicates(part, order - offsets, group, best_distance[order], best_bits[order])
