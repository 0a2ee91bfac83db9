"""Image files on disk: which names count as images, and whether a file's end is there without decoding it."""

import os
import struct
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageFile

# Endings that Pillow lists and that are no pictures, or that need other programs to be drawn.
NOT_PICTURES = ("EPS", "IPTC", "MPEG")
TAIL = 4096  # bytes at a file's end in which its last marker is looked for
CHEAP_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")  # all that `plain` can convert


@dataclass(frozen=True)
class Look:
    """What was seen of a file: width and height, its kind (data.pixels), and the largest value of one."""

    size: tuple[int, int]
    kind: str
    largest: float


@cache
def suffixes() -> tuple[str, ...]:
    """The endings, in small letters, of all formats that Pillow can decode here."""
    formats = Image.registered_extensions()
    return tuple(sorted(suffix for suffix, name in formats.items() if _decodes(name)))


def _decodes(name: str) -> bool:
    if name in NOT_PICTURES or name not in Image.OPEN:
        return False
    opener = Image.OPEN[name][0]
    return not (isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile))


def hush_large_images() -> None:
    """Let Pillow warn of no large image: `readable` names them in one line."""
    ours = ("ignore", None, Image.DecompressionBombWarning, None, 0)
    if ours not in warnings.filters:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def complete(image: Image.Image, path: Path) -> bool:
    """True where the end of an opened file is where its format says; False where only decoding can tell.

    Damage before the end is found by decoding alone.
    """
    check = ENDS.get(image.format or "")
    if check is None or image.mode not in CHEAP_MODES:
        return False
    size = os.path.getsize(path)
    with open(path, "rb", buffering=0) as file:
        head = file.read(16)
        file.seek(max(0, size - TAIL))
        return check(image, head, file.read(TAIL), size)


def _jpeg(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    return tail.endswith(b"\xff\xd9")


def _png(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    return tail.endswith(b"\0\0\0\0IEND\xaeB`\x82")


def _gif(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    return tail.endswith(b"\0;")


def _riff(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    return struct.unpack("<I", head[4:8])[0] + 8 <= size


def _tiff(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    """All strips or tiles end inside the file."""
    tags = image.tag_v2
    for starts, lengths in ((273, 279), (324, 325)):
        if starts in tags and lengths in tags:
            pairs = zip(_several(tags[starts]), _several(tags[lengths]), strict=False)
            return all(start + length <= size for start, length in pairs)
    return False


def _several(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _bmp(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    """As long as its header says, and long enough for rows of pixels without compression."""
    codec, extents, offset, _ = image.tile[0]
    rows = (extents[2] - extents[0]) * len(image.getbands()) * (extents[3] - extents[1])
    said = struct.unpack("<I", head[2:6])[0]
    return codec == "raw" and image.mode != "1" and offset + rows <= said <= size


ENDS = {"JPEG": _jpeg, "MPO": _jpeg, "PNG": _png, "GIF": _gif, "WEBP": _riff, "TIFF": _tiff, "BMP": _bmp}
