"""Let one process at a time make a file; the others wait, and then find it."""

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

# Errors of file systems without locks. There, work may be done twice.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
ASKED_EVERY = 0.2  # seconds between two tries of a process that waits for the lock

T = TypeVar("T")


def found_or_made(path: Path, find: Callable[[], T | None], make: Callable[[], T]) -> T:
    """Return what `find` finds; if it is None, what `make` makes and writes to path, one job at a time.

    Of the processes of one job the first looks. Then either all of them find it, or all of them make it and
    the first one writes.
    """
    if distributed.first():
        return _looked(path, find, make)
    result = make() if distributed.told(lambda: True) else find()
    distributed.wait()
    return result


def whole_at(path: Path, read: Callable[[Path], T], again: str) -> T | None:
    """Return what is read at path; None if there is no file, or a damaged one.

    A damaged file is removed, with a message. again: what is done again then, in words of that message.
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
    """Keep other processes from making `path` until the block ends; a process that waits says for which one.

    The lock is flock's, on `.NAME.lock` beside path. The system frees it when its process dies, however it
    dies, and a process forked inside the block does not hold it. Look for `path` again inside the block, as
    another process may have made it meanwhile. A block inside a block of the same path, in one thread, raises
    RuntimeError. If the file system has no locks, the block runs without one.
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
                place.unlink(
                    missing_ok=True
                )  # while it is held: a process that locks a removed file tries again
            finally:
                lock.release()


def _place(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _forget(place: Path) -> None:
    """Remove the lock file of a process that was killed after making its file, unless the lock is held."""
    if place.exists():
        with suppress(OSError), _lock(place).acquire(blocking=False):  # Timeout is an OSError too
            place.unlink()


def _taken(place: Path, path: Path) -> FileLock | None:
    """Take the lock and write the holder's name into its file; None if the file system has no locks."""
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
