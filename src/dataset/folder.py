"""Your own images as root/class/image.jpg: each folder is a class."""

from pathlib import Path

import numpy as np

from src.errors import UserError, did_you_mean, within
from src.spelling import Names, one_spelling, same_word
from src.split import IMAGE_SUFFIXES, FileImages, ImageSpec, Split, build, identities, readable


def load(
    root: str,
    test_classes: float | list[str] = 0.5,
    seed: int = 0,
    image_size: int = 224,
    image_resize: int | None = None,
    channels: int = 3,
    augment: str = "photo",
    on_bad_image: str = "raise",
    on_small_class: str = "raise",
) -> Split:
    """Read root/class/**/image.*; test_classes is a share of the classes (seeded) or their names.

    Raises UserError where root is missing or empty, or a named test class is not in it.
    """
    base = Path(root)
    if not base.is_dir():
        raise UserError(
            f"dataset folder: looked in {base.absolute()} and it is no folder; "
            "it needs one sub-folder of images per class; set dataset.root=FOLDER"
        )
    files = sorted(path for path in base.glob("*/**/*") if _is_image(path, base))
    if not files:
        raise UserError(
            f"dataset folder: {base.absolute()} has no images in sub-folders; "
            f"it needs class/image with one of {' '.join(IMAGE_SUFFIXES)}"
        )
    names = [path.relative_to(base).as_posix() for path in files]
    classes = one_spelling([name.split("/", 1)[0] for name in names], f"dataset folder in {root}")
    test = _test_classes(sorted(set(classes)), test_classes, seed, base)
    images = FileImages(files)
    return build(
        images,
        classes,
        ["test" if name in test else "train" for name in classes],
        names,
        source=f"dataset folder in {root}",
        image=ImageSpec(image_size, channels, augment, image_resize),
        rows=readable(images, on_bad_image),
        on_small_class=on_small_class,
        same=identities(files),
    )


def _is_image(path: Path, base: Path) -> bool:
    """An image that a person put there: nothing hidden, nothing from an archive's bookkeeping."""
    steps = path.relative_to(base).parts
    hidden = any(step.startswith(".") or step == "__MACOSX" for step in steps)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _test_classes(classes: list[str], wanted, seed: int, base: Path) -> set[str]:
    if isinstance(wanted, (int, float)):
        within("dataset.test_classes", wanted, 0.0, 1.0)
        order = np.random.default_rng(seed).permutation(len(classes))
        return {classes[i] for i in order[: round(wanted * len(classes))]}
    spelt = Names(classes, same_word)
    wanted = [spelt(str(name)) for name in ([wanted] if isinstance(wanted, str) else wanted)]
    for name in wanted:
        if name not in classes:
            raise UserError(f"dataset.test_classes: no class {name} in {base}; {did_you_mean(name, classes)}")
    return set(wanted)
