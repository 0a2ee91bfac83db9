"""Your own images as a CSV with the columns path, label and split (train, test, query, gallery)."""

from pathlib import Path

import pandas as pd

from src.errors import UserError, shorten
from src.split import FileImages, ImageSpec, Split, build, readable

COLUMNS = ("path", "label", "split")


def load(
    csv: str,
    root: str | None = None,
    image_size: int = 224,
    channels: int = 3,
    augment: str = "photo",
    on_bad_image: str = "raise",
    on_small_class: str = "raise",
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
    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise UserError(f"{file}: not a readable CSV ({str(error).splitlines()[0]})") from None
    missing = [column for column in COLUMNS if column not in rows]
    if missing:
        raise UserError(f"{file}: no column {shorten(missing)}; it has {', '.join(rows.columns)}")
    empty = rows[(rows[list(COLUMNS)] == "").any(axis=1)]
    if len(empty):
        raise UserError(f"{file}: line {empty.index[0] + 2} has an empty cell; fill it or delete the line")
    base = Path(root) if root else file.parent
    files = [base / path for path in rows["path"]]
    absent = [path for path in files if not path.is_file()]
    if absent:
        raise UserError(f"{file}: {len(absent)} image(s) are not in {base.absolute()}: {shorten(absent, 3)}")
    images = FileImages(files)
    return build(
        images,
        rows["label"].tolist(),
        rows["split"].tolist(),
        rows["path"].tolist(),
        source=str(file),
        image=ImageSpec(image_size, channels, augment),
        rows=readable(images, on_bad_image),
        on_small_class=on_small_class,
    )
