"""Factorisations of matrices; one that fails is a line that says what to change."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from deconfuse.system.errors import UserError
from deconfuse.system.words import agree, many

Result = TypeVar("Result")


def factorise(how: Callable[[Tensor], Result], matrix: Tensor, what: str, fix: str) -> Result:
    """how(matrix), such as torch.linalg.eigh.

    Raises UserError where the matrix has entries that are not finite, of which some routines make numbers and
    others an error, and where the routine fails. what: the matrix in words; fix: what the user can change.
    """
    name = getattr(how, "__name__", "factorisation").removeprefix("linalg_")
    if not torch.isfinite(matrix).all():
        bad = int((~torch.isfinite(matrix)).sum())
        raise UserError(
            f"{what}: {bad} of {many(matrix.numel(), 'entry')} {agree(int(bad))} not finite, so {name} "
            f"is not tried; {fix}"
        )
    try:
        return how(matrix)
    except torch.linalg.LinAlgError as error:
        raise UserError(f"{what}: {name} failed ({str(error).strip().splitlines()[0]}); {fix}") from error


def shrunk_root(spread: Tensor, shrink: float, least: float, what: str, fix: str) -> Tensor:
    """L, lower triangular (D, D), with L L^T = S + shrink tr(S)/D 1; 1 if tr(S)/D is at most `least`.

    spread: the symmetric matrix S >= 0. Raises UserError, with what and fix, as `factorise` does.
    """
    one, level = torch.eye(len(spread), dtype=spread.dtype), spread.diagonal().mean()
    if not level > least:
        return one
    return factorise(torch.linalg.cholesky, spread + shrink * level * one, what, fix)
