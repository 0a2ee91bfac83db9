"""A part of the results: a table with its title, what has to be said of it, and its picture."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

MISSING = "missing"  # a cell that a sweep would have, and no run has


@dataclass(frozen=True)
class Part:
    """name: of its files; title and note: Markdown; table: cells as text, as they are shown."""

    name: str
    title: str
    table: pd.DataFrame
    note: str = ""
    picture: Figure | Image.Image | None = None


def spread(values: Iterable[float | None], digits: int = 3, small: bool = False) -> str:
    """Mean ± standard deviation (n - 1); of one value the value; missing without any.

    Where only some are known, how many: 0.84 ± 0.01 (2 of 5). small: as of `form_of`.
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
    """How numbers that belong together are written: with so many digits after the point, or, where these
    would show fewer than two of the largest, with an exponent: 1.2e-05 ± 3.1e-06."""
    return ".1e" if 0 < max(map(abs, values)) < 10 ** (1 - digits) else f".{digits}f"


def median_of(values: Iterable[float], form: str = ".1e") -> str:
    """The median and the largest of several p-values."""
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known):
        return "-"
    return f"{np.median(known):{form}} ({known.max():{form}})"
