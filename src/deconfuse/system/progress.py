"""The console: progress bars of long loops, names before lines of a sweep's jobs, seconds of each step."""

import importlib.util
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console, ConsoleRenderable, RenderHook
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")
console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class Speaker(RenderHook):
    """Puts a job's name before each line, as the jobs of a sweep share one console."""

    def __init__(self, name: str):
        self.name = name

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Put the name before text. Anything else that is printed redraws a bar."""
        lines = any(isinstance(part, Text) for part in renderables)
        return [Text(f"{self.name}: ", end=""), *renderables] if lines else renderables


speakers: list[str] = []


def speaker() -> str:
    """The name that is put before each line now; empty outside of a sweep."""
    return speakers[-1] if speakers else ""


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """Put this name before every line of the console."""
    speakers.append(name)
    console.push_render_hook(Speaker(name))
    try:
        yield
    finally:
        console.pop_render_hook()
        speakers.pop()


def by_torchrun() -> bool:
    """True where torchrun started this process, perhaps among others."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def started_first() -> bool:
    """False in all but the first of the processes that torchrun started."""
    return not by_torchrun() or os.environ.get("RANK", "0") == "0"


silent: list[bool] = []  # one entry for each `silence` that is in force


@contextmanager
def silence(asked: bool = True) -> Iterator[None]:
    """Inside, no bar is drawn and the console prints nothing, if asked."""
    before = console.quiet
    if asked:
        silent.append(True)
        console.quiet = True
    try:
        yield
    finally:
        if asked:
            silent.pop()
            console.quiet = before


def wanted() -> bool:
    """True if bars are drawn: on a terminal or in a notebook, unless DECONFUSE_PROGRESS=0; with =1
    anywhere."""
    choice = os.environ.get("DECONFUSE_PROGRESS")
    if silent:
        return False
    return sys.stderr.isatty() or _in_notebook() if choice is None else choice != "0"


def _in_notebook() -> bool:
    """True in Jupyter, where rich draws bars with the help of ipywidgets."""
    return console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None


class Bar(Progress):
    """A bar that leaves no blank line where it is not drawn, as rich 13 does."""

    def stop(self) -> None:
        """End the bar, if it is drawn."""
        if not self.disable:
            super().stop()


def bar() -> Progress:
    """A progress bar: what is done, how much of it, the time so far and the time left."""
    return Bar(
        TextColumn("  {task.description:<34}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not wanted(),
    )


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items while a bar shows how many of `total` are done."""
    with bar() as progress:
        task = progress.add_task(what, total=total, note="")
        for item in items:
            yield item
            progress.advance(task)


class Clock:
    """Measures the seconds of each step."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self.before = time.perf_counter()

    def lap(self, step: str, result: object = True) -> None:
        """The step ends now; a step whose result is None was not asked for, and has no lap."""
        if result is None:
            return
        now = time.perf_counter()
        self.laps[step], self.before = round(now - self.before, 2), now
