"""The samples that a data set's module lists, and how they are to be read."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from deconfuse.data.images import ArrayImages, FeatureRows, FileImages


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

    images: FileImages | ArrayImages | FeatureRows
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
