"""Suspicion = the cosine to the closest proxy of another class minus that to the label's own proxy."""

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Training, class_cosines
from deconfuse.attribution.rows import parts
from deconfuse.labels.relabel import Votes


def suspicion(training: Training, influence: Float[Tensor, "p n"], votes: Votes) -> Float[Tensor, " n"]:
    """max_{j != y} cos(z, p_j) - cos(z, p_y), in [-2, 2]; higher = more likely mislabelled.

    With several proxies per class the closest one counts. Needs a loss whose proxies are grouped by class.
    """
    return torch.cat([_margin(part) for _, part in parts(training)])


def _margin(training: Training) -> Float[Tensor, " n"]:
    cosine = class_cosines(training, slice(None))  # (n, c)
    own = cosine.gather(1, training.labels[:, None])
    if cosine.shape[1] == 1:
        return -own[:, 0]
    return cosine.scatter(1, training.labels[:, None], -torch.inf).amax(1) - own[:, 0]
