"""CSV files as people and programs save them: with commas, semicolons or tabs, in UTF-8 or UTF-16.

All CSV files of users, reviewers and runs are read by this module, and those of runs are written by it, so
that a spreadsheet opens them without computing a cell.
"""

import codecs
import csv
import difflib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pandas as pd

from deconfuse.system.errors import UserError, shorten
from deconfuse.system.files import whole_file
from deconfuse.system.spelling import same_word

DELIMITERS = ",;\t"
CHUNK = 200  # rows held as lists at once; more of them slow down Python's garbage collector
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # the last is the guard itself, which can so be removed again
# Cells that are no formula: a number with its spread or interval, as in -0.012 ± 0.003 or
# -0.45 [-0.60, -0.30], and - for a missing one.
SPREAD = re.compile(r"-|[+-][0-9.]+(e[+-]?[0-9]+)? [±\[][-+0-9.,e±\[\]() of]*")


@dataclass(frozen=True)
class Rows:
    """The cells of a CSV as text, by columns, without blank rows.

    header: its words without spaces around them, () for an empty file. short: the first row with fewer cells
    than the header, whose missing cells are empty here, or None. long: (the first row with more cells than
    the header, how many it has), or None; the columns end before that row.
    """

    file: Path
    header: tuple[str, ...]
    columns: list[list[str]] = field(repr=False)
    short: int | None
    long: tuple[int, int] | None
    text: str = field(repr=False)
    dialect: dict = field(repr=False)

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def lines(self) -> list[int]:
        """The line of the file, counted from 1, in which each row begins; a quoted cell may span lines."""
        begins, found, reader = 1, [], self.reader()
        for row in reader:
            if row:
                found.append(begins)
            begins = reader.line_num + 1
        return found[1 : len(self) + 1]

    def line(self, i: int) -> int:
        """The line of the file in which row i begins; row `len(self)` is the one that `long` names."""
        begins, reader = 1, self.reader()
        for row in reader:
            i -= bool(row)
            if i < -1:  # the header is row -1
                break
            begins = reader.line_num + 1
        return begins

    def reader(self):
        """Python's CSV reader at the beginning of the file."""
        return csv.reader(io.StringIO(self.text, newline=""), strict=True, **self.dialect)

    def place(self, name: str) -> int | None:
        """The number of the column of this name, if need be ignoring capitals; None if there is none.

        Raises UserError if two columns have it.
        """
        for found in (
            [i for i, word in enumerate(self.header) if word == name],
            [i for i, word in enumerate(self.header) if word.casefold() == name.casefold()],
        ):
            if len(found) > 1:
                raise UserError(f"{self.file}: {len(found)} columns are named {name}; rename all but one")
            if found:
                return found[0]
        return None

    def places(self, names: Iterable[str]) -> list[int]:
        """The numbers of the columns of these names; UserError, with the nearest name, if one is missing."""
        found = {name: self.place(name) for name in names}
        missing = [name for name, place in found.items() if place is None]
        if missing:
            free = [word for word in self.header if word.casefold() not in found]
            near = difflib.get_close_matches(missing[0], free, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(
                f"{self.file}: no column {shorten(missing)}; {hint}it has {', '.join(self.header)}"
            )
        return [place for place in found.values() if place is not None]


def read(file: Path) -> Rows:
    """Read a file; UserError, naming it, if it is no CSV.

    The delimiter is the most frequent one of DELIMITERS in the header. Spaces after delimiters are skipped if
    the header has them, or if quotes follow them and the rows fit the header only when they are skipped.
    """
    text = _text(file)
    first = text.lstrip("\r\n").partition("\n")[0]
    cut = max(DELIMITERS, key=first.count)
    problem = None
    for spaced in (True,) if f"{cut} " in first else (False, True) if f'{cut} "' in text else (False,):
        try:
            found = _parsed(file, text, {"delimiter": cut, "skipinitialspace": spaced})
        except csv.Error as error:
            problem = problem or _unreadable(file, str(error))
            continue
        if found.short is found.long is None:
            return found
        problem = problem or found
    if isinstance(problem, UserError):
        raise problem
    return problem


def _parsed(file: Path, text: str, dialect: dict) -> Rows:
    """Raises csv.Error if a quote is not closed, or if text follows a closing quote."""
    found = Rows(file, (), [], None, None, text, dialect)
    rows = filter(None, found.reader())
    header = tuple(map(same_word, next(rows, [])))
    columns: list[list[str]] = [[] for _ in header]
    short = long = None
    while long is None and (chunk := list(islice(rows, CHUNK))):
        before, widths = len(columns[0]), [len(row) for row in chunk]
        if max(widths) > len(header):
            end = next(i for i, width in enumerate(widths) if width > len(header))
            chunk, long = chunk[:end], (before + end, widths[end])
        if min(widths) < len(header):
            lacking = [i for i, row in enumerate(chunk) if len(row) < len(header)]
            for i in lacking:
                chunk[i] += [""] * (len(header) - len(chunk[i]))
            short = before + lacking[0] if short is None and lacking else short
        for column, cells in zip(columns, zip(*chunk, strict=True), strict=False):
            column.extend(cells)
    return replace(found, header=header, columns=columns, short=short, long=long)


def _text(file: Path) -> str:
    """The file's text, without its byte order mark."""
    try:
        raw = file.read_bytes()
        return raw.decode("utf-16" if raw.startswith(UTF_16) else "utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: not a readable CSV ({error}); it is not UTF-8 text: save it as CSV UTF-8"
        ) from None
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error)) from None


def _unreadable(file: Path, reason: str) -> UserError:
    return UserError(f"{file}: not a readable CSV ({reason})")


def write_csv(path: Path, table: pd.DataFrame, spreadsheet: bool = False, guard: bool = True) -> None:
    """Write a CSV in UTF-8, without the index, with seven significant digits, which float32 needs.

    Text is `guarded` unless guard is False, which is for files that are read as data. spreadsheet: begin with
    the byte order mark by which spreadsheets recognise UTF-8.
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
    """The cell with a ' in front if a spreadsheet may take it for a formula.

    These are cells that begin with = + - @, a tab or a return, and with ' itself. A lone dash, and a number
    with a sign and its spread or interval, are left as they are.
    """
    return f"'{cell}" if cell.startswith(FORMULA) and not SPREAD.fullmatch(cell) else cell


def unguarded(cell: str) -> str:
    """The inverse of `guarded`."""
    return cell[1:] if cell.startswith("'") else cell
