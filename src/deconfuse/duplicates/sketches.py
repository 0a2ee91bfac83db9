"""Small pictures of each picture, which is read once: all that is kept while copies are looked for."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import imagehash
import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from deconfuse.data.images import ArrayImages, FileImages
from deconfuse.data.split import Part
from deconfuse.system.errors import UserError
from deconfuse.system.progress import track

SIDE = 64  # pixels of the grey pictures, which are those that imagehash.phash makes of hash_size HASH
HASH = 16  # HASH^2 bits
COLOURS = 8  # side of the pictures in colour
AT_ONCE = 256  # pictures that a thread reads without a pause


@dataclass(frozen=True)
class Sketches:
    """Small pictures of n samples, each stretched to a square.

    grey (n, SIDE, SIDE), colour (n, COLOURS, COLOURS, 3): 8 bits; 0 where a picture cannot be read, and in
    colour where it has none. flat (n,): `flatness`.
    """

    grey: Int[np.ndarray, "n s s"]
    colour: Int[np.ndarray, "n c c 3"]
    flat: Float[np.ndarray, " n"]


def draw(parts: Sequence[Part]) -> Sketches:
    """The sketches of all samples of the parts, one part after the other; 4.3 kB of memory each."""
    n = sum(map(len, parts))
    shapes = (n, SIDE, SIDE), (n, COLOURS, COLOURS, 3)
    made = Sketches(*(np.zeros(shape, np.uint8) for shape in shapes), np.zeros(n))
    # Data sets that another library reads may not be read by several threads.
    threads = all(isinstance(part.images, (FileImages, ArrayImages)) for part in parts)
    places = [(part, i) for part in parts for i in range(len(part))]

    def some(start: int) -> None:
        for at in range(start, min(start + AT_ONCE, n)):
            part, i = places[at]
            try:
                image = part.image(i)
            except UserError:  # the run has named it where it read the data
                continue
            made.grey[at] = grey(image)
            made.flat[at] = flatness(made.grey[at])
            if image.mode != "L":
                made.colour[at] = colour(image)

    starts = range(0, n, AT_ONCE)
    with ThreadPoolExecutor(None if threads else 1) as pool:
        for _ in track(pool.map(some, starts), "looking for copies", len(starts)):
            pass
    return made


def grey(image: Image.Image) -> Int[np.ndarray, "s s"]:
    """The grey picture, by the filter that imagehash.phash uses, so that its hash is that of the picture."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def flatness(grey: Int[np.ndarray, "s s"]) -> float:
    """The share of the pixels that have the commonest grey, give or take 4 of 255: of a drawing's ground."""
    counts = np.bincount(grey.ravel() >> 2, minlength=64)
    return float((counts[1:] + counts[:-1]).max() / grey.size)


def colour(image: Image.Image) -> Int[np.ndarray, "c c 3"]:
    """The mean colours of the fields of a COLOURS x COLOURS grid."""
    small = image.resize((COLOURS, COLOURS), Image.Resampling.BOX)
    return np.asarray(small.convert("RGB"))


def phash(grey: Int[np.ndarray, "s s"]) -> Bool[np.ndarray, " b"]:
    """imagehash's perceptual hash of a picture: the signs of its low frequencies against their median."""
    return imagehash.phash(Image.fromarray(grey), hash_size=HASH).hash.ravel()
