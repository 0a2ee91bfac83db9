"""The samples of a data set by number: image files, images in memory, or rows of finished features.

Each class has `content(i)`, bytes that change when sample i changes, and USES, the fields of `Reading`
that have a meaning for its samples.
"""

import io
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from deconfuse.data.image_files import complete, hush_large_images
from deconfuse.data.pixels import RANGE, SKIP, Pixels, Unscalable, exact, extremes, kind, plain, upright
from deconfuse.system.errors import UserError

MEND = f"replace it or {SKIP}"
FED = ("image_size", "image_resize", "channels", "augment", "on_small_class")
ENDS = 4096  # bytes at the start and at the end of a file that its fingerprint is made of
RELEASED_EVERY = 4096  # rows read from a mapped file before its memory is given back to the system


@dataclass(frozen=True)
class Inspection:
    """What `FileImages.inspect` found: (width, height), `pixels.kind`, and the largest value of a kind.

    exact: False if Pillow reads only the upper 8 of 16 bits.
    """

    size: tuple[int, int]
    kind: str
    largest: float
    exact: bool = True


def file_of(images: Sequence, i: int) -> Path | None:
    """The file of image i; None where it is none: an image that is made, in memory, or in an archive."""
    there = hasattr(images, "path") and getattr(images, "on_disk", True)
    return images.path(i) if there else None


class FileImages(Sequence):
    """Images on disk; item i opens file i and raises UserError with its path if it can't be read.

    Items are L or RGB, 8 bits a channel, composited and upright (pixels.py). files: paths, as str or Path.
    boxes (n, 4): left, top, right and bottom edge in pixels of the file, counted from 0, right and bottom
    exclusive. Images are cut to their boxes; an edge beyond the image's edge is moved onto it.
    read: i -> the bytes of file i, for files in an archive, whose paths are then names for messages; None:
    they are files of the disk. It raises UserError, may be called by several threads, and can be pickled.
    whites: the value of white of all integer images and of all float images, which `readable` finds. An image
    of such a kind is refused if neither its white nor pixels.value_range is known.
    """

    USES = (*FED, "on_bad_image", "background", "value_range")

    def __init__(
        self,
        files: Sequence[Path | str],
        boxes: np.ndarray | None = None,
        pixels: Pixels | None = None,
        read: Callable[[int], bytes] | None = None,
    ):
        self.files, self.boxes, self.pixels, self.read = list(files), boxes, pixels or Pixels(), read
        self.whites: dict[str, float] = {}
        self.deep: dict[int, str] = {}  # row -> kind, of the images that have more than 8 bits
        if boxes is not None:
            good = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
            for i in np.flatnonzero(~good)[:1]:
                raise _bad_box(self.path(i), boxes[i], "has no area")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Image.Image:
        with self.opened(i) as image:
            sort = kind(image)
            if sort and self.pixels.value_range is None and sort not in self.whites:
                raise _no_white(self.path(i), sort)
            return self._read(i, image, self.whites.get(sort))

    def _read(self, i: int, image: Image.Image, white: float | None) -> Image.Image:
        """Item i, made from its opened file."""
        found = plain(image, self.pixels, white)
        if self.boxes is not None:
            found = _cut(found, self.boxes[i], self.path(i))
        return upright(found, image)

    def path(self, i: int) -> Path:
        """The path of file i. Paths are made one at a time, as a million of them take seconds."""
        return Path(self.files[i])

    @property
    def on_disk(self) -> bool:
        """True if the paths are those of files, False if they are names of what is in archives."""
        return self.read is None

    @contextmanager
    def raw(self, i: int) -> Iterator[BinaryIO]:
        """File i, opened for reading its bytes."""
        if self.read is not None:
            yield io.BytesIO(self.read(i))
            return
        with open(self.path(i), "rb", buffering=0) as file:
            yield file

    @contextmanager
    def opened(self, i: int) -> Iterator[Image.Image]:
        """File i as Pillow's image whose pixels are not read yet; errors become UserErrors with its path."""
        path = self.path(i)
        hush_large_images()
        try:
            with Image.open(path if self.read is None else io.BytesIO(self.read(i))) as image:
                yield image
        except FileNotFoundError:
            raise _gone(path) from None
        except (UserError, MemoryError):
            raise
        except Unscalable as error:
            raise unusable(path, error) from None
        except Exception as error:  # each of Pillow's decoders has its own kinds of errors
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path}: not a readable image ({reason}); {MEND}") from error

    def inspect(self, i: int, whole: bool) -> Inspection:
        """Read the header of file i and look for its end; with `whole`, read it as item i is read.

        An image of more than 8 bits is always decoded, for its largest value or with the given value_range.

        Raises UserError if the file can't be read, or if its box lies outside the image.
        """
        with self.opened(i) as image:
            sort, size = kind(image), image.size
            if self.boxes is not None:
                _inside(self.boxes[i], size, self.path(i))
            if sort and self.pixels.value_range is None:
                bits = exact(image)  # before the pixels are loaded
                return Inspection(size, sort, extremes(image)[1], bits)
            if whole or sort or not self._complete(i, image):
                self._read(i, image, None)
            return Inspection(size, sort, 0.0)

    def _complete(self, i: int, image: Image.Image) -> bool:
        with self.raw(i) as file:
            return complete(image, file)

    def content(self, i: int) -> bytes:
        """The size of file i, its first and last 4,096 bytes, its box, and its value of white.

        The value of white counts for images of more than 8 bits only, as the other images decide it too.
        """
        path = self.path(i)
        box = b"" if self.boxes is None else self.boxes[i].astype("<f8").tobytes()
        white = str(self.whites.get(self.deep[i])).encode() if i in self.deep else b""
        try:
            with self.raw(i) as file:
                size = file.seek(0, io.SEEK_END)
                file.seek(0)
                head = file.read(ENDS)
                file.seek(max(0, size - ENDS))
                return str(size).encode() + head + file.read(ENDS) + box + white
        except FileNotFoundError:
            raise _gone(path) from None
        except OSError as error:
            raise UserError(
                f"{path}: can't be read ({error.strerror}); mend it or take it off the list"
            ) from None


