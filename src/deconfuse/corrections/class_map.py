"""Decisions on two classes, applied to labels: merged, swapped, or left as they are."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from deconfuse.system.errors import UserError


def class_map(
    decided: Iterable[tuple[int, int, str]], num_classes: int, names: tuple[str, ...]
) -> Int[np.ndarray, " c"]:
    """For each class id the class that its samples get.

    decided: (class, other class, merge | swap | apart). merge: the class becomes the other one, and what that
    one becomes by further merges; swap: each gets the other's samples; apart: nothing. Raises UserError,
    naming the classes, where merges go round in a circle or into two classes, or a class is swapped and
    takes part in another decision that moves it.
    """
    into, swapped = {}, {}
    for one, other, decision in decided:
        if decision == "merge":
            if into.setdefault(one, other) != other:
                both = f"{names[into[one]]} and {names[other]}"
                raise UserError(f"{names[one]} is to be merged into {both}; keep one")
        elif decision == "swap":
            for a, b in ((one, other), (other, one)):
                if swapped.setdefault(a, b) != b:
                    raise UserError(f"{names[a]} is to be swapped with two classes; keep one")
    clash = sorted(swapped.keys() & (into.keys() | set(into.values())))
    if clash:
        raise UserError(f"{names[clash[0]]} is to be swapped and merged; keep one of the two")
    found = np.arange(num_classes)
    for one in into:
        end, seen = one, {one}
        while end in into:
            end = into[end]
            if end in seen:
                raise UserError(f"{names[one]} would be merged into itself by way of others; keep one way")
            seen.add(end)
        found[one] = end
    for a, b in swapped.items():
        found[a] = b
    return found
