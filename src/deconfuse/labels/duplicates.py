"""Near-identical pictures: proposed by their embeddings, confirmed by a perceptual hash and by their pixels.

The hash sorts out what is another picture; pixels tell apart what the hash does not, such as one letter in
two fonts, as they are compared in place, also where one of the two was cropped.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import imagehash
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.retrieval.neighbours import nearest
from deconfuse.system.errors import UserError, flag
from deconfuse.system.progress import console, track

LARGEST = 200_000  # samples among which copies are looked for, each against all
NEAR = 4  # nearest others of each sample that are looked at
# Squared distance of the embeddings up to which a pair is looked at, in [0, 4]; docs/duplicates.md says how
# the four numbers were measured.
CLOSE = 0.5
SIDE = 16  # of the hash: SIDE^2 bits
BITS = 116  # of the 256 bits that a copy may differ in; of two unrelated pictures half of them do
ALIKE = 0.985  # least correlation of the pixels of copies, in [-1, 1]
PIXELS, LARGER = 40, 42  # sides of the grey pictures that are correlated; of 42, 40 are a crop by 5 %
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


def search(plan: Search, split: Split, z: dict[str, Float[Tensor, "_ m"]]) -> Duplicates | None:
    """The groups of all parts; None where the plan does not look, or, saying so, among more than LARGEST.

    z: embeddings of any length, by part.

    A pair is one of near-identical pictures where one is among the NEAR nearest others of the other, the
    squared distance of their embeddings, scaled to length one, is at most CLOSE, their perceptual hashes
    (imagehash.phash, SIDE^2 bits) differ in at most BITS bits, and `likeness` of their pixels is at least
    ALIKE. Finished features have no pictures: there the distance alone is at most SAME_ROWS. Groups are the
    connected components of pairs.
    """
    if not plan.find:
        return None
    parts = {"train": split.train, "query": split.query}
    parts |= {} if split.shared_gallery else {"gallery": split.gallery}
    total = sum(map(len, parts.values()))
    if total > LARGEST:
        console.print(f"duplicates: not looked for among {total:,} samples, more than {LARGEST:,}")
        return None
    rows = torch.cat([z[name] for name in parts])
    first, second, distance = _close(rows, CLOSE if isinstance(split.image, ImageSpec) else SAME_ROWS)
    if split.twins is not None:  # one file that is query and gallery is no copy
        offset = len(split.train) + len(split.query)
        own = np.full(len(rows), -1)
        own[len(split.train) : offset] = np.where(split.twins >= 0, split.twins + offset, -1)
        apart = own[first] != second
        first, second, distance = first[apart], second[apart], distance[apart]
    bits = np.full(len(first), -1)
    if isinstance(split.image, ImageSpec) and len(first):
        bits, like = _compared(list(parts.values()), first, second, plan.mirrored)
        same = (bits <= BITS) & (like >= ALIKE)
        first, second, distance, bits = first[same], second[same], distance[same], bits[same]
    return _grouped(list(parts), [len(part) for part in parts.values()], first, second, distance, bits)


def _close(rows: Float[Tensor, "n m"], most: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a, b, squared distance) of pairs a < b, of which one is among the NEAR nearest of the other."""
    k = min(NEAR, len(rows) - 1)
    if k < 1:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    squared, index = (each.cpu().numpy() for each in nearest(rows, rows, k, same=True, unit=True))
    a, at = np.nonzero((squared <= most) & (index >= 0))
    b = index[a, at]
    ends = np.stack([np.minimum(a, b), np.maximum(a, b)], 1)
    pairs, where = np.unique(ends, axis=0, return_index=True)
    return pairs[:, 0], pairs[:, 1], squared[a, at][where].astype(np.float64)


