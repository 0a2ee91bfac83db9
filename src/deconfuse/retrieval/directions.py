"""Directions of rows, right for rows of any length that the type can hold."""

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.retrieval.coordinates import CHUNK, row_lengths


def unit(rows: Float[Tensor, "n m"], dtype: torch.dtype | None = None) -> Float[Tensor, "n m"]:
    """rows / ||row||, computed in float64 some rows at a time; a row of zeros stays one.

    dtype: of the result, by default the one of the rows. `torch.nn.functional.normalize` divides by 1e-12 at
    least, and squares in the rows' own type, so in float32 it is wrong for rows shorter than 1e-12 and for
    rows longer than 1e19.
    """
    result = torch.empty(rows.shape, dtype=dtype or rows.dtype, device=rows.device)
    step = max(1, CHUNK // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        result[some] = rows[some] / row_lengths(rows[some])
    return result
