"""Write whole or not at all; read only what is whole."""

import csv
import hashlib
import json
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

import numpy as np
import pandas as pd

from deconfuse.system.errors import UserError

LEFT = 24 * 3600  # seconds after which nobody can still be writing a file or folder begun elsewhere
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # the last is the guard itself, so that it can be taken off
# No formula: what tables say of several runs, as -0.012 ± 0.003 or -0.45 [-0.60, -0.30], and - for nothing.
SPREAD = re.compile(r"-|[+-][0-9.]+(e[+-]?[0-9]+)? [±\[][-+0-9.,e±\[\]() of]*")


@contextmanager
def disk(path: Path, option: str = "output_dir=FOLDER") -> Iterator[None]:
    """Turn an operating system's refusal to write below path into one line for the user.

    option: the words that choose another place.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"could not write {path} ({error.strerror or error}); nothing there was changed; "
            f"free some space, or choose another place with {option}"
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; it becomes `path` only when the block ends well.

    What killed processes left in the same folder is removed.
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
    """A temporary folder to write to; it takes the place of `path` only when the block ends well.

    The folder that was there before is kept until then, and put back if the exchange was cut short.
    option: the words that choose another place, for the user of a full disk.
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


def _partial(path: Path) -> Path:
    """The hidden name that this process writes `path` under: .NAME.MACHINE.PROCESS.partial."""
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.partial")


@cache
def _machine() -> str:
    """Six letters for the machine, or the container, within which process numbers are those of processes."""
    try:
        numbers = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        numbers = 0
    return short_hash([platform.node(), numbers], 6)


def tidy(folder: Path) -> None:
    """Remove what processes that died were writing in a folder; what can't be removed is left.

    On another machine nobody can tell which processes live: what was begun there goes after LEFT seconds.
    """
    with suppress(OSError):
        for left in folder.glob(".*.partial"):
            with suppress(OSError):
                if _is_left(left):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


def _is_left(partial: Path) -> bool:
    """True where nobody is writing any more; false of this process, which may write in another thread."""
    *_, machine, process, _ = partial.name.split(".")
    if machine != _machine() or not process.isdigit():
        return time.time() - partial.stat().st_mtime > LEFT
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def write_json(path: Path, value: Any) -> None:
    """Indented, keys in the order given; NaN is written as null."""
    with whole_file(path) as partial:
        partial.write_text(
            json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Raises UserError, naming the file, where it is missing or not whole."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not whole ({error}); delete it and run again") from None


def write_csv(path: Path, table: pd.DataFrame, spreadsheet: bool = False, guard: bool = True) -> None:
    """UTF-8, no index, seven significant digits: what float32 holds; text `guarded`, numbers as they are.

    spreadsheet: with the mark by which these know UTF-8. guard: False for what is read as data, never opened.
    """
    text = [i for i, kind in enumerate(table.dtypes) if not pd.api.types.is_numeric_dtype(kind)]
    cells = [cell for i in text for cell in table.iloc[:, i] if isinstance(cell, str)]
    if guard and any(cell.startswith(FORMULA) for cell in cells):
        table = table.map(lambda cell: guarded(cell) if isinstance(cell, str) else cell)
    # A lone carriage return ends a line for readers, but makes Python's writer quote no cell.
    quoting = csv.QUOTE_ALL if any("\r" in cell for cell in cells) else csv.QUOTE_MINIMAL
    with whole_file(path) as partial:
        encoding = "utf-8-sig" if spreadsheet else "utf-8"
        layout = {"index": False, "float_format": "%.7g", "lineterminator": "\n", "quoting": quoting}
        table.to_csv(partial, encoding=encoding, **layout)


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: ' before = + - @, tab, return, and before ' itself.

    A lone dash, and a number with a sign and its spread or interval, are no formula.
    """
    return f"'{cell}" if cell.startswith(FORMULA) and not SPREAD.fullmatch(cell) else cell


def unguarded(cell: str) -> str:
    """What `guarded` was given."""
    return cell[1:] if cell.startswith("'") else cell


def write_array(path: Path, array: np.ndarray) -> None:
    """One .npy file."""
    with whole_file(path) as partial, open(partial, "wb") as file:
        np.save(file, array, allow_pickle=False)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """One .npz file."""
    with whole_file(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Raises UserError, naming the file, where it is missing or not whole."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # zip, zlib and numpy each have their own for a damaged file
        raise UserError(f"{path}: not whole ({error}); delete it and run again") from None


def short_hash(value: Any, digits: int = 8) -> str:
    """The same for equal plain values, whatever the order of their keys."""
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
