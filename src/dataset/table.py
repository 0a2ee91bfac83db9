"""Your own images as a CSV with the columns path, label and split (train, test, query, gallery)."""

import csv
from pathlib import Path

import pandas as pd

from src.errors import UserError, shorten
from src.pixels import Pixels
from src.split import FileImages, ImageSpec, Split, build, readable

COLUMNS = ("path", "label", "split")


def load(
    csv: str,
    root: str | None = None,
    image_size: int = 224,
    image_resize: int | None = None,
    channels: int = 3,
    augment: str = "photo",
    on_bad_image: str = "raise",
    on_small_class: str = "raise",
    background: str | int | list[int] = "white",
    value_range: list[float] | None = None,
) -> Split:
    """Read the CSV; paths are relative to root, by default the CSV's own folder.

    Raises UserError where the file, a column or an image is missing, or a cell is empty.
    """
    file = Path(csv)
    if not file.is_file():
        raise UserError(
            f"dataset table: looked for {file.absolute()} and found no file; "
            f"it needs the columns {', '.join(COLUMNS)}; set dataset.csv=FILE.csv"
        )
    rows = _rows(file)
    base = Path(root) if root else file.parent
    files = [base / path for path in rows["path"]]
    absent = [path for path in files if not path.is_file()]
    if absent:
        raise UserError(f"{file}: {len(absent)} image(s) are not in {base.absolute()}: {shorten(absent, 3)}")
    images = FileImages(files, pixels=Pixels(background, value_range))
    return build(
        images,
        rows["label"].tolist(),
        rows["split"].tolist(),
        rows["path"].tolist(),
        source=str(file),
        image=ImageSpec(image_size, channels, augment, image_resize),
        rows=readable(images, on_bad_image),
        on_small_class=on_small_class,
    )


def _rows(file: Path) -> pd.DataFrame:
    """The CSV's rows as text, every cell of COLUMNS filled; errors name the line in the file."""
    found = []
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            header = reader.fieldnames or []
            if not header:
                raise UserError(f"{file}: not a readable CSV (No columns; the file is empty)")
            missing = [column for column in COLUMNS if column not in header]
            if missing:
                raise UserError(f"{file}: no column {shorten(missing)}; it has {', '.join(header)}")
            for row in reader:
                if None in row:
                    saw = len(header) + len(row[None])
                    raise UserError(
                        f"{file}: not a readable CSV "
                        f"(Expected {len(header)} fields in line {reader.line_num}, saw {saw})"
                    )
                if not all(row[column] for column in COLUMNS):
                    raise UserError(
                        f"{file}: line {reader.line_num} has an empty cell; fill it or delete the line"
                    )
                found.append(row)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file}: not a readable CSV ({str(error).splitlines()[0]})") from None
    return pd.DataFrame(found, columns=header)
