"""The processes that load images: a signal to all of a job's processes is for the main one to answer.

systemd, containers, SLURM and a terminal's Ctrl-C signal every process. A worker that died of it would make
the main one fail, with a loader's traceback, before its own signal stops it.
"""

import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.context import ForkContext, ForkProcess
from typing import TypeVar

from deconfuse.system.errors import UserError
from deconfuse.system.signals import Stopped

T = TypeVar("T")

SIGNALS = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
}  # those that the main process answers (deconfuse.system.signals)
WATCHED_EVERY = 1.0  # seconds between two looks at whether the main process lives
GRACE = 2.0  # seconds in which a signal that a worker died of reaches the main process, too


class Worker(ForkProcess):
    """A process that is born with SIGNALS blocked: there is no moment at which one ends it."""

    def start(self) -> None:
        """Start it; the new process inherits what this thread blocks."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Context(ForkContext):
    """Forks, as is usual under Linux, workers that leave signals to the main process."""

    Process = Worker


def settings(number: int) -> dict:
    """The arguments of a torch DataLoader that say how its workers run; number: how many, 0 for none."""
    if not number:
        return {"num_workers": 0}
    own = {"multiprocessing_context": Context(), "worker_init_fn": begin} if sys.platform == "linux" else {}
    return {"num_workers": number, "persistent_workers": True, **own}


def begin(_: int) -> None:
    """What a worker does first: it ends when its parent has ended, or when its parent sends SIGTERM."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        came = signal.sigtimedwait(SIGNALS, WATCHED_EVERY)
        if came and came.si_signo == signal.SIGTERM and came.si_pid == parent:
            break
    os._exit(0)


@contextmanager
def looked_after() -> Iterator[None]:
    """Turn the error of a worker that is lost into one line: about a signal that has come, else about memory.

    An error that is raised while a signal's exception cleans up becomes that exception again. Lightning's
    teardown, for example, fails if the signal came while the loaders were made.
    """
    _hush()
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        met = _first(error)
        if met is not None:
            raise met from None
        if not _lost(error):
            raise
        time.sleep(GRACE)  # the signal's own error is raised in here
        raise UserError(_line(str(error))) from error


def batches(loader: Iterable[T]) -> Iterator[T]:
    """What a loader yields, looked after."""
    with looked_after():
        yield from loader


@cache
def _hush() -> None:
    """Python prints what is raised while a loader is thrown away: that a worker is lost, which is said
    otherwise, and that a loader lacks attributes, which a signal stopped while it was made."""
    said = sys.unraisablehook

    def hook(met) -> None:
        unmade = isinstance(met.exc_value, AttributeError) and "DataLoaderIter" in str(met.exc_value)
        if not unmade and not (met.exc_value and _lost(met.exc_value)):
            said(met)

    sys.unraisablehook = hook


def _lost(error: BaseException) -> bool:
    """True for what torch says of a worker that has died, and for what is met on the way to a dead one."""
    if isinstance(error, RuntimeError):
        return re.search(r"DataLoader worker \(pid", str(error)) is not None
    frames = traceback.extract_tb(error.__traceback__)
    fetching = any(frame.name == "_try_get_data" for frame in frames)
    return fetching and isinstance(error, (ConnectionError, EOFError, FileNotFoundError))


def _line(text: str) -> str:
    if "shared memory" in text or "Bus error" in text:
        return (
            "a process that loads images ran out of shared memory; num_workers=0 takes none, and a container "
            "gets more by its --shm-size"
        )
    return (
        "a process that loads images was killed, perhaps for want of memory; num_workers=0 takes less; the "
        "same command goes on after the last whole epoch"
    )


def _first(error: BaseException) -> BaseException | None:
    """The Ctrl-C or signal during whose cleaning up the error came; None where there was none."""
    before = error.__context__
    while before is not None and not isinstance(before, (KeyboardInterrupt, Stopped)):
        before = before.__context__
    return before
