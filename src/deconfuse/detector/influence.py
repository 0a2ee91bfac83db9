"""Suspicion = the mean influence on all explained confusions, absolute or signed."""

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Training
from deconfuse.attribution.scores import acting
from deconfuse.labels.relabel import Votes
from deconfuse.system.errors import flag


def suspicion(
    training: Training, influence: Float[Tensor, "p n"], votes: Votes, signed: bool = False
) -> Float[Tensor, " n"]:
    """Mean over the confusions of |score|, or of the score itself if `signed`; 0 if nothing was explained.

    Higher = more likely mislabelled. The default is |score|, as the paper's Figure 2 finds flipped samples at
    both ends: as harmful ones, and as helpful ones that the model ignores.
    """
    flag("detector.signed", signed)
    if len(influence) == 0:
        return torch.zeros(influence.shape[1], dtype=influence.dtype, device=influence.device)
    found = acting(influence)
    return found.mean if signed else found.absolute
