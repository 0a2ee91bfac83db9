"""A data set as the rest of the project sees it: train, query and gallery samples with labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from deconfuse.system.errors import count, one_of
from deconfuse.system.progress import track

SMALLEST = 8  # pixels of the side of an image


@dataclass(frozen=True)
class ImageSpec:
    """How a data set's images want to be fed: side in pixels, channels (1 or 3), augmentation.

    resize: a photo's shorter side before its middle is cut out for evaluation; None: 8/7 of size.
    """

    size: int
    channels: int
    augment: str
    resize: int | None = None

    def __post_init__(self):
        count("dataset.image_size", self.size, SMALLEST)
        one_of("dataset.channels", self.channels, (1, 3))
        one_of("dataset.augment", self.augment, ("drawing", "photo", "none"))
        if self.resize is not None:
            count("dataset.image_resize", self.resize, self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input: channels, height, width."""
        return (self.channels, self.size, self.size)

    @property
    def model_size(self) -> dict[str, int]:
        """What a backbone for such images is told of their size."""
        return {"in_channels": self.channels}


@dataclass(frozen=True)
class RowSpec:
    """Inputs that are no images: rows of D finished features, fed as they are."""

    features: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return (self.features,)

    @property
    def model_size(self) -> dict[str, int]:
        """What a backbone for such rows is told of their size."""
        return {"in_features": self.features}


@dataclass(frozen=True)
class Part:
    """n samples: `images[rows[i]]`, its class id `labels[i]` and its name `names[i]` (a path)."""

    images: Sequence
    rows: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, i: int) -> Image.Image | np.ndarray:
        """The i-th sample's picture, or its row of features."""
        return self.images[int(self.rows[i])]


@dataclass(frozen=True)
class Split:
    """Class-disjoint training and test samples.

    Class ids 0..c-1 are the training classes, the following ones the test classes; `class_names`
    spells them. Where the data set has no gallery of its own, `gallery is query` and a query is
    never its own neighbour. `same_things` are groups of class ids that are known to look alike.
    `recall_at` are the k of the recalls that are usual for the data set, 1 first. `twins` (q,) int64: the
    gallery row that is the same file as each query, which is no neighbour of it, -1 where there is none;
    None: nobody has one.
    """

    train: Part
    query: Part
    gallery: Part
    class_names: tuple[str, ...]
    num_classes: int
    image: ImageSpec | RowSpec
    same_things: tuple[tuple[int, ...], ...] = ()
    recall_at: tuple[int, ...] = (1, 2, 4, 8)
    twins: np.ndarray | None = None

    @property
    def trivial(self) -> str | None:
        """Why R@k and MAP@R say nothing of any model; None where they do."""
        if len(np.unique(self.gallery.labels)) > 1:
            return None
        alone = self.class_names[self.gallery.labels[0]]
        return f"R@1 is 1 by construction: all images to be found are of one class, {alone}"

    @property
    def shared_gallery(self) -> bool:
        """True where the queries search among themselves."""
        return self.gallery is self.query

    @property
    def lone(self) -> np.ndarray:
        """(q,) bool: queries with no image of their class in the gallery, beside themselves."""
        members = np.bincount(self.gallery.labels, minlength=len(self.class_names))
        relevant = members[self.query.labels] - int(self.shared_gallery)
        if self.twins is not None:
            own = self.gallery.labels[self.twins.clip(0)] == self.query.labels
            relevant = relevant - (own & (self.twins >= 0))
        return relevant <= 0

    @cached_property
    def fingerprints(self) -> tuple[str, str]:
        """(of the training part, of all): hashes of names, labels and image marks; another one means other
        data. Class names count in the second one alone: no weight depends on them."""
        parts = [self.train, self.query, *([] if self.shared_gallery else [self.gallery])]
        marks = [_digest(part) for part in parts]
        return marks[0], hashlib.sha256("\0".join([*marks, *self.class_names]).encode()).hexdigest()


def _digest(part: Part) -> str:
    digest = hashlib.sha256("\0".join(part.names).encode() + part.labels.tobytes())
    for row in track(part.rows, "looking whether the data changed", len(part)):
        digest.update(part.images.content(int(row)))
    return digest.hexdigest()
