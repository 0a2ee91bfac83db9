"""Thumbnails of a data set on sheets of a hundred; a browser loads a sheet when a part of it is shown."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image

from deconfuse.data.pixels import thumbnail
from deconfuse.data.split import ImageSpec, Part
from deconfuse.system.errors import UserError, shorten
from deconfuse.system.files import whole_file
from deconfuse.system.progress import console, track
from deconfuse.system.words import many

CELL = 96  # pixels: a thumbnail's longer side at most, and the grid of a sheet
COLUMNS = 10  # and rows; a sheet of 100 decodes to under 4 MB


@dataclass(frozen=True)
class Sheets:
    """Where each thumbnail is: on sheet place // COLUMNS^2, in cell place % COLUMNS^2, counted row by row.

    A thumbnail lies in the upper left corner of its cell. place: for each part (n,). size: for each part
    (n, 2), width and height in pixels; 0 for an image that could not be read. suffix: of the sheets' file
    names, 0.SUFFIX, 1.SUFFIX ...
    """

    place: dict[str, Int[np.ndarray, " n"]]
    size: dict[str, Int[np.ndarray, "n 2"]]
    suffix: str


def make(folder: Path, parts: dict[str, Part], spec: ImageSpec) -> Sheets:
    """Write the sheets of all parts. Samples of one class lie together, because they are shown together.

    Every image is read once. An image that cannot be read leaves its cell empty and is named in the terminal;
    it does not end a run that is otherwise finished.
    """
    mode, suffix = ("L", "png") if spec.channels == 1 else ("RGB", "jpg")
    order = [(name, i) for name, part in parts.items() for i in np.argsort(part.labels, kind="stable")]
    place = {name: np.zeros(len(part), np.int64) for name, part in parts.items()}
    size = {name: np.zeros((len(part), 2), np.int64) for name, part in parts.items()}
    failed: list[str] = []

    def read(key: tuple[str, int]) -> Image.Image | str:
        name, i = key
        try:
            return thumbnail(parts[name].image(i), mode, CELL)
        except UserError as error:
            return str(error).split(";")[0]

    with ThreadPoolExecutor() as pool:
        pictures = track(_ahead(pool, read, order), "thumbnails", len(order))
        for start in range(0, len(order), COLUMNS**2):
            keys = order[start : start + COLUMNS**2]
            sheet = Image.new(mode, (CELL * COLUMNS, CELL * -(-len(keys) // COLUMNS)), "white")
            for cell, ((name, i), picture) in enumerate(zip(keys, pictures, strict=False)):
                place[name][i] = start + cell
                if isinstance(picture, str):
                    failed.append(picture)
                    continue
                size[name][i] = picture.size
                sheet.paste(picture, (CELL * (cell % COLUMNS), CELL * (cell // COLUMNS)))
            with whole_file(folder / f"{start // COLUMNS**2}.{suffix}") as partial:
                sheet.save(partial, format="PNG" if suffix == "png" else "JPEG", quality=85, compress_level=2)
    if failed:
        console.print(f"report: {many(len(failed), 'picture')} left out: {shorten(failed, 3)}")
    return Sheets(place, size, suffix)


def _ahead(pool: ThreadPoolExecutor, read, order: list, most: int = 4 * COLUMNS**2) -> Iterator:
    """The pool's results in order; only a few sheets' images are in memory at a time."""
    for start in range(0, len(order), most):
        yield from pool.map(read, order[start : start + most])
