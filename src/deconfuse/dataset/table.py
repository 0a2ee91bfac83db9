"""Your own images, listed with the columns path, label and split (train, test, query, gallery).

The list is a CSV, or a Parquet or Arrow (Feather) file.
"""

import os
from pathlib import Path

from deconfuse.data.image_files import identities
from deconfuse.data.images import FileImages
from deconfuse.data.listing import Listing
from deconfuse.system import csv_files
from deconfuse.system.csv_files import Rows
from deconfuse.system.errors import UserError, shorten
from deconfuse.system.spelling import one_spelling
from deconfuse.system.words import agree, many

COLUMNS = ("path", "label", "split")
ARROW = (".parquet", ".pq", ".arrow", ".feather")


def load(
    csv: str,
    root: str | None = None,
) -> Listing:
    """Read the list; paths are relative to root, by default the list's own folder.

    Raises UserError if the file, a column or an image is missing, or if a cell is empty.
    """
    file = Path(csv)
    if not file.is_file():
        raise UserError(
            f"dataset table: looked for {file.absolute()} and found no file; "
            f"it needs the columns {', '.join(COLUMNS)}; set dataset.csv=FILE.csv"
        )
    cells = _of_arrow(file) if file.suffix.casefold() in ARROW else _columns(csv_files.read(file))
    paths, labels, parts = cells
    base = Path(root) if root else file.parent
    home = str(base)
    files = [os.path.join(home, path) for path in paths]  # a million Path objects take seconds
    same = identities(files)
    for i in (i for i, found in enumerate(same) if found is None and paths[i] != paths[i].strip()):
        paths[i] = paths[i].strip()  # no file has these spaces in its name
        files[i] = os.path.join(home, paths[i])
        (same[i],) = identities(files[i : i + 1])
    absent = [Path(path) for path, found in zip(files, same, strict=True) if found is None]
    if absent:
        what = f"{many(len(absent), 'image')} {agree(len(absent))} not in {base.absolute()}"
        raise UserError(f"{file}: {what}: {shorten(absent, 3)}")
    return Listing(
        FileImages(files),
        one_spelling(labels, str(file)),
        parts,
        paths,
        source=str(file),
        identities=same,
    )


def _columns(rows: Rows) -> tuple[list[str], list[str], list[str]]:
    """The columns path, label and split without empty cells; errors name the line of the file."""
    if not rows.header:
        raise UserError(f"{rows.file}: not a readable CSV (No columns; the file is empty)")
    paths, labels, parts = (rows.columns[place] for place in rows.places(COLUMNS))
    parts = [part.strip() for part in parts]
    empty = [
        i for cells in (paths, labels, parts) for i, cell in enumerate(cells) if not cell or cell.isspace()
    ]
    if empty:
        line = rows.line(min(empty))
        raise UserError(f"{rows.file}: line {line} has an empty cell; fill it or delete the line")
    if rows.long:
        where = f"Expected {len(rows.header)} fields in line {rows.line(rows.long[0])}, saw {rows.long[1]}"
        raise UserError(f"{rows.file}: not a readable CSV ({where})")
    return paths, labels, parts


def _of_arrow(file: Path) -> tuple[list[str], list[str], list[str]]:
    """The columns path, label and split of a Parquet or Arrow file, as text; errors name the row."""
    try:
        from pyarrow import ArrowInvalid, feather, parquet
    except ImportError:
        raise UserError(f"{file}: needs the library pyarrow; pip install 'deconfuse[tables]'") from None
    read = parquet.read_table if file.suffix.casefold() in (".parquet", ".pq") else feather.read_table
    try:
        table = read(file, columns=None)
    except (ArrowInvalid, OSError) as error:
        raise UserError(f"{file}: not a whole table ({str(error).splitlines()[0]}); write it again") from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(
            f"{file}: no column {', '.join(missing)}; it has {shorten(table.column_names)} and needs "
            f"{', '.join(COLUMNS)}"
        )
    found = [["" if cell is None else str(cell) for cell in table[name].to_pylist()] for name in COLUMNS]
    empty = [i for cells in found for i, cell in enumerate(cells) if not cell.strip()]
    if empty:
        raise UserError(f"{file}: row {min(empty)} (from 0) has an empty cell; fill it or leave the row out")
    paths, labels, parts = found
    return paths, labels, [part.strip() for part in parts]
