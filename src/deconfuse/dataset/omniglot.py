"""Omniglot: handwritten characters of many alphabets, 20 drawings each (Lake et al., Science 2015).

Reads the authors' zip files as they are distributed: images_background_small1.zip and
images_background_small2.zip, or the full images_background.zip; alphabets are disjoint between
training and test.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import Omniglot

from deconfuse.data.images import ArrayImages
from deconfuse.data.listing import Listing, Reading
from deconfuse.system.errors import UserError, did_you_mean, flag

ARCHIVES = ("images_background_small1.zip", "images_background_small2.zip", "images_background.zip")


def load(root: str, train: list[str], test: list[str], download: bool = True) -> Listing:
    """Read the alphabets `train` and `test`; if root has no zip file and `download`, torchvision fetches it.

    Raises UserError if files are missing or damaged, or if they lack an alphabet.
    """
    flag("dataset.download", download)
    drawings = _read(_archives(Path(root), download))
    alphabets = {name.split("/")[0] for name in drawings}
    for alphabet in (*train, *test):
        if alphabet not in alphabets:
            absent = [name for name in ARCHIVES[:2] if not (Path(root) / name).is_file()]
            also = f" ({' and '.join(absent)} is missing there)" if absent else ""
            raise UserError(
                f"omniglot: no alphabet {alphabet} in {root}{also}; {did_you_mean(alphabet, alphabets)}"
            )
    side = {**dict.fromkeys(train, "train"), **dict.fromkeys(test, "test")}
    both = sorted(set(train) & set(test))
    if both:
        raise UserError(f"omniglot: alphabet {both[0]} is in dataset.train and dataset.test; keep one")
    names = [name for name in sorted(drawings) if name.split("/")[0] in side]
    return Listing(
        ArrayImages(np.stack([drawings[name] for name in names])),
        [name.rsplit("/", 1)[0] for name in names],
        [side[name.split("/")[0]] for name in names],
        names,
        source=f"dataset omniglot in {root}",
        reading=Reading(image_size=32, channels=1, augment="drawing"),
    )


def _archives(root: Path, download: bool) -> list[Path]:
    found = [root / name for name in ARCHIVES if (root / name).is_file()]
    if found:
        return found
    what = f"omniglot: looked in {root.absolute()} for {' and '.join(ARCHIVES[:2])} (or {ARCHIVES[2]})"
    where = "they come from github.com/brendenlake/omniglot (folder python); set dataset.root=FOLDER"
    if not download:
        raise UserError(f"{what}; {where}")
    try:
        Omniglot(str(root), background=True, download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{what} and could not download them ({reason}); {where}") from None
    return [next(root.rglob(ARCHIVES[2]))]


def _read(archives: list[Path]) -> dict[str, np.ndarray]:
    """Alphabet/characterNN/drawing.png -> (105, 105) uint8, white strokes on black."""
    drawings = {}
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as file:
                for member in file.namelist():
                    if member.endswith(".png"):
                        name = member.split("/", 1)[1]
                        image = Image.open(io.BytesIO(file.read(member))).convert("L")
                        drawings[name] = 255 - np.asarray(image)
        except Exception as error:  # zipfile, zlib and Pillow each have their own for a damaged archive
            raise UserError(f"{archive}: damaged ({error}); fetch it again") from None
    return drawings
