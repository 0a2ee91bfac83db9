"""How near each training sample lies to a confused pair: no influence, but the explanation by likeness.

    score(x, P) = (cos(z, z_query) + cos(z, z_neighbour)) / 2,   for a group the mean over its pairs

The samples most like what is explained are what many tools show as its cause; it is the level that a method
which looks at the training has to beat (Hanawa et al., ICLR 2021, "Evaluation of similarity-based
explanations"). Sign: a sample near the pair counts as harmful, which is a guess. Unit: cosine, in [-1, 1].
"""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Sides, Targets, Training
from deconfuse.attribution.rows import score_chunks
from deconfuse.retrieval.directions import unit


def scores(training: Training, targets: Targets) -> Float[Tensor, "g n"]:
    """The mean cosine of every training sample with the sides of every group."""

    def score(sides: Sides) -> Callable[[slice, Training], Tensor]:
        z = F.linear(sides.features, training.weight, training.bias)
        z = unit(z.flatten(0, 1)).view_as(z)
        share = sides.share.abs().repeat(1, 2)[..., None] / 2
        centre = (share * z).sum(1)  # (b, m)
        return lambda rows, part: centre @ unit(part.z).T

    return score_chunks(training, targets, "nearest", score)
