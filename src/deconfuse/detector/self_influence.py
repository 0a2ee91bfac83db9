"""Suspicion = a sample's influence on its own loss (Koh and Liang, ICML 2017, section 5.4)."""

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.curvature import sample_gradients
from deconfuse.attribution.head import Training
from deconfuse.attribution.kronecker import fit
from deconfuse.attribution.rows import parts
from deconfuse.labels.relabel import Votes
from deconfuse.system.errors import at_least


def suspicion(
    training: Training, influence: Float[Tensor, "p n"], votes: Votes, damping: float = 1e-2, seed: int = 0
) -> Float[Tensor, " n"]:
    """g^T (F + lambda I)^-1 g >= 0, g = dl/dW of the sample; higher = more likely mislabelled.

    F: the head's Fisher matrix in EKFAC form; lambda: damping in units of its largest eigenvalue.
    """
    at_least("detector.damping", damping, 1e-9)
    factors = fit(training, seed)
    value, gradients = factors.damping(damping), sample_gradients(training)
    return torch.cat(
        [
            factors.quadratic_form(gradients[rows], part.features, value, power=1)
            for rows, part in parts(training)
        ]
    )
