"""Stanford Cars: 16,185 photos of 196 car models (Krause et al., 3dRR 2013).

The first 98 classes train (8,054 images), the last 98 test (8,131), as the field does; the authors' own
split, which was made for classification, is not used.
"""

from itertools import product
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from deconfuse.data.images import FileImages
from deconfuse.data.layout import Layout, confined
from deconfuse.data.listing import Listing
from deconfuse.system.errors import UserError, flag

TRAINING_CLASSES = 98
EDGES = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
LAYOUT = Layout(
    "cars",
    "stanford_cars",
    (
        ("cars_annos.mat", "car_ims"),
        *(
            (
                f"{home}devkit/cars_train_annos.mat",
                f"{home}{folder}cars_test_annos_withlabels.mat",
                f"{home}devkit/cars_meta.mat",
                f"{home}cars_train",
                f"{home}cars_test",
            )
            for home, folder in product(("", "stanford_cars/"), ("devkit/", ""))
        ),
    ),
    "car_ims.tgz and cars_annos.mat (or car_devkit.tgz, cars_train.tgz, cars_test.tgz and "
    "cars_test_annos_withlabels.mat), once at https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    {"train": (8054, 98), "test": (8131, 98)},
)


def load(
    root: str,
    crop_box: bool = False,
) -> Listing:
    """Read the photos and their .mat files in either of the authors' layouts.

    They are cars_annos.mat with car_ims/, and devkit/ with cars_train/ and cars_test/, directly in root or
    in root/stanford_cars as torchvision unpacks them. crop_box: cut the images to the cars' boxes.
    Raises UserError, naming the folder and the files it needs, if one is missing.
    """
    found = LAYOUT.find(root)
    if len(found) == 2:
        annotations, images = found
        tables = [(annotations, images.parent, "relative_im_path")]
        spelt = annotations
    else:
        train, test, spelt, train_images, test_images = found
        tables = [(train, train_images, "fname"), (test, test_images, "fname")]
    classes = [str(name) for name in np.atleast_1d(_read(spelt, "class_names"))]
    files, labels, boxes = [], [], []
    for path, folder, name in tables:
        rows = _columns(path, name)
        files += [folder / file for file in confined(path, map(str, rows[name]))]
        labels.append(_numbers(path, rows, "class"))
        if flag("dataset.crop_box", crop_box):
            boxes.append(np.stack([_numbers(path, rows, edge) for edge in EDGES], 1))
    label = np.concatenate(labels)
    wrong = np.flatnonzero((label < 1) | (label > len(classes)))
    if len(wrong):
        raise UserError(
            f"{spelt}: has {len(classes)} class_names, and {files[wrong[0]].name} is of class "
            f"{label[wrong[0]]:g}; unpack the archive again"
        )
    # The authors count pixels from 1 and include the last one.
    images = FileImages(files, np.concatenate(boxes) - (1, 1, 0, 0) if boxes else None)
    return Listing(
        images,
        [classes[int(i) - 1] for i in label],
        ["train" if i <= TRAINING_CLASSES else "test" for i in label],
        [f"{file.parent.name}/{file.name}" for file in files],
        source=f"dataset cars in {root}",
    )


def _read(path: Path, key: str) -> np.ndarray:
    """A variable of a .mat file; UserError if the file is damaged or has no such variable."""
    try:
        content = loadmat(path, squeeze_me=True, variable_names=[key])
    except Exception as error:  # scipy, zlib and struct each have their own for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a readable .mat file ({reason}); unpack the archive again") from None
    if key not in content:
        raise UserError(f"{path}: no variable {key}; it is cut short, or not the authors' file")
    return content[key]


def _columns(path: Path, name: str) -> np.ndarray:
    """The struct array `annotations`, with fields for file name, class and box."""
    rows = np.atleast_1d(_read(path, "annotations"))
    missing = [field for field in (name, "class", *EDGES) if field not in (rows.dtype.names or ())]
    if missing:
        raise UserError(f"{path}: annotations have no {', '.join(missing)}; it is not the authors' file")
    return rows


def _numbers(path: Path, rows: np.ndarray, field: str) -> np.ndarray:
    """A field of all annotations as float64 (n,)."""
    try:
        return rows[field].astype(np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{path}: not every annotation has a number as {field}; unpack again") from None
