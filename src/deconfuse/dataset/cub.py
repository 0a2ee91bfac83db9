"""CUB-200-2011: 11,788 photos of 200 bird species (Wah et al., CNS-TR-2011-001).

The first 100 classes train (5,864 images), the last 100 test (5,924), as the field does.
"""

from pathlib import Path

import numpy as np

from deconfuse.data.images import FileImages
from deconfuse.data.layout import Layout, confined, lines
from deconfuse.data.listing import Listing
from deconfuse.system.errors import UserError, flag

LAYOUT = Layout(
    "cub",
    "CUB_200_2011",
    (("images.txt", "image_class_labels.txt", "images"),),
    "CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011/",
    {"train": (5864, 100), "test": (5924, 100)},
)
TRAINING_CLASSES = 100


def load(
    root: str,
    crop_box: bool = False,
) -> Listing:
    """Read the folder CUB_200_2011 as its authors distribute it.

    crop_box: cut the images to the birds' boxes (bounding_boxes.txt).
    Raises UserError, naming the folder and the files it needs, if one is missing.
    """
    base = Path(root)
    LAYOUT.find(base)
    paths, labels = _pairs(base / "images.txt"), _pairs(base / "image_class_labels.txt")
    if paths.keys() != labels.keys():
        raise UserError(f"{base}: images.txt and image_class_labels.txt list different images; unpack again")
    ids = sorted(paths, key=int)
    wrong = next((i for i in ids if not labels[i].isdigit()), None)
    if wrong is not None:
        raise UserError(
            f"{base / 'image_class_labels.txt'}: image {wrong} has the class {labels[wrong]!r}, which is no "
            "number; unpack the archive again"
        )
    names = confined(base / "images.txt", (paths[i] for i in ids))
    boxes = _boxes(base / "bounding_boxes.txt", ids) if flag("dataset.crop_box", crop_box) else None
    images = FileImages([base / "images" / name for name in names], boxes)
    return Listing(
        images,
        [name.split("/")[0] for name in names],
        ["train" if int(labels[i]) <= TRAINING_CLASSES else "test" for i in ids],
        names,
        source=f"dataset cub in {root}",
    )


def _pairs(path: Path) -> dict[str, str]:
    """The lines 'key value' of a text file as a dictionary."""
    pairs = [line.split(maxsplit=1) for line in lines(path)]
    if any(len(pair) != 2 for pair in pairs):
        raise UserError(f"{path}: every line must be 'id value'; unpack the archive again")
    if not all(key.isdigit() for key, _ in pairs):
        raise UserError(f"{path}: every line must start with an image's number; unpack the archive again")
    return {key: value.strip() for key, value in pairs}


def _boxes(path: Path, ids: list[str]) -> np.ndarray:
    """(n, 4) left, top, right, bottom of each image, from the lines 'id left top width height'."""
    listed = _pairs(path)
    boxes = np.zeros((len(ids), 4))
    for row, i in enumerate(ids):
        try:
            left, top, width, height = (float(word) for word in listed[i].split())
        except (KeyError, ValueError):
            raise UserError(
                f"{path}: image {i} has no box of four numbers; unpack the archive again, or set "
                "dataset.crop_box=false"
            ) from None
        boxes[row] = left, top, left + width, top + height
    return boxes
