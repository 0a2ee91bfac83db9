"""Suspicion = a seeded random number, the level that every detector has to beat."""

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Training
from deconfuse.labels.relabel import Votes


def suspicion(
    training: Training, influence: Float[Tensor, "p n"], votes: Votes, seed: int = 0
) -> Float[Tensor, " n"]:
    """Uniform in [0, 1)."""
    return torch.rand(len(training), generator=torch.Generator().manual_seed(seed))
