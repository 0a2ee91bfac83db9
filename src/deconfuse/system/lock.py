"""One process at a time makes a file; the others wait, and then find it."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from deconfuse.system import distributed
from deconfuse.system.errors import UserError
from deconfuse.system.files import disk
from deconfuse.system.progress import console, speaker

# What file systems without locks answer; there, work is done twice rather than not at all.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
ASKED_EVERY = 0.2  # seconds: how often one who waits looks whether the lock is free

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
    dies, and a process forked inside the block does not hold it. Look for `path` again inside the block. A
    block inside a block of the same path, in one thread, raises RuntimeError. Where the file system has no
    locks the block runs without.
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
                place.unlink(missing_ok=True)  # while it is held: who takes a removed file's lock tries again
            finally:
                lock.release()


def _place(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _forget(place: Path) -> None:
    """Remove the lock of a process that was killed after it had made its file; one that is held stays."""
    if place.exists():
        with suppress(OSError), _lock(place).acquire(blocking=False):  # Timeout is an OSError too
            place.unlink()


def _taken(place: Path, path: Path) -> FileLock | None:
    """The lock, its holder's name in the file; None where the file system has no locks."""
    lock = _lock(place)
    try:
        try:
            lock.acquire(timeout=ASKED_EVERY)
        except Timeout:
            console.print(f"waiting for {_holder(place)}, which makes {path}")
            lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        place.unlink(missing_ok=True)
        return None
    return lock


def _lock(place: Path) -> FileLock:
    return FileLock(place, poll_interval=ASKED_EVERY, fallback_to_soft=False, on_acquired=_sign)


def _sign(descriptor: int) -> None:
    """Write the holder's name into the lock's file."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, ", ".join(filter(None, [f"process {os.getpid()}", speaker()])).encode(), 0)


def _holder(place: Path) -> str:
    with suppress(OSError):
        return place.read_text("utf-8", "replace") or "another process"
    return "another process"