def _gone(path: Path) -> UserError:
    return UserError(f"{path}: the image is gone; restore it or take it off the list")


def _no_white(path: Path, sort: str) -> UserError:
    return UserError(
        f"{path}: it holds {sort} beyond 8 bits, and the value of white is not known, as the images were not "
        f"looked at beforehand (dataset.on_bad_image=later); {RANGE}"
    )


def unusable(path: Path, error: Unscalable) -> UserError:
    """The error with the file's name and the fix."""
    return UserError(f"{path}: {error}; {error.fix}")


def _inside(box: np.ndarray, size: tuple[int, int], path: Path) -> tuple[float, float, float, float]:
    """The part of the box that is in the image; UserError if that is less than half of the box."""
    left, top, right, bottom = box
    inside = (max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1]))
    width, height = max(inside[2] - inside[0], 0), max(inside[3] - inside[1], 0)
    if width * height < 0.5 * (right - left) * (bottom - top):
        raise _bad_box(path, box, f"lies outside the image, {size[0]} x {size[1]} pixels")
    return inside


def _cut(image: Image.Image, box: np.ndarray, path: Path) -> Image.Image:
    """The part of the image in the box; UserError if less than half of the box is in the image."""
    inside = _inside(box, image.size, path)
    # The edges are rounded to whole pixels, and a thin box keeps at least one pixel.
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

    USES = FED

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> Image.Image:
        return Image.fromarray(self.pixels[i])

    def content(self, i: int) -> bytes:
        """The pixels themselves."""
        return self.pixels[i].tobytes()


class LazyImages(Sequence):
    """Images that another library reads: item i is Pillow's, as `get` returns it.

    get: i -> an image; read: i -> bytes that change when the image changes. USES lacks what is decided when a
    file is opened.
    """

    USES = FED

    def __init__(self, get: Callable[[int], Image.Image], read: Callable[[int], bytes], n: int):
        self.get, self.read, self.n = get, read, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Image.Image:
        return self.get(int(i))

    def content(self, i: int) -> bytes:
        """What `read` returns."""
        return self.read(int(i))


class FeatureRows(Sequence):
    """Finished features in place of images, (n, D) of any real type; item i is row i, (D,) float32.

    The array may be a file that is mapped into memory: only the rows that are asked for are read. exponent:
    all numbers are multiplied by this power of two.
    """

    USES = ("on_small_class",)

    def __init__(self, values: np.ndarray, exponent: int = 0):
        self.values, self.exponent, self.asked = values, exponent, 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> np.ndarray:
        self.asked += 1
        # The system reads 64 KiB around each row, so a pass in random order would map the whole file.
        if self.asked % RELEASED_EVERY == 0 and isinstance(self.values.base, mmap.mmap):
            self.values.base.madvise(mmap.MADV_DONTNEED)
        return np.ldexp(np.asarray(self.values[i], dtype=np.float32), self.exponent)

    def content(self, i: int) -> bytes:
        """The numbers themselves."""
        return self[i].tobytes()
