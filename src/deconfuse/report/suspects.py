"""Which training samples to look at, in which order, and where looking on is of little use."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Suspects:
    """order: rows of training samples that are recommended another label, most suspicious first, ties by row.

    wrong: how many of them look wrong, by default `two_groups` of their suspicion; stop: where to end,
    `bend` of it, wrong or more.
    """

    order: Int[np.ndarray, " s"]
    wrong: int
    stop: int


def suspects(
    suspicion: Float[np.ndarray, " n"], other: Bool[np.ndarray, " n"], skipped: Bool[np.ndarray, " n"]
) -> Suspects:
    """The samples to look at: those that are recommended another label (other) and are not skipped."""
    rows = np.flatnonzero(other & ~skipped & np.isfinite(suspicion))
    order = rows[np.argsort(-suspicion[rows], kind="stable")]
    falling = suspicion[order].astype(np.float64)
    wrong = two_groups(falling)
    return Suspects(order, wrong, max(wrong, bend(falling)))


def two_groups(falling: Float[np.ndarray, " s"]) -> int:
    """How many of the values, largest first, belong to the upper of two groups (Otsu 1979).

    The k that maximises k (s - k) (mean of the first k - mean of the others)^2, the variance between the two
    groups; the smallest such k. All of them where the values are equal.
    """
    s = len(falling)
    if s < 2 or falling[0] == falling[-1]:
        return s
    total, k = np.cumsum(falling), np.arange(1, s)
    between = k * (s - k) * (total[:-1] / k - (total[-1] - total[:-1]) / (s - k)) ** 2
    return int(k[between.argmax()])


def bend(falling: Float[np.ndarray, " s"]) -> int:
    """How many values, largest first, come before the curve bends (Satopaa et al. 2011, Kneedle).

    With both axes scaled to [0, 1], the place where the curve is farthest below the straight line from its
    first to its last value; s where it is nowhere below.
    """
    s = len(falling)
    if s < 3 or falling[0] == falling[-1]:
        return s
    below = np.linspace(1, 0, s) - (falling - falling[-1]) / (falling[0] - falling[-1])
    return int(below.argmax()) if below.max() > 1e-9 else s
