"""Your own features: head and proxies are trained on them, and no image is opened.

They are in an .npz file, or a folder of .npy files, with the arrays features (n, D), labels (n,), split (n,)
and optionally paths (n,), the names of the samples. Several crops of one image may have the same path: the
second is named "PATH (2)" in all tables, and so on in the order of the rows. A query and a gallery row with
the same path and the same features are one sample, which is never its own neighbour, in whatever order the
crops of one path are listed.
"""

import zipfile
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from deconfuse.data.images import FeatureRows
from deconfuse.data.listing import Listing
from deconfuse.system.arrays import map_array
from deconfuse.system.errors import UserError, shorten
from deconfuse.system.progress import console, track
from deconfuse.system.spelling import one_spelling
from deconfuse.system.words import agree, many

NEEDED = ("features", "labels", "split")
OPTIONAL = ("paths",)
CHECKED_BYTES = 64 * 2**20  # of features that are checked at once
USUAL = 16  # features whose largest number is between 2^-USUAL and 2^USUAL stay as they are
SMALLEST = np.finfo(np.float32).tiny  # below it float32 has fewer digits, and none below 1e-45
# The greatest distance between features of one image, relative to their norm, as batch sizes change rounding.
SAME = 1e-3
# Rows with the same path are compared with the NEAREST ones among them, by distance in DIRECTIONS dimensions.
DIRECTIONS = 8
NEAREST = 32
SIDES = {"train": {"train"}, "query": {"query"}, "gallery": {"gallery"}, "test": {"query", "gallery"}}


def load(path: str) -> Listing:
    """Read the arrays; features stay on disk, mapped into memory, unless their .npz file is compressed.

    labels: whole numbers or strings; split: train and test, or train, query and gallery.
    Raises UserError if an array is missing, damaged, of a wrong type or length, or not finite, and if a row
    is all zeros: as an embedding it has no direction, and a head would make its own bias of it.
    """
    place = Path(path)
    arrays = _arrays(place)
    features = arrays["features"]
    _check_shapes(place, arrays)
    source = f"dataset features in {path}"
    exponent = _usual(_check_rows(place, features), source)
    labels, parts = (_words(place, key, arrays[key]) for key in ("labels", "split"))
    names = [f"row {i}" for i in range(len(features))]
    identities: list[Hashable] = list(range(len(features)))
    if "paths" in arrays:
        paths = _words(place, "paths", arrays["paths"])
        names = _numbered(paths, parts, source)
        identities = _identities(features, paths, parts)
    return Listing(
        FeatureRows(features, exponent),
        one_spelling(labels, source),
        parts,
        names,
        source=source,
        identities=identities,
    )


def _numbered(paths: list[str], parts: list[str], source: str) -> list[str]:
    """The paths with numbers, so that none occurs twice in a part; prints how many got a number."""
    mixed = "test" in parts and {"query", "gallery"} & set(parts)
    sides = ["train" if part == "train" else "test" for part in parts] if mixed else parts
    taken, seen, names = set(zip(sides, paths, strict=True)), Counter(), []
    if len(taken) == len(paths):
        return paths
    for side, path in zip(sides, paths, strict=True):
        seen[side, path] += 1
        name = path
        if seen[side, path] > 1:
            while (side, name) in taken:
                name = f"{path} ({seen[side, path]})"
                seen[side, path] += (side, name) in taken
            taken.add((side, name))
        names.append(name)
    renamed = [i for i, (name, path) in enumerate(zip(names, paths, strict=True)) if name != path]
    console.print(
        f"{source}: {len(renamed)} of {many(len(paths), 'row')} {agree(len(renamed), 'has', 'have')} the "
        f"path of an earlier one (crops of one image?) and {agree(len(renamed), 'gets', 'get')} a number: "
        f"paths[{renamed[0]}] is named {names[renamed[0]]}"
    )
    return names


def _identities(features: np.ndarray, paths: list[str], parts: list[str]) -> list[Hashable]:
    """For each row the number of the first row that is the same sample, which may be the row itself.

    Rows of different parts are the same sample if they have the same path and the same features. Within a
    part every row is a sample of its own, so a query row has at most one row of the gallery.
    """
    rows_of: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        rows_of.setdefault(path, []).append(i)
    same: list[int] = list(range(len(paths)))
    for rows in rows_of.values():
        if len({parts[i] for i in rows}) == 1:
            continue
        taken: dict[int, set[str]] = {}
        for i, near in zip(rows, _nearest_rows(features, rows), strict=True):
            own = SIDES.get(parts[i], {parts[i]})
            free = (same[j] for j in near if j < i and not taken[same[j]] & own)
            same[i] = next(free, i)
            taken.setdefault(same[i], set()).update(own)
    return same


