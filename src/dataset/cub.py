"""CUB-200-2011: 11,788 photos of 200 bird species (Wah et al., CNS-TR-2011-001).

The first 100 classes train (5,864 images), the last 100 test (5,924), as the field does.
"""

from pathlib import Path

from src.errors import UserError
from src.split import FileImages, ImageSpec, Split, build, readable

NEEDED = ("images.txt", "image_class_labels.txt", "images")
TRAINING_CLASSES = 100


def load(
    root: str,
    image_size: int = 224,
    image_resize: int | None = None,
    channels: int = 3,
    augment: str = "photo",
    on_bad_image: str = "raise",
    on_small_class: str = "raise",
) -> Split:
    """Read the folder CUB_200_2011 as its authors distribute it.

    Raises UserError, naming the folder and the files it needs, where one is missing.
    """
    base = Path(root)
    missing = [name for name in NEEDED if not (base / name).exists()]
    if missing:
        raise UserError(
            f"dataset cub: looked in {base.absolute()} for {', '.join(NEEDED)} and found no "
            f"{', '.join(missing)}; they come in CUB_200_2011.tgz from "
            "https://www.vision.caltech.edu/datasets/cub_200_2011/; unpack it and set dataset.root=FOLDER"
        )
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
    names = [paths[i] for i in ids]
    images = FileImages([base / "images" / name for name in names])
    return build(
        images,
        [name.split("/")[0] for name in names],
        ["train" if int(labels[i]) <= TRAINING_CLASSES else "test" for i in ids],
        names,
        source=f"dataset cub in {root}",
        image=ImageSpec(image_size, channels, augment, image_resize),
        rows=readable(images, on_bad_image),
        on_small_class=on_small_class,
    )


def _pairs(path: Path) -> dict[str, str]:
    """The lines 'key value' of a text file."""
    lines = [line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip()]
    if any(len(line) != 2 for line in lines):
        raise UserError(f"{path}: every line must be 'id value'; unpack the archive again")
    if not all(key.isdigit() for key, _ in lines):
        raise UserError(f"{path}: every line must start with an image's number; unpack the archive again")
    return {key: value.strip() for key, value in lines}
