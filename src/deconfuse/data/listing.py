"""The samples that a data set's module lists, and how they are to be read."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from deconfuse.data.images import ArrayImages, FeatureRows, FileImages, LazyImages
from deconfuse.system.errors import UserError, did_you_mean, within
from deconfuse.system.progress import console
from deconfuse.system.spelling import Names, same_word

# The words that folders and files have for the parts.
WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test", "query": "query"}
WORDS |= {"gallery": "gallery", "val": "val", "valid": "val", "validation": "val", "dev": "val"}


@dataclass(frozen=True)
class Reading:
    """How the samples of any data set are read: the keys below `dataset` that all data sets share.

    image_size, image_resize, channels and augment are ImageSpec's. background and value_range are those of
    Pixels. on_bad_image: raise, skip or later, see `readable`. on_small_class: raise, drop or keep a class
    that has a single sample among the training samples or among the others.
    """

    image_size: int = 224
    image_resize: int | None = None
    channels: int = 3
    augment: str = "photo"
    on_bad_image: str = "raise"
    on_small_class: str = "raise"
    background: str | int | list[int] = "white"
    value_range: list[float] | None = None


KEYS = tuple(field.name for field in fields(Reading))


@dataclass(frozen=True)
class Listing:
    """The n samples that a data set's module lists, before any image is opened.

    classes, parts and names go with `images`. A part is train, test, query or gallery, where test means query
    and gallery at once. source: what messages call the data set. same_things: groups of class names that look
    alike. recall_at: the k of the recalls that are usual for the data set, 1 first. identities: a key for
    each sample, equal for samples that are one file under several names; None: the names. reading: how the
    data set is read unless the settings say otherwise.
    """

    images: FileImages | ArrayImages | LazyImages | FeatureRows
    classes: Sequence[str]
    parts: Sequence[str]
    names: Sequence[str]
    source: str
    same_things: Sequence[Sequence[str]] = ()
    recall_at: tuple[int, ...] = (1, 2, 4, 8)
    identities: Sequence[Hashable] | None = None
    reading: Reading = Reading()

    @cached_property
    def class_codes(self) -> tuple[np.ndarray, np.ndarray]:
        """(the number (n,) of each sample's class, the class names in the order of the numbers)."""
        return _coded(self.classes)

    @cached_property
    def part_codes(self) -> tuple[np.ndarray, np.ndarray]:
        """(the number (n,) of each sample's part, the parts in the order of the numbers)."""
        return _coded(self.parts)

    @cached_property
    def files(self) -> np.ndarray:
        """(n,) int: a number for each sample, equal for samples with the same identity."""
        return _coded(self.names if self.identities is None else self.identities)[0]

    def among(self, rows: np.ndarray, *parts: str) -> np.ndarray:
        """Those of the rows that are in one of the parts."""
        codes, words = self.part_codes
        return rows[np.isin(words, parts)[codes[rows]]]


def _coded(items: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """(whole numbers, the distinct items) with items[i] = distinct[numbers[i]]."""
    numbers: dict[Hashable, int] = {}
    codes = np.fromiter((numbers.setdefault(item, len(numbers)) for item in items), np.int64, len(items))
    return codes, np.fromiter(numbers, dtype=object, count=len(numbers))


def tested(
    classes: Sequence[str], wanted: float | str | Sequence[str] | None, seed: int, where: str
) -> set[str]:
    """The classes that test: a share of them, which the seed draws (None: half), or those that are named.

    Raises UserError for a share outside of [0, 1], and for a name that is no class.
    """
    wanted = 0.5 if wanted is None else wanted
    if isinstance(wanted, (int, float)):
        within("dataset.test_classes", wanted, 0.0, 1.0)
        order = np.random.default_rng(seed).permutation(len(classes))
        return {classes[i] for i in order[: round(wanted * len(classes))]}
    spelt = Names(classes, same_word)
    named = [spelt(str(name)) for name in ([wanted] if isinstance(wanted, str) else wanted)]
    for name in named:
        if name not in classes:
            raise UserError(
                f"dataset.test_classes: no class {name} in {where}; {did_you_mean(name, classes)}"
            )
    return set(named)


def by_class(
    classes: Sequence[str],
    splits: Sequence[str],
    wanted: float | str | Sequence[str] | None,
    seed: int,
    where: str,
) -> list[str]:
    """The part of each sample of a data set that has splits of its own.

    They stay as they are where nothing else is wanted and no class is in both train and another one, as
    metric learning is tested. Else all splits are put together, and classes are drawn for the test.
    """
    train = {c for c, split in zip(classes, splits, strict=True) if split == "train"}
    others = {c for c, split in zip(classes, splits, strict=True) if split != "train"}
    if wanted is None and train and others and not train & others:
        return ["train" if split == "train" else "test" for split in splits]
    test = tested(sorted(set(classes)), wanted, seed, where)
    drawn = f"{len(test)} of {len(set(classes))} classes test"
    console.print(f"{where}: {len(set(splits))} split(s) put together, and {drawn}")
    return ["test" if name in test else "train" for name in classes]
