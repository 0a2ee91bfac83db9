"""Seeded random numbers, the level that every method has to beat."""

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Targets, Training
from deconfuse.attribution.network import Network
from deconfuse.attribution.rows import of_every_process, place


def scores(training: Training | Network, targets: Targets, *, seed: int = 0) -> Float[Tensor, "g n"]:
    """Standard normal scores, whose signs have no meaning."""
    random = torch.Generator().manual_seed(seed)
    if isinstance(training, Network):
        return torch.randn(len(targets), len(training), generator=random)
    return torch.randn(len(targets), len(of_every_process(training)), generator=random)[:, place(training)]
