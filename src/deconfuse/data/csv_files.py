"""CSV files as people and programs save them: cut at commas, semicolons or tabs, in UTF-8 or UTF-16.

One reader for all: what a person lists, what a reviewer exports, and what a run wrote.
"""

import codecs
import csv
import difflib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from deconfuse.data.spelling import same_word
from deconfuse.system.errors import UserError, shorten

DELIMITERS = ",;\t"
CHUNK = 200  # rows that are lists at once; Python's garbage collector goes through all there are
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Rows:
    """A CSV's cells as text, column by column: the header without spaces around its words (() of an empty
    file), and below it the rows that are not blank.

    short: the first row that lacks cells, which are empty here; long: the first one that has more cells than
    the header, and how many. It ends the columns.
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
        """The line of the file, counted from 1, in which each row begins; a quoted cell may go on below."""
        begins, found, reader = 1, [], self.reader()
        for row in reader:
            if row:
                found.append(begins)
            begins = reader.line_num + 1
        return found[1 : len(self) + 1]

    def line(self, i: int) -> int:
        """The line in which row i begins, which may be the one after the last of the columns."""
        begins, reader = 1, self.reader()
        for row in reader:
            i -= bool(row)
            if i < -1:  # the header is row -1
                break
            begins = reader.line_num + 1
        return begins

    def reader(self):
        """Python's, at the file's beginning."""
        return csv.reader(io.StringIO(self.text, newline=""), strict=True, **self.dialect)

    def place(self, name: str) -> int | None:
        """Which column has a name, spelt exactly so or else but for capitals; None where there is none.

        Raises UserError where two columns have it.
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
        """Which columns have the names; UserError, with the nearest there is, where one is missing."""
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
    """The file's rows; UserError, naming it, where it is no CSV.

    The delimiter is the one of DELIMITERS that the header has most of. Spaces after delimiters are skipped
    where the header has them, or where quotes stand behind them and only so the rows have the header's cells.
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
    """Raises csv.Error where a quote is not closed, or something follows a closing one."""
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
