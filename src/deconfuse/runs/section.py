"""A section of the results: a table with its title, a note and a picture; how numbers are written in it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

MISSING = "missing"  # the text of a cell for which no run has been made


@dataclass(frozen=True)
class Section:
    """name: of its files, without suffix; title, note: Markdown; table: its cells are text as it is shown."""

    name: str
    title: str
    table: pd.DataFrame
    note: str = ""
    picture: Figure | Image.Image | None = None


def spread(values: Iterable[float | None], digits: int = 3, small: bool = False) -> str:
    """Mean ± standard deviation (n - 1); of a single value the value alone, and of none the text MISSING.

    Where only some values are known, their number follows: 0.84 ± 0.01 (2 of 5). digits: after the point.
    small: numbers too small for that many digits are written with an exponent, as `form_of` does.
    """
    values = list(values)
    known = np.array([value for value in values if value is not None and math.isfinite(value)])
    if not len(known):
        return MISSING
    found = [known.mean(), known.std(ddof=1)] if len(known) > 1 else [known.mean()]
    form = form_of(found, digits) if small else f".{digits}f"
    deviation = f" ± {found[1]:{form}}" if len(known) > 1 else ""
    some = f" ({len(known)} of {len(values)})" if len(known) < len(values) else ""
    return f"{found[0]:{form}}{deviation}{some}"


def form_of(values: Iterable[float], digits: int) -> str:
    """The format of numbers that are written side by side: so many digits after the point.

    Where that would show fewer than two digits of the largest, the format has an exponent: 1.2e-05 ± 3.1e-06.
    """
    return ".1e" if 0 < max(map(abs, values)) < 10 ** (1 - digits) else f".{digits}f"


def median_of(values: Iterable[float], form: str = ".1e") -> str:
    """The median and, in brackets, the largest of several p-values; "-" where none is known."""
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known):
        return "-"
    return f"{np.median(known):{form}} ({known.max():{form}})"
