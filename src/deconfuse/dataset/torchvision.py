"""A data set of torchvision by its name: any class that reads labelled images from a root."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchvision import datasets

from deconfuse.data.images import LazyImages
from deconfuse.data.listing import Listing, by_class
from deconfuse.system.errors import UserError, did_you_mean, flag

SPLITS = ("train", "val", "test")  # the words that classes of torchvision take


def load(
    name: str,
    root: str,
    download: bool = False,
    test_classes: float | list[str] | None = None,
    seed: int = 0,
) -> Listing:
    """Read all splits of torchvision.datasets.NAME; images are decoded where they are used.

    download: let torchvision fetch it. test_classes, seed: as of dataset=folder; splits whose classes are
    disjoint stay as they are. Raises UserError for a name that is no such class, and where root does not have
    it.
    """
    flag("dataset.download", download)
    kinds = {key: value for key, value in vars(datasets).items() if _labelled(value)}
    if name not in kinds:
        raise UserError(
            f"dataset.name={name} is no data set of torchvision with labels; {did_you_mean(name, kinds)}"
        )
    rows, words, names, parts = [], [], [], []
    for split, part in _splits(kinds[name], name, root, download):
        labels = _labels(part)
        classes = getattr(part, "classes", None)
        for i, value in enumerate(labels):
            named = isinstance(classes, (list, tuple)) and isinstance(value, int) and value < len(classes)
            words.append(str(classes[value]) if named else str(value))
            names.append(f"{split}/{i:06d}")
            parts.append(split)
            rows.append((part, i))

    def image(i: int):
        part, row = rows[i]
        return part[row][0]

    def content(i: int) -> bytes:
        found = image(i)
        return f"{found.mode} {found.size}".encode() + found.tobytes()

    source = f"dataset torchvision, {name} in {root}"
    return Listing(
        LazyImages(image, content, len(rows)),
        words,
        by_class(words, parts, test_classes, seed, source),
        names,
        source=source,
    )


def _labelled(value: Any) -> bool:
    """True for a class that is made of a root, and downloads or is split: what its items are shows later."""
    if not inspect.isclass(value) or not issubclass(value, datasets.VisionDataset):
        return False
    keys = inspect.signature(value.__init__).parameters
    needed = [
        key
        for key, each in keys.items()
        if each.default is each.empty and each.kind == each.POSITIONAL_OR_KEYWORD
    ]
    plain = "root" in keys and set(needed) <= {"self", "root", "split"}
    return plain and not {"split", "train", "download"}.isdisjoint(keys)


def _splits(kind: type, name: str, root: str, download: bool) -> Iterator[tuple[str, Any]]:
    """(name, data set) of each split that the class has."""
    keys = inspect.signature(kind.__init__).parameters
    more = {"download": download} if "download" in keys else {}
    if "train" in keys:
        choices = [("train", {"train": True}), ("test", {"train": False})]
    elif "split" in keys:
        choices = [(word, {"split": word}) for word in SPLITS]
    else:
        choices = [("train", {})]
    found = 0
    for word, chosen in choices:
        try:
            part = kind(root, **chosen, **more)
        except (ValueError, KeyError):  # a split that this class does not have
            continue
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"dataset torchvision: {name} is not in {Path(root).absolute()} "
                f"({str(error).strip().splitlines()[0]}); add dataset.download=true where there is a network"
            ) from None
        found += 1
        yield word, part
    if not found:
        raise UserError(
            f"dataset torchvision: {name} has none of the splits {', '.join(SPLITS)}; use dataset=folder"
        )


def _labels(part: Any) -> list:
    """The label of each sample, from the class's own list, or else from its items."""
    for key in ("targets", "_labels", "labels", "y"):
        found = getattr(part, key, None)
        if found is not None and len(found) == len(part):
            values = found.tolist() if hasattr(found, "tolist") else list(found)
            if part[0][1] == values[0]:
                return values
    labels = [part[i][1] for i in range(len(part))]
    if labels and not isinstance(labels[0], (int, str)):
        raise UserError(
            f"dataset torchvision: a label of {type(part).__name__} is a {type(labels[0]).__name__}, "
            "and not one class"
        )
    return labels
