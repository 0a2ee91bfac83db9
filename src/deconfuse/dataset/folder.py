"""Your own images as root/class/image.jpg, or root/train/class/image.jpg beside root/test/class/image.jpg."""

import os
from pathlib import Path

from deconfuse.data.image_files import identities, suffixes
from deconfuse.data.images import FileImages
from deconfuse.data.listing import WORDS, Listing, tested
from deconfuse.data.walk import images_below
from deconfuse.system.errors import UserError, one_of, shorten
from deconfuse.system.progress import console
from deconfuse.system.spelling import one_spelling
from deconfuse.system.words import agree, many


def load(
    root: str,
    test_classes: float | list[str] | None = None,
    seed: int = 0,
    layout: str = "auto",
) -> Listing:
    """Read root/class/**/image.*, or root/train/class/**/image.* if the topmost folders are splits.

    test_classes: the share of the classes that the seed draws for the test, or their names; None: half of
    them, or the classes in the folders of test splits.
    layout=classes: each topmost folder is a class. splits: each is a part (WORDS) that contains classes.
    pooled: the parts are put together and classes are drawn for the test. auto: splits if there are folders
    of two different parts, else classes.
    Raises UserError if root is missing or empty, or if it lacks a named test class.
    """
    base = Path(root)
    if not base.is_dir():
        raise UserError(
            f"dataset folder: looked in {base.absolute()} and it is no folder; "
            "it needs one sub-folder of images per class; set dataset.root=FOLDER"
        )
    found = images_below(base)
    for line in found.lines():
        console.print(f"{base}: {line}")
    if not found.names:
        raise UserError(
            f"dataset folder: {base.absolute()} has no images in sub-folders; "
            f"it needs class/image with one of {' '.join(suffixes())}"
        )
    names, classes, parts = _parts(found.names, layout, test_classes, seed, base)
    files = [os.path.join(str(base), name) for name in names]
    return Listing(
        FileImages(files),
        classes,
        parts,
        names,
        source=f"dataset folder in {root}",
        identities=identities(files),
    )


def _parts(
    names: list[str], layout: str, test_classes, seed: int, base: Path
) -> tuple[list[str], list[str], list[str]]:
    """(names, classes, parts) of the images that are used."""
    one_of("dataset.layout", layout, ("auto", "classes", "splits", "pooled"))
    tops = list(dict.fromkeys(name.split("/", 1)[0] for name in names))
    if layout == "classes" or (layout == "auto" and not _says_splits(tops)):
        classes = one_spelling([name.split("/", 1)[0] for name in names], f"dataset folder in {base}")
        return _drawn(names, classes, test_classes, seed, base)
    other = [top for top in tops if top.casefold() not in WORDS]
    if other:
        raise UserError(
            f"{base}: the folders {shorten(top for top in tops if top not in other)} say splits, and "
            f"{shorten(other)} beside them do not; move those away, or take each folder as a class with "
            "dataset.layout=classes"
        )
    inside = [name for name in names if name.count("/") > 1]
    if len(inside) < len(names):
        flat = len(names) - len(inside)
        example = next(name for name in names if name.count("/") == 1)
        raise UserError(
            f"{base}: {shorten(tops)} are read as splits, and {many(flat, 'image', ',')} "
            f"{agree(flat, 'lies', 'lie')} in "
            f"them without a class folder: {example}; sort them into split/class/image, or take each as "
            "a class with dataset.layout=classes"
        )
    classes = one_spelling([name.split("/", 2)[1] for name in names], f"dataset folder in {base}")
    if layout == "pooled":
        return _drawn(names, classes, test_classes, seed, base)
    if test_classes is not None:
        raise UserError(
            f"dataset.test_classes={test_classes}: {base} says by its folders {shorten(tops)} what is "
            "tested; leave dataset.test_classes out, or put the folders together with dataset.layout=pooled"
        )
    return _as_they_say(names, classes, tops, base)


def _says_splits(tops: list[str]) -> bool:
    """True if there are folders of two different parts; one alone may be a class of that name."""
    kinds = {WORDS[top.casefold()] for top in tops if top.casefold() in WORDS}
    return len(kinds) > 1


def _as_they_say(
    names: list[str], classes: list[str], tops: list[str], base: Path
) -> tuple[list[str], list[str], list[str]]:
    """Each image in the part that its topmost folder names; val is the test if there is no other."""
    parts = [WORDS[name.split("/", 1)[0].casefold()] for name in names]
    if "train" not in parts:
        raise UserError(
            f"{base}: of {shorten(tops)} no folder is called train; add one, or take each folder as a class "
            "with dataset.layout=classes"
        )
    if {"test", "query", "gallery"} & set(parts):
        kept = [i for i, part in enumerate(parts) if part != "val"]
        if len(kept) < len(parts):
            console.print(
                f"{base}: {many(len(parts) - len(kept), 'validation image', ',')} left out, as nothing is "
                "chosen by them; to train on them move their classes into the folder train"
            )
    else:
        kept = list(range(len(parts)))
        parts = ["test" if part == "val" else part for part in parts]
        console.print(f"{base}: the validation images are the test, as there is no folder test")
    names, classes, parts = ([each[i] for i in kept] for each in (names, classes, parts))
    train = {c for c, part in zip(classes, parts, strict=True) if part == "train"}
    both = sorted(train & {c for c, part in zip(classes, parts, strict=True) if part != "train"})
    if both:
        raise UserError(
            f"{base}: {many(len(both), 'class')} {agree(len(both), 'has', 'have')} images both in train "
            f"and to be tested: {shorten(both)}; "
            "metric learning is tested on unseen classes: dataset.layout=pooled puts the folders together "
            "and draws classes for the test (dataset.test_classes names them), or move each class to one side"
        )
    return names, classes, parts


def _drawn(
    names: list[str], classes: list[str], test_classes, seed: int, base: Path
) -> tuple[list[str], list[str], list[str]]:
    """Images of the classes that test_classes chooses are the test, all others are for training."""
    test = tested(sorted(set(classes)), test_classes, seed, str(base))
    return names, classes, ["test" if name in test else "train" for name in classes]
