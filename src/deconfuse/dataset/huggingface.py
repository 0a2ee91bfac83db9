"""A data set of the library datasets: a folder that it has saved, Arrow or Parquet files, or a name on the
hub."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from deconfuse.data.images import LazyImages
from deconfuse.data.listing import Listing, by_class
from deconfuse.system.errors import UserError, did_you_mean

FORMATS = {".parquet": "parquet", ".arrow": "arrow"}


def load(
    path: str,
    config: str | None = None,
    image: str | None = None,
    label: str | None = None,
    test_classes: float | list[str] | None = None,
    seed: int = 0,
) -> Listing:
    """Read all splits of the data set; images are decoded where they are used.

    path: a folder of save_to_disk, a folder or file of Parquet or Arrow, or a name on the hub, for which
    there has to be a network. config: the hub's configuration. image, label: columns; None: the first of that
    type. test_classes, seed: as of dataset=folder; splits whose classes are disjoint stay as they are. Raises
    UserError where the library or a column is missing, and where the data set cannot be read.
    """
    library = _library()
    splits = _splits(library, path, config)
    tables = {}
    for name, table in splits.items():
        features = table.features
        image_column = _column(features, image, library.Image, "image", path)
        label_column = _column(features, label, library.ClassLabel, "label", path)
        tables[name] = table.cast_column(image_column, library.Image(decode=False))
    words, names, parts, rows = [], [], [], []
    for name, table in tables.items():
        kind = table.features[label_column]
        for i, value in enumerate(table[label_column]):
            if value is None:
                raise UserError(f"{path}: row {i} of the split {name} has no {label_column}; leave it out")
            words.append(kind.int2str(value) if isinstance(kind, library.ClassLabel) else str(value))
            names.append(f"{name}/{i:06d}")
            parts.append(name)
            rows.append((table, i))

    def cell(i: int) -> Mapping[str, Any]:
        table, row = rows[i]
        return table[row][image_column]

    source = f"dataset huggingface, {path}"
    return Listing(
        LazyImages(lambda i: _image(cell(i), names[i]), lambda i: _bytes(cell(i), names[i]), len(rows)),
        words,
        by_class(words, parts, test_classes, seed, source),
        names,
        source=source,
    )


def _library():
    try:
        import datasets
    except ImportError:
        raise UserError(
            "dataset=huggingface needs the library datasets; pip install 'deconfuse[datasets]'"
        ) from None
    return datasets


def _splits(library, path: str, config: str | None) -> Mapping[str, Any]:
    """The data set's tables by the names of its splits."""
    place = Path(path)
    try:
        if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
            found = library.load_from_disk(path)
        elif place.exists():
            found = _of_files(library, place)
        else:
            found = library.load_dataset(path, config)
    except UserError:
        raise
    except Exception as error:  # the library and its network have many kinds
        raise UserError(
            f"dataset huggingface: {path} cannot be read ({str(error).strip().splitlines()[0]}); give a "
            "folder of "
            "save_to_disk, Parquet or Arrow files, or a name on the hub where there is a network"
        ) from None
    return found if isinstance(found, Mapping) else {"train": found}


def _of_files(library, place: Path) -> Mapping[str, Any]:
    """The Parquet or Arrow files of a folder; each split's are those whose names begin with its own."""
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.suffix in FORMATS)
    kinds = {FORMATS.get(file.suffix) for file in files}
    if len(kinds) != 1 or None in kinds:
        raise UserError(
            f"dataset huggingface: {place} has no Parquet or Arrow files of one kind; give a folder of "
            "save_to_disk, "
            "or one of *.parquet or *.arrow"
        )
    by_split: dict[str, list[str]] = {}
    for file in files:
        word = file.stem.split("-")[0]
        split = word if word in ("train", "test", "validation") else "train"
        by_split.setdefault(split, []).append(str(file))
    return library.load_dataset(kinds.pop(), data_files=by_split)


def _column(features: Mapping[str, Any], wanted: str | None, kind: type, what: str, path: str) -> str:
    """The column of that name, or else the first of that type, or else the one that is called so."""
    if wanted is not None:
        if wanted not in features:
            raise UserError(
                f"dataset.{what}={wanted} is no column of {path}; {did_you_mean(wanted, features)}"
            )
        return wanted
    found = next((name for name, feature in features.items() if isinstance(feature, kind)), None)
    found = found or (what if what in features else None)
    if found is None:
        raise UserError(
            f"{path}: no column is an {what}; name it as dataset.{what}=COLUMN "
            f"(its columns: {', '.join(features)})"
        )
    return found


def _bytes(cell: Mapping[str, Any], name: str) -> bytes:
    """The encoded image, from the table or from the file that it names."""
    if cell is None:
        raise UserError(f"{name}: has no image; leave the row out")
    if cell.get("bytes"):
        return cell["bytes"]
    try:
        return Path(cell["path"]).read_bytes()
    except OSError as error:
        raise UserError(f"{name}: {cell['path']} cannot be read ({error.strerror}); restore it") from None


def _image(cell: Mapping[str, Any], name: str) -> Image.Image:
    try:
        found = Image.open(io.BytesIO(_bytes(cell, name)))
        found.load()
    except OSError as error:
        raise UserError(
            f"{name}: not a readable image ({str(error).splitlines()[0]}); leave the row out"
        ) from None
    return found
