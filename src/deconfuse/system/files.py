"""Write files and folders whole or not at all, and read them with an error that names a damaged one.

A command imports this before it looks at its words, so neither numpy nor pandas is imported here.
"""

import errno
import hashlib
import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from deconfuse.system.errors import UserError

# The names of what is being written: .NAME.MACHINE.PROCESS.partial, as `_partial` makes them.
PARTIAL = re.compile(r"\..+\.(?P<machine>[0-9a-f]{6})\.(?P<process>\d+)\.partial", re.DOTALL)
# Errors of a write into an open file, which name no file: the disk is full or fails.
OF_A_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
CUT = re.compile(r"\d+ requested and \d+ written")  # numpy's, which has no number
# Errors of making, renaming or removing a file, which name it.
OF_A_PLACE = OF_A_DISK | {
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EMLINK, errno.EXDEV, errno.EBUSY, errno.ETXTBSY, errno.ESTALE),
    *(errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.EILSEQ, errno.EOPNOTSUPP),
}
LEFT = 24 * 3600  # seconds after which what another machine began to write counts as abandoned


@contextmanager
def disk(path: Path, option: str = "output_dir=FOLDER") -> Iterator[None]:
    """Turn an OSError of writing path, or below it, into a UserError.

    Other OSErrors, as of a network or of a process that cannot be started, are raised as they are.
    option: the words that choose another place.
    """
    try:
        yield
    except OSError as error:
        if not _of_writing(error, path):
            raise
        raise UserError(
            f"could not write {path} ({error.strerror or error}); nothing there was changed; "
            f"free some space, or choose another place with {option}"
        ) from error


def _of_writing(error: OSError, path: Path) -> bool:
    """True if the error is that of a disk, or of a file that is path, beside it, below it or above it."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, (str, bytes, Path))]
    if not names:
        return error.errno in OF_A_DISK or CUT.fullmatch(str(error)) is not None
    path, places = path.absolute(), [Path(os.fsdecode(name)).absolute() for name in names]
    return error.errno in OF_A_PLACE and any(
        place.is_relative_to(path.parent) or path.is_relative_to(place) for place in places
    )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to, which is renamed to `path` if the block ends without an error.

    Half-written files of killed processes in the same folder are removed.
    """
    partial = _partial(path)
    with disk(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tidy(path.parent)
            yield partial
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, option: str = "output_dir=FOLDER") -> Iterator[Path]:
    """Yield a temporary folder to write to, which replaces `path` if the block ends without an error.

    The folder that was there before is kept until then, and put back if the exchange is interrupted.
    option: the words that choose another place, for the message about a full disk.
    """
    partial = _partial(path)
    before = path.with_name(f".{path.name}.before")
    with disk(path, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        if before.exists() and not path.exists():
            before.rename(path)
        tidy(path.parent)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            shutil.rmtree(before, ignore_errors=True)
            if path.exists():
                path.rename(before)
            partial.rename(path)
            shutil.rmtree(before, ignore_errors=True)
        finally:
            if before.exists() and not path.exists():
                before.rename(path)
            shutil.rmtree(partial, ignore_errors=True)


def new_folder(path: Path) -> None:
    """Raise UserError where something is at the path, other than an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: is there already; give the name of a new folder")


def _partial(path: Path) -> Path:
    """The hidden name under which this process writes `path`: .NAME.MACHINE.PROCESS.partial."""
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.partial")


@cache
def _machine() -> str:
    """Six letters for the machine or container, outside of which a process number means nothing."""
    try:
        numbers = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        numbers = 0
    return short_hash([platform.node(), numbers], 6)


def tidy(folder: Path) -> None:
    """Remove the files and folders that dead processes were writing in a folder; errors are ignored.

    Whether a process of another machine lives is not known, so what it began is removed after LEFT seconds.
    Files of other programs are left alone, also those whose names begin with a dot and end in .partial.
    """
    with suppress(OSError):
        for left in folder.glob(".*.partial"):
            with suppress(OSError):
                if PARTIAL.fullmatch(left.name) and _is_left(left):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


def _is_left(partial: Path) -> bool:
    """True if the writer is dead; False for this process, which may be writing in another thread."""
    machine, process = PARTIAL.fullmatch(partial.name).group("machine", "process")
    if machine != _machine():
        return time.time() - partial.stat().st_mtime > LEFT
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with keys in the order given; NaN and infinities are written as null."""
    with whole_file(path) as partial:
        partial.write_text(
            json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):  # numpy's float64 is one too
        return float(value) if math.isfinite(value) else None
    return _plain(value.item()) if hasattr(value, "item") else value  # another number of numpy


def read_json(path: Path) -> Any:
    """Read the file; raises UserError, naming it, if it is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not whole ({error}); delete it and run again") from None


def short_hash(value: Any, digits: int = 8) -> str:
    """A hash that is the same for equal plain values, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, which are read once as long as the file is not changed or replaced."""
    return _hash(path, version(path))


def version(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to or replaced: its number, size and time of writing."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=64)
def _hash(path: Path, version: tuple[int, ...]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
