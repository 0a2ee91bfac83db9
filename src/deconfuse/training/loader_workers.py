"""Worker processes that load images leave signals to the main process.

systemd, containers, SLURM and Ctrl-C in a terminal signal every process of a job. If a worker died of the
signal, the main process would fail with a loader's traceback before its own signal stops it.
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

from deconfuse.system.errors import UserError, count
from deconfuse.system.signals import Stopped

T = TypeVar("T")

SIGNALS = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
}  # those that the main process answers (deconfuse.system.signals)
WATCHED_EVERY = 1.0  # seconds between two looks at whether the main process lives
AUTO = "auto"
MOST = 4  # processes that `auto` starts for one loader
GRACE = 2.0  # seconds in which a signal that a worker died of reaches the main process, too


class Worker(ForkProcess):
    """A process that is started with SIGNALS blocked, so that none of them can end it at any moment."""

    def start(self) -> None:
        """Start the process, which inherits the blocked signals of this thread."""
        with _kept():
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _kept() -> Iterator[None]:
    """Signals that arrive inside are answered at its end.

    What a handler raises while a process is forked is printed and dropped by Python, and a signal that this
    thread blocks is taken by another thread. Only the main thread sets handlers.
    """
    came, before = [], {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before[number] = signal.getsignal(number)
                signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in came:
            signal.raise_signal(number)


class Context(ForkContext):
    """A multiprocessing context that forks processes of class Worker."""

    Process = Worker


def number(given: int | str, quick: bool, beside: int = 1) -> int:
    """How many processes load images: num_workers as it is given, or by `auto` one for two cores, up to MOST.

    auto starts none where the cores are two or fewer, which training fills, and where samples are quick to
    load: small or in memory. beside: the job's processes on this machine, which share its cores.
    """
    if given != AUTO:
        if isinstance(given, str):
            raise UserError(f"num_workers={given} is neither {AUTO} nor a number; give {AUTO}, or 0 or more")
        return count("num_workers", given, 0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    own = cores // max(1, beside)
    return 0 if quick or own <= 2 else min(MOST, own // 2)


def settings(number: int, pinned: bool = False) -> dict:
    """The arguments of a torch DataLoader for its workers; number: how many of them, 0 for none.

    pinned: batches come in memory from which a GPU copies without waiting.
    """
    if not number:
        return {"num_workers": 0, "pin_memory": pinned}
    own = {"multiprocessing_context": Context(), "worker_init_fn": begin} if sys.platform == "linux" else {}
    return {"num_workers": number, "persistent_workers": True, "pin_memory": pinned, **own}


def begin(_: int) -> None:
    """Start a thread that ends the worker when its parent has ended or sends it SIGTERM."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        came = signal.sigtimedwait(SIGNALS, WATCHED_EVERY)
        if came and came.si_signo == signal.SIGTERM and came.si_pid == parent:
            break
    os._exit(0)


@contextmanager
def looked_after() -> Iterator[None]:
    """Inside, a lost worker raises the signal that has arrived, or else a UserError about memory.

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
        time.sleep(GRACE)  # a signal that arrives now raises its own exception here
        raise UserError(_line(str(error))) from error


def batches(loader: Iterable[T]) -> Iterator[T]:
    """The batches of a loader, inside looked_after."""
    with looked_after():
        yield from loader


@cache
def _hush() -> None:
    """Stop Python from printing two errors that are raised while a loader is deleted.

    One says that a worker is lost, which is reported in other ways. The other says that a loader lacks
    attributes, as a signal arrived while it was being made.
    """
    said = sys.unraisablehook

    def hook(met) -> None:
        unmade = isinstance(met.exc_value, AttributeError) and "DataLoaderIter" in str(met.exc_value)
        if not unmade and not (met.exc_value and _lost(met.exc_value)):
            said(met)

    sys.unraisablehook = hook


def _lost(error: BaseException) -> bool:
    """True for torch's error about a dead worker, and for errors while data is fetched from one."""
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
    """The Ctrl-C or signal during whose handling the error was raised; None if there was none."""
    before = error.__context__
    while before is not None and not isinstance(before, (KeyboardInterrupt, Stopped)):
        before = before.__context__
    return before
