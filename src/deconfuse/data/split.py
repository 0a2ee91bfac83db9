"""A data set as the rest of the project sees it: train, query and gallery samples with labels."""

import hashlib
import mmap
import os
import stat
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from deconfuse.data.image_files import Look, complete, hush_large_images
from deconfuse.data.pixels import Pixels, extremes, kind, plain, upright, white_of
from deconfuse.data.spelling import same_path
from deconfuse.system.errors import UserError, count, one_of, shorten
from deconfuse.system.progress import console, track

SKIP = "set dataset.on_bad_image=skip"
MEND = f"replace it or {SKIP}"
READ_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
ASKED = 4096  # rows after which a mapped file's memory is given back; the system reads 64 KiB around each
SIDES = {"train": ("train",), "query": ("test", "query"), "gallery": ("test", "gallery")}


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

    Items are L or RGB, 8 bits, composited and upright (pixels.py). boxes (n, 4): left, top, right and bottom
    edge in pixels of the file, counted from 0, right and bottom exclusive; images are cut to them. An edge
    beyond the image's is moved onto it.
    whites: the value of white of all integer images, and of all images of floats (`readable` finds them).
    """

    def __init__(self, files: Sequence[Path], boxes: np.ndarray | None = None, pixels: Pixels | None = None):
        self.files, self.boxes, self.pixels = list(files), boxes, pixels or Pixels()
        self.whites: dict[str, float] = {}
        self.deep: dict[int, str] = {}  # rows that need a scale, and their kind
        if boxes is not None:
            good = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
            for i in np.flatnonzero(~good)[:1]:
                raise _bad_box(self.files[i], boxes[i], "has no area")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Image.Image:
        with self.opened(i) as image:
            found = plain(image, self.pixels, self.whites.get(kind(image)))
            if self.boxes is not None:
                found = _cut(found, self.boxes[i], self.files[i])
            return upright(found, image)

    @contextmanager
    def opened(self, i: int) -> Iterator[Image.Image]:
        """File i as Pillow's image, its pixels not read yet; errors become UserErrors with its path."""
        path = self.files[i]
        hush_large_images()
        try:
            with Image.open(path) as image:
                yield image
        except FileNotFoundError:
            raise _gone(path) from None
        except READ_ERRORS as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path}: not a readable image ({reason}); {MEND}") from None

    def seen(self, i: int, whole: bool) -> Look:
        """A look at file i before it is needed: its header and whether its end is there, or all its pixels.

        Its box is compared with its size. UserError where it can't be read, or the box is outside.
        """
        with self.opened(i) as image:
            sort, size = kind(image), image.size
            if self.boxes is not None:
                _inside(self.boxes[i], size, self.files[i])
            if sort and self.pixels.value_range is None:
                return Look(size, sort, extremes(image)[1])
            if whole or not complete(image, self.files[i]):
                plain(image, self.pixels)
            return Look(size, sort, 0.0)

    def mark(self, i: int) -> bytes:
        """What changes when file i changes: its size, first and last 4,096 bytes, and its box."""
        path = self.files[i]
        box = b"" if self.boxes is None else self.boxes[i].astype("<f8").tobytes()
        try:
            with open(path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(4096)
                file.seek(max(0, size - 4096))
                scale = self._scale(i)
                return str(size).encode() + head + file.read(4096) + box + scale
        except FileNotFoundError:
            raise _gone(path) from None
        except OSError as error:
            raise UserError(
                f"{path}: can't be read ({error.strerror}); mend it or take it off the list"
            ) from None

    def _scale(self, i: int) -> bytes:
        """The value of white of an image whose scale the others decide too; nothing of 8-bit ones."""
        return str(self.whites.get(self.deep[i])).encode() if i in self.deep else b""


def _gone(path: Path) -> UserError:
    return UserError(f"{path}: the image is gone; restore it or take it off the list")


def _inside(box: np.ndarray, size: tuple[int, int], path: Path) -> tuple[float, float, float, float]:
    """The box's part in the image; UserError where that is less than half of it."""
    left, top, right, bottom = box
    inside = (max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1]))
    width, height = max(inside[2] - inside[0], 0), max(inside[3] - inside[1], 0)
    if width * height < 0.5 * (right - left) * (bottom - top):
        raise _bad_box(path, box, f"lies outside the image, {size[0]} x {size[1]} pixels")
    return inside


