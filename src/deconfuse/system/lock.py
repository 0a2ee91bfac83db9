"""One process at a time makes a file; the others wait, and then find it."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from deconfuse.system import distributed
from deconfuse.system.errors import UserError
from deconfuse.system.files import disk
from deconfuse.system.progress import console, speaker

# What file systems without locks answer; there, work is done twice rather than not at all.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

T = TypeVar("T")


def found_or_made(path: Path, find: Callable[[], T | None], make: Callable[[], T]) -> T:
    """What is found (not None), else what is made and written to path, by one job at a time.

    Of the processes of a job the first looks; then all find it, or all make it and the first writes.
    """
    if distributed.first():
        return _looked(path, find, make)
    result = make() if distributed.told(lambda: True) else find()
    distributed.wait()
    return result


def whole_at(path: Path, read: Callable[[Path], T], again: str) -> T | None:
    """What is read at path; None where nothing lies there, or where it is not whole, which is said.

    What is not whole is removed. again: what is then done again, in words.
    """
    if not path.exists():
        return None
    try:
        return read(path)
    except (UserError, KeyError) as error:
        console.print(f"{again} again: {error}")
        path.unlink(missing_ok=True)
        return None


def _looked(path: Path, find: Callable[[], T | None], make: Callable[[], T]) -> T:
    found = find()
    if found is not None:
        _forget(_place(path))
        distributed.told(lambda: False)
    else:
        with one_maker(path):
            found = find()
            missing = distributed.told(lambda: found is None)
            found = make() if missing else found
    distributed.wait()
    return found


@contextmanager
def one_maker(path: Path) -> Iterator[None]:
    """Keep other processes from making `path` until the block ends; say for whom one waits.

    The lock is flock's, on `.NAME.lock` beside path: the system frees it when its process dies, however it
    dies. Look for `path` again inside the block. A block inside a block of the same path would wait for
    itself for ever. Where the file system has no locks the block runs without.
    """
    place = _place(path)
    with disk(path):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = _taken(place, path)
    try:
        yield
    finally:
        if lock is not None:
            try:
                place.unlink(missing_ok=True)
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # closing frees it for no process forked inside the block
                os.close(lock)


def _place(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _forget(place: Path) -> None:
    """Remove the lock of a process that was killed after it had made its file; one that is held stays."""
    with suppress(OSError):
        lock = os.open(place, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(lock, place):
                place.unlink()
        finally:
            os.close(lock)


def _taken(place: Path, path: Path) -> int | None:
    """The descriptor that holds the lock, its holder's name in the file; None where there are none."""
    while True:
        lock = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(lock, path)
            if _is(lock, place):
                os.ftruncate(lock, 0)
                os.write(lock, ", ".join(filter(None, [f"process {os.getpid()}", speaker()])).encode())
                return lock
            os.close(lock)  # the holder before removed the file: this lock guards nothing
        except BaseException as error:
            os.close(lock)
            if isinstance(error, OSError) and error.errno in NO_LOCKS:
                return None
            raise


def _take(lock: int, path: Path) -> None:
    """Take the lock, or say who has it and wait."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 1000).decode(errors="replace") or "another process"
        console.print(f"waiting for {holder}, which makes {path}")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _is(lock: int, place: Path) -> bool:
    """True where the open file is the one that lies at place."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(place))
    except FileNotFoundError:
        return False