def _nearest_rows(features: np.ndarray, rows: list[int]) -> Iterator[list[int]]:
    """For each of the rows those among them with the same features, the nearest first, itself included.

    At most NEAREST of them are compared. A projection to DIRECTIONS orthonormal directions, in which no
    distance grows, finds them, so the rows are not compared pair by pair.
    """
    width = features.shape[1]
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(width, min(width, DIRECTIONS))))[0]
    step = max(1, CHECKED_BYTES // (8 * width))
    blocks = (features[rows[k : k + step]].astype(np.float64) for k in range(0, len(rows), step))
    found = [(block @ directions, np.linalg.norm(block, axis=1)) for block in blocks]
    points, norms = (np.concatenate(each) for each in zip(*found, strict=True))
    tree, count = cKDTree(points), min(NEAREST, len(rows))
    for i, point, norm in zip(rows, points, norms, strict=True):
        bound = {"distance_upper_bound": 1.001 * SAME * norm}
        projected, places = tree.query(point, [*range(1, count + 1)], **bound)
        near = sorted(rows[place] for place in places[np.isfinite(projected)])
        differences = features[near].astype(np.float64) - features[i]
        distances = np.linalg.norm(differences, axis=1)
        yield [near[k] for k in np.argsort(distances, kind="stable") if distances[k] <= SAME * norm]


def _arrays(place: Path) -> dict[str, np.ndarray]:
    """The arrays by name; features are mapped instead of read, unless they are compressed."""
    if place.is_dir():
        there = {key: place / f"{key}.npy" for key in (*NEEDED, *OPTIONAL)}
        there = {key: file for key, file in there.items() if file.is_file()}
        _check_needed(place, there, ".npy")
        return {
            key: _readable(file, lambda file=file, key=key: np.load(file, "c" if key == "features" else None))
            for key, file in there.items()
        }
    if not place.is_file():
        raise UserError(
            f"dataset features: looked for {place.absolute()} and found neither an .npz file nor a folder; "
            f"it needs the arrays {', '.join(NEEDED)}; set dataset.path=FILE.npz or FOLDER"
        )
    if not zipfile.is_zipfile(place):
        raise UserError(
            f"{place}: not a whole .npz file; give one that numpy.savez wrote, or a folder with "
            f"{', '.join(f'{key}.npy' for key in NEEDED)}"
        )
    with open(place, "rb") as raw, _readable(place, lambda: np.load(raw)) as file:
        _check_needed(place, file.files, "")
        wanted = [key for key in (*NEEDED, *OPTIONAL) if key in file.files]
        return {
            key: _readable(
                f"{place}, {key}",
                lambda key=key: map_array(place, key) if key == "features" else file[key],
            )
            for key in wanted
        }


def _readable(what: Path | str, read):
    """What `read` returns; errors of numpy and zip become UserErrors."""
    try:
        return read()
    except Exception as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):  # of a file read, and mapped
            raise UserError(
                f"{what}: holds Python objects; save it as an array of numbers or of str"
            ) from None
        raise UserError(f"{what}: not a whole array ({str(error).splitlines()[0]}); save it again") from None


def _check_needed(place: Path, there, suffix: str) -> None:
    missing = [key + suffix for key in NEEDED if key not in there]
    if missing:
        raise UserError(
            f"{place}: no {', '.join(missing)}; it needs {', '.join(key + suffix for key in NEEDED)} "
            f"and may have {', '.join(key + suffix for key in OPTIONAL)}"
        )


def _check_shapes(place: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raise UserError unless features are (n, D) real numbers and the others (n,)."""
    features = arrays["features"]
    if features.ndim != 2 or features.shape[1] == 0 or features.dtype.kind not in "fiu":
        raise UserError(
            f"{place}: features are {features.dtype} of shape {features.shape}; "
            "give real numbers of shape (samples, D)"
        )
    for key, array in arrays.items():
        if key != "features" and array.shape != features.shape[:1]:
            raise UserError(
                f"{place}: {key} has shape {array.shape}, for {many(len(features), 'row')} of features "
                f"it must be ({len(features)},)"
            )


def _usual(largest: float, source: str) -> int:
    """The power of two that all features are multiplied by: 0 if the largest is neither huge nor tiny.

    Otherwise a network's first layer, its learning rate and squares in float32 would not work. A line says
    so; directions do not change, and nothing is rounded.
    """
    exponent = int(np.frexp(largest)[1])
    if abs(exponent) <= USUAL:
        return 0
    console.print(f"{source}: numbers reach {largest:.2g}, so all of them are multiplied by 2^{-exponent}")
    return -exponent


def _check_rows(place: Path, features: np.ndarray) -> float:
    """The largest absolute value; UserError, naming the row, if a number is not finite as float32, or a row
    is all zeros as float32."""
    step, zero, largest = max(1, CHECKED_BYTES // (4 * features.shape[1])), [], 0.0
    starts = range(0, len(features), step)
    for start in track(starts, "checking features", len(starts)):
        with np.errstate(over="ignore"):
            rows = features[start : start + step].astype(np.float32)
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            row, column = bad[0]
            raise UserError(
                f"{place}: features[{start + row}, {column}] is {features[start + row, column]}; "
                "every number must be finite as float32; mend or leave out that row"
            )
        most = np.abs(rows).max(1)
        zero += (start + np.flatnonzero(most < SMALLEST)).tolist()
        largest = max(largest, float(most.max()))
    if zero:
        rows = shorten((f"features[{i}]" for i in zero), 3)
        said = f"{rows} is all zeros" if len(zero) == 1 else f"{len(zero)} rows are all zeros, {rows}"
        raise UserError(
            f"{place}: {said}, as float32 at least, and so without a direction that could be compared; "
            "extract these features again, or leave such rows out of all arrays (keep = features.any(1))"
        )
    return largest


def _words(place: Path, key: str, array: np.ndarray) -> list[str]:
    """An array of strings or, for labels, of whole numbers as strings; UserError for anything else."""
    kinds = "iuUS" if key == "labels" else "US"
    if array.dtype.kind not in kinds:
        raise UserError(
            f"{place}: {key} are {array.dtype}; give {'whole numbers or ' if key == 'labels' else ''}strings"
        )
    try:
        words = [item.decode() if isinstance(item, bytes) else str(item) for item in array.tolist()]
    except UnicodeDecodeError:
        raise UserError(f"{place}: {key} are bytes that are no UTF-8; save them as str") from None
    if "" in words:
        raise UserError(f"{place}: {key}[{words.index('')}] is empty; fill it or leave out that row")
    return words