def _cut(image: Image.Image, box: np.ndarray, path: Path) -> Image.Image:
    """The part of the image in the box; UserError where less than half of the box is in the image."""
    inside = _inside(box, image.size, path)
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

    The array may be a file that is mapped into memory: only the rows that are asked for are read. exponent:
    all numbers are multiplied by this power of two.
    """

    def __init__(self, values: np.ndarray, exponent: int = 0):
        self.values, self.exponent, self.asked = values, exponent, 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> np.ndarray:
        self.asked += 1
        if self.asked % ASKED == 0 and isinstance(self.values.base, mmap.mmap):
            self.values.base.madvise(mmap.MADV_DONTNEED)
        return np.ldexp(np.asarray(self.values[i], dtype=np.float32), self.exponent)

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
        digest.update(part.images.mark(int(row)))
    return digest.hexdigest()


def readable(images: FileImages, on_bad_image: str) -> np.ndarray:
    """Rows to keep, after a look at every image: its header, its end and its box.

    raise: all rows; UserError, naming the first bad ones and their number. skip: those that can be read to
    their last pixel, the others are said. later: all rows unseen; a bad one is named when it is read.
    Says how many images are very large, and how images with more than 8 bits are scaled.
    """
    one_of("dataset.on_bad_image", on_bad_image, ("raise", "skip", "later"))
    rows = np.arange(len(images))
    if on_bad_image == "later":
        return rows

    def look(i: int) -> Look | UserError:
        try:
            return images.seen(int(i), whole=on_bad_image == "skip")
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = list(track(pool.map(look, rows), "checking images", len(images)))
    bad = [answer for answer in found if isinstance(answer, UserError)]
    if bad and on_bad_image == "raise":
        raise _all_bad(bad, len(images))
    for error in bad:
        console.print(f"skipped {str(error).split(';')[0]}")
    looks = {int(i): answer for i, answer in zip(rows, found, strict=True) if isinstance(answer, Look)}
    say_large(images, looks)
    set_scales(images, looks)
    return np.array(sorted(looks), dtype=np.int64)


def _all_bad(bad: list[UserError], n: int) -> UserError:
    """The one error, or one line that names the first of many."""
    if len(bad) == 1:
        return bad[0]
    first = shorten((str(error).split(";")[0] for error in bad), 3)
    return UserError(f"{len(bad):,} of {n:,} images can't be used: {first}; mend or replace them, or {SKIP}")


def say_large(images: FileImages, looks: dict[int, Look]) -> None:
    """A line that names images that Pillow thinks too large for comfort."""
    most = Image.MAX_IMAGE_PIXELS or float("inf")
    large = [i for i, look in looks.items() if look.size[0] * look.size[1] > most]
    if large:
        sizes = (f"{images.files[i]} ({looks[i].size[0]:,} x {looks[i].size[1]:,})" for i in large)
        console.print(f"very large images, read as a whole each time: {shorten(sizes, 3)}")


def set_scales(images: FileImages, looks: dict[int, Look]) -> None:
    """The value of white of all images of one kind, by the largest value among all; said in a line each."""
    images.deep = {i: look.kind for i, look in looks.items() if look.kind}
    if images.pixels.value_range is not None:
        return
    for sort in sorted(set(images.deep.values())):
        rows = [i for i, name in images.deep.items() if name == sort]
        top = max(rows, key=lambda i: looks[i].largest)
        try:
            images.whites[sort] = white_of(sort, looks[top].largest)
        except ValueError as error:
            raise UserError(
                f"{images.files[top]}: {error}; set dataset.value_range=[0,1] or [0,255], as it is"
            ) from None
        console.print(
            f"{len(rows):,} images of {sort} beyond 8 bits: 0 is black and {images.whites[sort]:g} white, "
            f"as the largest value is {looks[top].largest:g} ({images.files[top]}); "
            "dataset.value_range=[BLACK,WHITE] says otherwise"
        )


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
    same: Sequence[Hashable] | None = None,
) -> Split:
    """Sort samples into a Split and check it.

    classes, parts and names go with images; a part is train, test, query or gallery (test: query
    and gallery at once). rows: which samples to take (all). on_small_class: raise, drop or keep classes
    that have a single sample on their side. same: what each sample is, however it is called; equal ones are
    one file (None: the names).
    Raises UserError for an empty part, a single test sample, a class in both train and test, a single
    training class, a file in training and test or twice in a part, and, with raise, a class with one sample.
    """
    one_of("dataset.on_small_class", on_small_class, ("raise", "drop", "keep"))
    rows = np.arange(len(images)) if rows is None else rows
    classes, parts = np.asarray(classes, dtype=object), np.asarray(parts, dtype=object)
    for part in sorted({str(parts[i]) for i in rows}):
        one_of(f"{source}: split", part, ("train", "test", "query", "gallery"))
    same = names if same is None else same
    _check_names(rows, names, source)
    _check_files(rows, classes, parts, names, same, source)
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
    if len(train_names) == 1:
        raise UserError(
            f"{source}: one training class alone, {train_names[0]}; metric learning tells classes apart, so "
            "give it two or more to train on, and two others to test on"
        )
    known = [tuple(sorted(ids[c] for c in group if c in ids)) for group in same_things]
    split = Split(
        train,
        query,
        gallery,
        class_names,
        len(train_names),
        image,
        tuple(group for group in known if len(group) > 1),
        recall_at,
        None if gallery is query else _twins(same, query, gallery),
    )
    if split.twins is not None:
        both = int((split.twins >= 0).sum())
        console.print(
            f"{source}: {both} of {len(query)} queries are in the gallery too, never as their own neighbour"
        )
    if split.trivial:
        console.print(f"warning: {source}: {split.trivial}; test on two classes or more")
    return split


def _check_names(rows: np.ndarray, names: Sequence[str], source: str) -> None:
    """Refuse names that no table could hold."""
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        for name in (names[i] for i in rows):
            if name != name.encode(errors="replace").decode():
                raise UserError(f"{source}: the name {name!r} is not UTF-8; rename the file") from None


def _check_files(rows, classes, parts, names, same: Sequence[Hashable], source: str) -> None:
    """Refuse a file in training and in test, in two classes, and twice where it would be its own neighbour.

    A training file that has links to it counts as often as it is listed; a line says so. A query may be in
    the gallery too.
    """
    of = {side: [i for i in rows.tolist() if parts[i] in words] for side, words in SIDES.items()}
    for side, mine in of.items():
        twice = _pairs(same, mine, mine)
        plain = [(i, j) for i, j in twice if side != "train" or same_path(names[i]) == same_path(names[j])]
        if plain:
            i, j = plain[0]
            also = "" if names[i] == names[j] else f" (the same file as {names[i]})"
            raise UserError(f"{source}: {names[j]} is listed twice{also}; keep one")
        _check_labels(twice, classes, names, source)
        if twice:
            i, j = twice[0]
            console.print(
                f"{source}: {len(twice)} training image(s) are there already under another name, as "
                f"{names[j]} is as {names[i]}, and count once more"
            )
    both = _pairs(same, of["train"], of["query"]) + _pairs(same, of["train"], of["gallery"])
    if both:
        told = {j: names[j] + ("" if names[i] == names[j] else f" (as {names[i]})") for i, j in both}
        raise UserError(
            f"{source}: {len(told)} file(s) are in training and in test: {shorten(told.values(), 3)}; "
            "keep each on one side"
        )
    if len(of["query"]) != len(of["gallery"]) or of["query"] != of["gallery"]:
        _check_labels(_pairs(same, of["gallery"], of["query"]), classes, names, source)


def _pairs(same: Sequence[Hashable], some: list[int], others: list[int]) -> list[tuple[int, int]]:
    """(i of some, j of others) that are one file, once for each j; of one list with itself, i before j."""
    first: dict[Hashable, int] = {}
    for i in some:
        first.setdefault(same[i], i)
    if some is others and len(first) == len(some):
        return []
    return [(first[same[j]], j) for j in others if first.get(same[j], j) != j]


def _check_labels(pairs: list[tuple[int, int]], classes, names: Sequence[str], source: str) -> None:
    """Refuse one file in two classes."""
    for i, j in pairs:
        if classes[i] != classes[j]:
            other = "" if names[i] == names[j] else f", as {names[i]},"
            raise UserError(
                f"{source}: {names[j]} is in class {classes[j]} and{other} in class {classes[i]}; keep one"
            )


def _twins(same: Sequence[Hashable], query: Part, gallery: Part) -> np.ndarray | None:
    """The gallery row of each query's own file, -1 where there is none; None where no query has one."""
    place = {same[row]: i for i, row in enumerate(gallery.rows.tolist())}
    found = np.array([place.get(same[row], -1) for row in query.rows.tolist()], dtype=np.int64)
    return found if (found >= 0).any() else None


def identities(files: Sequence[Path | str]) -> list[Hashable | None]:
    """What each file is, whatever it is called: links to it, and ./ in its path, change nothing.

    None where there is no file.
    """
    found: list[Hashable | None] = []
    for path in files:
        try:
            is_ = os.stat(path)
        except (OSError, ValueError):  # ValueError: a name with a null character
            found.append(None)
            continue
        # Some file systems number no files.
        key = (is_.st_dev, is_.st_ino, is_.st_size, is_.st_mtime_ns) if is_.st_ino else os.path.realpath(path)
        found.append(key if stat.S_ISREG(is_.st_mode) else None)
    return found


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
