"""Suspicion = the training loss."""

from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Training
from deconfuse.attribution.rows import losses
from deconfuse.labels.relabel import Votes


def suspicion(training: Training, influence: Float[Tensor, "p n"], votes: Votes) -> Float[Tensor, " n"]:
    """l(z, y) of the trained model, nats; higher = more likely mislabelled."""
    return losses(training)
