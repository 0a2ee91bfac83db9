"""Suspicion = 1 - the neighbours' vote for the sample's current label (Algorithm 1's vote)."""

from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Training
from deconfuse.labels.relabel import Votes


def suspicion(training: Training, influence: Float[Tensor, "p n"], votes: Votes) -> Float[Tensor, " n"]:
    """1 - P(current label), in [0, 1]; higher = more likely mislabelled.

    0 for samples that were not candidates.
    """
    return (1 - votes.own).nan_to_num(0.0)