@dataclass(frozen=True)
class Sketch:
    """What is kept of a picture: its perceptual hash (SIDE^2,), and two small grey pictures of 8 bits."""

    hash: Bool[np.ndarray, " b"]
    whole: np.ndarray
    larger: np.ndarray

    @classmethod
    def of(cls, image: Image.Image) -> "Sketch":
        """The sketch of a picture, whose sides are stretched to a square."""
        grey = image.convert("L")
        small = (
            np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0))
            for side in (PIXELS, LARGER)
        )
        return cls(phash(grey), *small)


def phash(image: Image.Image) -> Bool[np.ndarray, " b"]:
    """The perceptual hash of a picture: the signs of its low frequencies against their median."""
    return imagehash.phash(image.convert("L"), hash_size=SIDE).hash.ravel()


def likeness(one: Sketch, other: Sketch) -> float:
    """The largest correlation of one whole picture with the other one, or with a window of it, in [-1, 1].

    The nine windows are LARGER - PIXELS smaller, as after a crop at either end, or half at both. 1: equal
    pixels, up to brightness and contrast; a picture of one grey is like nothing (0).
    """
    whole = [_centred(sketch.whole[None])[0] for sketch in (one, other)]
    found = [float(whole[0] @ whole[1])]
    for mine, theirs in ((whole[0], other), (whole[1], one)):
        found.append(float((_centred(_windows(theirs.larger)) @ mine).max()))
    return max(found)


def _windows(larger: np.ndarray) -> np.ndarray:
    """The windows of PIXELS^2 of a picture of LARGER^2, (9, PIXELS, PIXELS)."""
    ends = range(LARGER - PIXELS + 1)
    return np.stack([larger[y : y + PIXELS, x : x + PIXELS] for y in ends for x in ends])


def _centred(pictures: np.ndarray) -> Float[np.ndarray, "w p"]:
    """Pictures as rows of mean 0 and length 1, or of zeros where all pixels are nearly equal."""
    rows = pictures.reshape(len(pictures), -1).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > PIXELS, length, np.inf)  # a deviation of one grey of 255


def _compared(
    parts: list[Part], first: np.ndarray, second: np.ndarray, mirrored: bool
) -> tuple[Int[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """(in how many bits the hashes of each pair differ, `likeness`); SIDE^2 and 0 where a picture cannot be
    read. mirrored: also with the first one's mirror image, and the more alike of both counts."""
    asked = np.unique(np.concatenate([first, second])).tolist()
    starts = np.cumsum([0, *map(len, parts)])

    def one(i: int) -> list[Sketch]:
        at = int(np.searchsorted(starts, i, side="right")) - 1
        try:
            image = parts[at].image(int(i - starts[at]))
        except UserError:  # the run has named it where it read the data
            return []
        return [Sketch.of(image), *([Sketch.of(ImageOps.mirror(image))] if mirrored else [])]

    with ThreadPoolExecutor() as pool:
        sketches = dict(
            zip(asked, track(pool.map(one, asked), "looking for copies", len(asked)), strict=True)
        )
    bits, like = np.full(len(first), SIDE**2), np.zeros(len(first))
    for p, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        for mine in sketches[a] if sketches[b] else []:
            differ = int((mine.hash != sketches[b][0].hash).sum())
            alike = likeness(mine, sketches[b][0]) if differ <= BITS else 0.0
            if alike > like[p] or bits[p] > BITS:
                bits[p], like[p] = differ, alike
    return bits, like


def _grouped(
    names: list[str],
    sizes: list[int],
    first: np.ndarray,
    second: np.ndarray,
    distance: np.ndarray,
    bits: np.ndarray,
) -> Duplicates:
    """The connected components, largest first, ties by their first sample."""
    n = sum(sizes)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    members = np.unique(np.concatenate([first, second]))
    best_distance, best_bits = np.full(n, np.inf), np.full(n, SIDE**2)
    for ends in (first, second):
        np.minimum.at(best_distance, ends, distance)
        np.minimum.at(best_bits, ends, bits)
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
