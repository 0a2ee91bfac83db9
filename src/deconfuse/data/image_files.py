"""Image files on disk: which endings are images, whether a file is complete, and which paths are one file."""

import io
import os
import stat
import struct
import warnings
from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

# Formats that Pillow lists although they are no pictures or need another program to be drawn.
NOT_PICTURES = ("EPS", "IPTC", "MPEG")
TAIL = 4096  # bytes at the end of a file that are searched for its last marker
CHEAP_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")  # the 8-bit modes that `plain` converts


@cache
def suffixes() -> tuple[str, ...]:
    """The file name endings, in lower case, of all formats that the installed Pillow can decode."""
    formats = Image.registered_extensions()
    return tuple(sorted(suffix for suffix, name in formats.items() if _decodes(name)))


def _decodes(name: str) -> bool:
    if name in NOT_PICTURES or name not in Image.OPEN:
        return False
    opener = Image.OPEN[name][0]
    return not (isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile))


def hush_large_images() -> None:
    """Turn off Pillow's warnings about large images, as `readable` names all of them in one line."""
    ours = ("ignore", None, Image.DecompressionBombWarning, None, 0)
    if ours not in warnings.filters:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def complete(image: Image.Image, file: BinaryIO) -> bool:
    """True if an image's file ends where its format says that it ends; False if only decoding can tell.

    Damage before the end is found only by decoding.
    """
    ends_well = ENDS.get(image.format or "")
    if ends_well is None or image.mode not in CHEAP_MODES:
        return False
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(16)
    file.seek(max(0, size - TAIL))
    return ends_well(image, head, file.read(TAIL), size)


def _jpeg(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    return tail.endswith(b"\xff\xd9")


def _png(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    return tail.endswith(b"\0\0\0\0IEND\xaeB`\x82")


def _gif(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    return tail.endswith(b"\0;")


def _riff(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    return struct.unpack("<I", head[4:8])[0] + 8 <= size


def _tiff(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    """True if all strips or tiles end inside the file."""
    tags = image.tag_v2
    for starts, lengths in ((273, 279), (324, 325)):
        if starts in tags and lengths in tags:
            pairs = zip(_several(tags[starts]), _several(tags[lengths]), strict=False)
            return all(start + length <= size for start, length in pairs)
    return False


def _several(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _bmp(image: Image.Image, head: bytes, tail: bytes, size: int) -> bool:
    """True if the file is as long as its header says, and long enough for its uncompressed pixels."""
    codec, extents, offset, _ = image.tile[0]
    rows = (extents[2] - extents[0]) * len(image.getbands()) * (extents[3] - extents[1])
    said = struct.unpack("<I", head[2:6])[0]
    return codec == "raw" and image.mode != "1" and offset + rows <= said <= size


ENDS = {"JPEG": _jpeg, "MPO": _jpeg, "PNG": _png, "GIF": _gif, "WEBP": _riff, "TIFF": _tiff, "BMP": _bmp}


def identities(files: Sequence[Path | str]) -> list[Hashable | None]:
    """A key for each path, equal for all paths of one file, such as links to it; None if there is no file.

    Keys are comparable only with keys of the same call.
    """
    found: list[Hashable | None] = []
    for path in files:
        try:
            status = os.stat(path)
        except (OSError, ValueError):  # ValueError: the path contains a null character
            found.append(None)
            continue
        if not stat.S_ISREG(status.st_mode):
            found.append(None)
        elif status.st_ino:
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        else:  # some file systems do not number their files
            found.append(os.path.realpath(path))
    return found
