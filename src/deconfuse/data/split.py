"""A data set as the other rooms see it: training, query and gallery samples with labels."""

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
    """How images are fed to the model: as squares of `size` pixels with 1 or 3 channels.

    augment: drawing, photo or none, see `transforms`. resize: the length that the shorter side of a photo is
    resized to before the middle is cut out for evaluation; None: 8/7 of size.
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
        """(channels, height, width) of one input."""
        return (self.channels, self.size, self.size)

    @property
    def model_size(self) -> dict[str, int]:
        """The keyword argument by which a backbone learns the number of channels."""
        return {"in_channels": self.channels}


@dataclass(frozen=True)
class RowSpec:
    """Inputs that are rows of D finished features instead of images and are fed as they are."""

    features: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(D,) of one input."""
        return (self.features,)

    @property
    def model_size(self) -> dict[str, int]:
        """The keyword argument by which a backbone learns D."""
        return {"in_features": self.features}


@dataclass(frozen=True)
class Part:
    """n samples: sample i is `images[rows[i]]`, its class id is `labels[i]`, its name `names[i]`."""

    images: Sequence
    rows: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, rows: np.ndarray) -> "Part":
        """These samples alone."""
        names = tuple(self.names[i] for i in rows.tolist())
        return Part(self.images, self.rows[rows], self.labels[rows], names)

    def image(self, i: int) -> Image.Image | np.ndarray:
        """The image of sample i, or its row of features."""
        return self.images[int(self.rows[i])]


@dataclass(frozen=True)
class Split:
    """Class-disjoint training and test samples.

    Class ids 0 to num_classes - 1 are the training classes; the test classes follow. class_names has the name
    of each id. If the data set has no gallery of its own, `gallery is query`, and a query is never its own
    neighbour. same_things: groups of class ids that are known to look alike. recall_at: the k of the recalls
    that are usual for the data set, 1 first. twins (q,) int64: the gallery row that is the same file as each
    query and therefore not a neighbour of it, or -1; None: no query is in the gallery.
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
        """Why R@k and MAP@R do not depend on the model; None if they do."""
        if len(np.unique(self.gallery.labels)) > 1:
            return None
        alone = self.class_names[self.gallery.labels[0]]
        return f"R@1 is 1 by construction: all images to be found are of one class, {alone}"

    @property
    def shared_gallery(self) -> bool:
        """True if the queries are the gallery."""
        return self.gallery is self.query

    @property
    def test_parts(self) -> dict[str, Part]:
        """The query part and, if the data set has its own, the gallery, by name."""
        return {"query": self.query} | ({} if self.shared_gallery else {"gallery": self.gallery})

    @property
    def parts(self) -> dict[str, Part]:
        """The training part and `test_parts`, by name."""
        return {"train": self.train, **self.test_parts}

    @property
    def lone(self) -> np.ndarray:
        """(q,) bool: True for queries whose class has no other image in the gallery."""
        members = np.bincount(self.gallery.labels, minlength=len(self.class_names))
        relevant = members[self.query.labels] - int(self.shared_gallery)
        if self.twins is not None:
            own = self.gallery.labels[self.twins.clip(0)] == self.query.labels
            relevant = relevant - (own & (self.twins >= 0))
        return relevant <= 0

    @cached_property
    def fingerprints(self) -> tuple[str, str]:
        """(SHA-256 of the training part, of all parts): of the names, the labels and the images' contents.

        The class names count only in the second one, as no weight depends on them.
        """
        digests = [_digest(part) for part in self.parts.values()]
        return digests[0], hashlib.sha256("\0".join([*digests, *self.class_names]).encode()).hexdigest()


def _digest(part: Part) -> str:
    digest = hashlib.sha256("\0".join(part.names).encode() + part.labels.tobytes())
    for row in track(part.rows, "looking whether the data changed", len(part)):
        digest.update(part.images.content(int(row)))
    return digest.hexdigest()
