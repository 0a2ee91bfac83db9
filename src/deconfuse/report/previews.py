"""Previews of the samples that are reviewed, large enough to decide by, from the original's pixels."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from deconfuse.data.images import file_of
from deconfuse.data.pixels import as_mode
from deconfuse.data.split import Part
from deconfuse.report.thumbnails import CELL
from deconfuse.system.errors import UserError
from deconfuse.system.files import whole_file
from deconfuse.system.progress import track

SIDE = 320  # pixels of a preview's longer side at most
MOST = 4000  # previews written: about 40 MB of photographs
QUALITY = 82  # of WebP


def make(
    folder: Path, parts: dict[str, Part], rows: dict[str, Iterable[int]], channels: int
) -> dict[str, dict]:
    """Write a preview of each of these rows of each part, the first MOST of all; by part what was written.

    Returns by part {row: [width, height] of the original, in pixels}. No file is written for an image that is
    no larger than its thumbnail, nor for one that cannot be read (which `thumbnails.make` has named).
    """
    mode = "L" if channels == 1 else "RGB"
    keys = [(name, int(i)) for name, some in rows.items() for i in dict.fromkeys(some)][:MOST]
    written: dict[str, dict] = {name: {} for name in parts}

    def one(key: tuple[str, int]) -> tuple[int, int] | None:
        name, i = key
        try:
            image = as_mode(parts[name].image(i), mode)
        except UserError:
            return None
        size = image.size
        if max(size) > CELL:
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
            with whole_file(folder / f"{name}-{i}.webp") as partial:
                image.save(partial, format="WEBP", quality=QUALITY, method=2)
        return size

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(keys), 256):
            some = keys[start : start + 256]
            made = track(pool.map(one, some), "previews", len(some)) if start == 0 else pool.map(one, some)
            for (name, i), size in zip(some, made, strict=True):
                if size is not None:
                    written[name][i] = list(size)
    return {name: sizes for name, sizes in written.items() if sizes}


def originals(part: Part, report: Path) -> dict | None:
    """Where the part's image files lie, as seen from the report's folder.

    {"prefix": text before every sample's name} where that is enough to find each file, else {"paths": one for
    each sample}; None where the samples are no files.
    """
    if not len(part) or file_of(part.images, int(part.rows[0])) is None:
        return None
    files = [file_of(part.images, int(row)) for row in part.rows]
    if None in files:
        return None
    start = report.absolute()
    cut = {}
    paths = []
    for path in files:
        folder, file = os.path.split(os.path.abspath(path))
        if folder not in cut:
            cut[folder] = Path(os.path.relpath(folder, start)).as_posix()
        paths.append(f"{cut[folder]}/{file}")
    first = paths[0].removesuffix(part.names[0])
    if all(path == first + name for path, name in zip(paths, part.names, strict=True)):
        return {"prefix": first}
    return {"paths": paths}
