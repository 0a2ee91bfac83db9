"""Write tables as CSV files that a spreadsheet opens without computing a cell."""

import csv
import re
from pathlib import Path

import pandas as pd

from deconfuse.system.files import whole_file

FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # the last is the guard itself, which can so be removed again
# Cells that are no formula: a number with its spread or interval, as in -0.012 ± 0.003 or
# -0.45 [-0.60, -0.30], and - for a missing one.
SPREAD = re.compile(r"-|[+-][0-9.]+(e[+-]?[0-9]+)? [±\[][-+0-9.,e±\[\]() of]*")


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
