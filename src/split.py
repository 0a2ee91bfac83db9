"""A data set as the rest of the project sees it: train, query and gallery samples with labels."""

import hashlib
import mmap
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from src.errors import UserError, count, one_of, shorten
from src.progress import console, track

ASKED = 4096  # rows after which a mapped file's memory is given back; the system reads 64 KiB around each
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


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
        count("dataset.image_size", self.size, 8)
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


class FileImages(Sequence):
    """Images on disk; item i opens file i and raises UserError with its path if it can't be read.

    boxes (n, 4): left, top, right and bottom edge in pixels of the file, counted from 0, right and bottom
    exclusive; images are cut to them. An edge beyond the image's is moved onto it.
    """

    def __init__(self, files: Sequence[Path], boxes: np.ndarray | None = None):
        self.files, self.boxes = list(files), boxes
        if boxes is not None:
            good = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
            for i in np.flatnonzero(~good)[:1]:
                raise _bad_box(self.files[i], boxes[i], "has no area")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Image.Image:
        path = self.files[i]
        try:
            with Image.open(path) as image:
                image.load()
                return image if self.boxes is None else _cut(image, self.boxes[i], path)
        except FileNotFoundError:
            raise _gone(path) from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{path}: not a readable image ({reason}); replace it or set dataset.on_bad_image=skip"
            ) from None

    def mark(self, i: int) -> bytes:
        """What changes when file i changes: its size, first and last 4,096 bytes, and its box."""
        path = self.files[i]
        box = b"" if self.boxes is None else self.boxes[i].astype("<f8").tobytes()
        try:
            with open(path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(4096)
                file.seek(max(0, size - 4096))
                return str(size).encode() + head + file.read(4096) + box
        except FileNotFoundError:
            raise _gone(path) from None
        except OSError as error:
            raise UserError(
                f"{path}: can't be read ({error.strerror}); mend it or take it off the list"
            ) from None


def _gone(path: Path) -> UserError:
    return UserError(f"{path}: the image is gone; restore it or take it off the list")


def _cut(image: Image.Image, box: np.ndarray, path: Path) -> Image.Image:
    """The part of the image in the box; UserError where less than half of the box is in the image."""
    left, top, right, bottom = box
    inside = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    width, height = max(inside[2] - inside[0], 0), max(inside[3] - inside[1], 0)
    if width * height < 0.5 * (right - left) * (bottom - top):
        raise _bad_box(path, box, f"lies outside the image, {image.width} x {image.height} pixels")
    # Whole pixels, and at least the one that the middle of a thin box is in.
    left, top = (min(round(edge), size - 1) for edge, size in zip(inside[:2], image.size, strict=True))
    return image.crop((left, top, max(round(inside[2]), left + 1), max(round(inside[3]), top + 1)))


def _bad_box(path: Path, box: np.ndarray, what: str) -> UserError:
    edges = ", ".join(f"{edge:g}" for edge in box)
    return UserError(
        f"{path}: the box ({edges}), left, top, right, bottom, {what}; "
        "correct it or set dataset.crop_box=false"
    )


class ArrayImages(Sequence):
    """Grey images in memory, (n, height, width) uint8."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> Image.Image:
        return Image.fromarray(self.pixels[i])

    def mark(self, i: int) -> bytes:
        """The pixels themselves."""
        return self.pixels[i].tobytes()


class FeatureRows(Sequence):
    """Finished features in place of images, (n, D) of any real type; item i is row i, (D,) float32.

    The array may be a file that is mapped into memory: only the rows that are asked for are read.
    """

    def __init__(self, values: np.ndarray):
        self.values, self.asked = values, 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> np.ndarray:
        self.asked += 1
        if self.asked % ASKED == 0 and isinstance(self.values.base, mmap.mmap):
            self.values.base.madvise(mmap.MADV_DONTNEED)
        return np.array(self.values[i], dtype=np.float32)

    def mark(self, i: int) -> bytes:
        """The numbers themselves."""
        return self[i].tobytes()


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
    `recall_at` are the k of the recalls that are usual for the data set, 1 first. `twins` (q,) int64: the gallery
    row that is the same sample as each query, -1 where none; None: nobody has one.
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

    def fingerprint(self) -> str:
        """A hash of names, labels and image marks: another one means other data."""
        digest = hashlib.sha256()
        for part in (self.train, self.query, self.gallery):
            digest.update("\0".join(part.names).encode() + part.labels.tobytes())
            for row in track(part.rows, "looking whether the data changed", len(part)):
                digest.update(part.images.mark(int(row)))
        return digest.hexdigest()


def readable(images: FileImages, on_bad_image: str) -> np.ndarray:
    """Rows to keep: all of them for `raise` (reading names a bad one), the readable ones for `skip`."""
    one_of("dataset.on_bad_image", on_bad_image, ("raise", "skip"))
    rows = np.arange(len(images))
    if on_bad_image == "raise":
        return rows

    def problem(i: int) -> str | None:
        try:
            images[i]
        except UserError as error:
            return str(error).split(";")[0]
        return None

    with ThreadPoolExecutor() as pool:
        found = list(track(pool.map(problem, rows), "checking images", len(images)))
    for text in filter(None, found):
        console.print(f"skipped {text}")
    return rows[[text is None for text in found]]


def build(
    images: Sequence,
    classes: Sequence[str],
    parts: Sequence[str],
    names: Sequence[str],
    *,
    source: str,
    image: ImageSpec | RowSpec,
    rows: np.ndarray | None = None,
    same_things: Sequence[Sequence[str]] = (),
    recall_at: tuple[int, ...] = (1, 2, 4, 8),
    on_small_class: str = "raise",
) -> Split:
    """Sort samples into a Split and check it.

    classes, parts and names go with images; a part is train, test, query or gallery (test: query
    and gallery at once). rows: which samples to take (all). on_small_class: raise, drop or keep classes
    that have a single sample on their side.
    Raises UserError for an empty part, a single test sample, a class in both train and test, and, with
    raise, a class with one sample.
    """
    one_of("dataset.on_small_class", on_small_class, ("raise", "drop", "keep"))
    rows = np.arange(len(images)) if rows is None else rows
    classes, parts = np.asarray(classes, dtype=object), np.asarray(parts, dtype=object)
    for part in sorted({str(parts[i]) for i in rows}):
        one_of(f"{source}: split", part, ("train", "test", "query", "gallery"))
    _check_names(rows, parts, names, source)
    rows = _without_small(rows, classes, parts, source, on_small_class)
    is_train = parts[rows] == "train"
    train_names, test_names = sorted(set(classes[rows[is_train]])), sorted(set(classes[rows[~is_train]]))
    both = sorted(set(train_names) & set(test_names))
    if both:
        raise UserError(
            f"{source}: {len(both)} class(es) are in training and in test: {shorten(both)}; "
            "metric learning is tested on unseen classes, so move each to one side"
        )
    class_names = (*train_names, *test_names)
    ids = {name: i for i, name in enumerate(class_names)}

    def part(*wanted: str) -> Part:
        mine = rows[np.isin(parts[rows].astype(str), wanted)]
        labels = np.array([ids[name] for name in classes[mine]], dtype=np.int64)
        return Part(images, mine, labels, tuple(names[i] for i in mine))

    own_gallery = bool({"query", "gallery"} & set(parts[rows]))
    query = part("test", "query")
    gallery = part("test", "gallery") if own_gallery else query
    train = part("train")
    for name, one in (("training", train), ("query", query), ("gallery", gallery)):
        if len(one) == 0:
            raise UserError(f"{source}: no {name} images; give it at least two classes of two images each")
    if gallery is query and len(query) == 1:
        raise UserError(f"{source}: the only test image has no other to be compared with; add test images")
    known = [tuple(sorted(ids[c] for c in group if c in ids)) for group in same_things]
    return Split(
        train,
        query,
        gallery,
        class_names,
        len(train_names),
        image,
        tuple(group for group in known if len(group) > 1),
        recall_at,
    )


def _check_names(rows: np.ndarray, parts: np.ndarray, names: Sequence[str], source: str) -> None:
    """Refuse what would make a sample its own neighbour, and names that no table could hold."""
    words = {str(parts[i]) for i in rows}
    if "test" in words and words & {"query", "gallery"}:
        raise UserError(
            f"{source}: test rows beside query or gallery rows; "
            "say test for samples that are both, or query and gallery for all"
        )
    seen: set[str] = set()
    for i in rows:
        name = names[i]
        if name in seen:
            raise UserError(f"{source}: {name} is listed twice; keep one")
        seen.add(name)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{source}: the name {name!r} is not UTF-8; rename the file") from None


def _without_small(rows, classes, parts, source: str, on_small_class: str) -> np.ndarray:
    """Drop, or refuse, classes with a single sample: nothing of their own could ever be retrieved."""
    if on_small_class == "keep":
        return rows
    side = np.where(parts[rows] == "train", "train", "test")
    keys = [f"{s}/{c}" for s, c in zip(side, classes[rows], strict=True)]
    unique, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    small = [key.split("/", 1)[1] for key in unique[counts < 2]]
    if small and on_small_class == "raise":
        raise UserError(
            f"{source}: {len(small)} class(es) have a single image: {shorten(small)}; "
            "add images, or leave them out with dataset.on_small_class=drop"
        )
    return rows[counts[inverse] >= 2] if len(rows) else rows
