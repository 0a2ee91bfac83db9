"""Progress bars for loops that take more than a moment; silent where nobody looks."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def wanted() -> bool:
    """Bars are drawn on a terminal, unless DECONFUSE_PROGRESS=0; =1 draws them anywhere."""
    choice = os.environ.get("DECONFUSE_PROGRESS")
    return sys.stderr.isatty() if choice is None else choice != "0"


def bar() -> Progress:
    """The project's one bar: what, how far, time so far, time left."""
    return Progress(
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
