"""Checks of arrays and labels that a caller hands over; each error is one line that names the argument."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from deconfuse.data.images import FeatureRows
from deconfuse.system.errors import UserError, shorten
from deconfuse.system.progress import track

CHECKED_BYTES = 2**26  # of rows that are looked at at once


def array(values: Any, where: str) -> np.ndarray:
    """The values as a numpy array on the CPU; memory maps stay mapped. UserError for ragged lists."""
    if isinstance(values, torch.Tensor):
        if values.is_sparse:
            raise UserError(f"{where}: a sparse tensor; give a dense one (to_dense())")
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if hasattr(values, "tocsr"):
        raise UserError(f"{where}: a sparse matrix; give a dense array (toarray())")
    try:
        return values if isinstance(values, np.ndarray) else np.asarray(values)
    except ValueError:
        raise UserError(f"{where}: rows of different lengths; give one array of shape (n, D)") from None


def rows(values: Any, where: str) -> np.ndarray:
    """(n, D) real numbers, each finite as float32; UserError naming the first row that is not.

    The rows are looked at a block at a time, so a memory map is never in memory as a whole.
    """
    found = array(values, where)
    if found.ndim != 2 or 0 in found.shape:
        raise UserError(
            f"{where}: has shape {found.shape}; give embeddings of shape (n, D), a row for each sample"
        )
    if found.dtype.kind not in "fiub":
        raise UserError(f"{where}: holds {found.dtype}; give real numbers, such as float32")
    for start, block in blocks(found, f"checking {where}"):
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            i, j = bad[0]
            raise UserError(
                f"{where}: row {start + i}, column {j} is {found[start + i, j]}, which is not finite as "
                "float32; "
                "mend or leave out that row"
            )
    return found


def blocks(values: np.ndarray, what: str) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, some rows in float32), in order, with a bar."""
    step = max(1, CHECKED_BYTES // (4 * values.shape[1]))
    starts = range(0, len(values), step)
    source = FeatureRows(values)
    for start in track(starts, what, len(starts)):
        with np.errstate(over="ignore"):
            block = np.asarray(source.values[start : start + step], dtype=np.float32)
        yield start, block


def labels(values: Any, n: int, where: str) -> np.ndarray:
    """(n,) labels as whole numbers (int64) or text (object); UserError for anything else, or a missing one.

    Floats that are whole numbers, booleans, pandas columns and categories are taken, too.
    """
    if isinstance(values, (list, tuple)) and any(isinstance(label, str) for label in values):
        values = np.array(values, dtype=object)  # else numpy would make text of numbers beside text
    found = array(values, where)
    if found.ndim == 2 and found.shape[0] == n and found.shape[1] > 1:
        raise UserError(f"{where}: has shape {found.shape}, as one-hot labels have; give labels.argmax(1)")
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or len(found) != n:
        raise UserError(
            f"{where}: has shape {found.shape} for {n} samples; give one label for each, shape ({n},)"
        )
    if found.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(found) | (found != np.floor(found)))
        if len(bad):
            raise UserError(
                f"{where}: label {bad[0]} is {found[bad[0]]}; give whole numbers or text, and leave out "
                "samples "
                "without a label"
            )
    if found.dtype.kind in "fiub":
        return found.astype(np.int64)
    missing = [i for i, label in enumerate(found.tolist()) if label is None or label != label or label == ""]
    if missing:
        raise UserError(f"{where}: label {missing[0]} is missing; give it, or leave out the sample")
    kinds = {type(label).__name__ for label in found.tolist()}
    if kinds <= {"str", "str_"}:
        return np.array([str(label) for label in found.tolist()], dtype=object)
    if kinds <= {"int", "int64", "int32", "bool"}:
        return found.astype(np.int64)
    raise UserError(
        f"{where}: labels of the types {shorten(sorted(kinds))}; give all as whole numbers, or all as text"
    )


def names(values: Sequence | None, n: int, where: str) -> tuple[str, ...]:
    """A name for each sample: those given, or WHERE/000000 and so on."""
    if values is None:
        return tuple(f"{where}/{i:06d}" for i in range(n))
    found = tuple(str(name) for name in values)
    if len(found) != n:
        raise UserError(f"{where}: {len(found)} names for {n} samples; give one for each")
    return found
