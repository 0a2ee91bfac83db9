"""Suspicion = the log-odds that the label is wrong, by a classifier of the features that has not seen it.

The classifier is that of `labels.wrong`, whose P(wrong) is in samples.csv whatever the detector is.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Training, classes_of
from deconfuse.labels.relabel import Judgement, Votes
from deconfuse.labels.wrong import doubt

LEAST = 1e-15  # P(wrong) and P(right) count as this where they are smaller


def suspicion(training: Training, influence: Float[Tensor, "p n"], votes: Votes) -> Judgement:
    """log P(wrong) - log P(right), nats; higher = more likely mislabelled.

    The classifier's p(j | x) are the votes, by which labels are recommended.
    """
    found = doubt(training.features, training.labels, classes_of(training))
    return Judgement(torch.logit(found.wrong, LEAST), found.votes)
