"""Where head and proxies start on frozen features, and how well the features do without any training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from deconfuse.data.images import FeatureRows
from deconfuse.data.split import Part, Split
from deconfuse.frozen.whitening import ROWS, scatter, whitening
from deconfuse.retrieval.directions import unit
from deconfuse.retrieval.metrics import metrics
from deconfuse.retrieval.queries import Queries
from deconfuse.system.arrays import scratch
from deconfuse.system.files import read_json

OWN = 0.1  # of its random direction that a proxy keeps, where a class has several
WIDEST = 512  # directions of the whitened features in which classes are compared
FILE = "start.json"  # beside a checkpoint: retrieval by the features alone, and at the start of the training


@dataclass(frozen=True)
class WhitenedStart:
    """The head's start W0 (m, D) and b0 (m,), and the retrieval metrics of the test classes.

    backbone: by the features as they are; whitened: by z = W0 phi + b0.
    """

    weight: Float[Tensor, "m D"]
    bias: Float[Tensor, " m"]
    backbone: dict[str, float]
    whitened: dict[str, float]


def begin(
    head: nn.Linear,
    loss: nn.Module,
    split: Split,
    labels: np.ndarray,
    left_out: np.ndarray | None,
    shrink: float,
    folder: Path,
) -> WhitenedStart:
    """Set the head to the whitening of the training features, and each class's proxies to its mean direction.

    labels: those that are trained with; left_out: samples that take no part, None: no sample. shrink: as of
    `whitening`; folder: for scratch files. Several proxies of one class keep a tenth of their random start,
    so that they can part.
    """
    features, given = rows(split.train, folder), torch.from_numpy(labels)
    used = None if left_out is None else torch.from_numpy(~left_out)
    weight, bias = (
        part.to(head.weight.dtype)
        for part in whitening(scatter(features, given, used), head.out_features, shrink)
    )
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    proxies_at_means(head, loss, split, labels, left_out, folder)
    sides = [rows(part, folder) for part in split.test_parts.values()]
    whitened = [F.linear(side, weight, bias) for side in sides]
    return WhitenedStart(weight, bias, _retrieval(split, *sides), _retrieval(split, *whitened))


@torch.no_grad()
def proxies_at_means(
    head: nn.Linear,
    loss: nn.Module,
    split: Split,
    labels: np.ndarray,
    left_out: np.ndarray | None,
    folder: Path,
) -> None:
    """Set each class's proxies to the mean direction of its embeddings by the head as it is."""
    used = None if left_out is None else torch.from_numpy(~left_out)
    given = rows(split.train, folder), torch.from_numpy(labels)
    place_proxies(loss, class_means(*given, head.weight, head.bias, split.num_classes, used))


def rows(part: Part, folder: Path) -> Float[Tensor, "n D"]:
    """The features of a part, mapped from their own file.

    Where they do not follow each other in it, they are copied to a scratch file in the folder.
    """
    found = as_they_lie(part)
    if found is None:
        array = scratch(folder, (len(part), len(part.image(0))), np.dtype(np.float32))
        for i in range(len(part)):
            array[i] = part.image(i)
        found = torch.from_numpy(array)
    return found


def as_they_lie(part: Part) -> Float[Tensor, "n D"] | None:
    """The features of a part as a view of their array; None where they would have to be copied."""
    images, numbers = part.images, part.rows
    if not isinstance(images, FeatureRows) or images.exponent or images.values.dtype != np.float32:
        return None
    if len(numbers) != numbers[-1] - numbers[0] + 1 or (np.diff(numbers) != 1).any():
        return None
    return torch.from_numpy(images.values[numbers[0] : numbers[-1] + 1])


def class_means(
    features: Float[Tensor, "n D"],
    labels: Int[Tensor, " n"],
    weight: Float[Tensor, "m D"],
    bias: Float[Tensor, " m"],
    c: int,
    used: Bool[Tensor, " n"] | Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "c m"]:
    """The sum of e = z/||z|| over each of c classes, over its number of rows, ROWS at a time.

    used: weights of the rows (1), which the number does not know: the direction is that of their mean.
    """
    sums = torch.zeros(c, len(weight), dtype=weight.dtype)
    for first in range(0, len(labels), ROWS):
        some = slice(first, first + ROWS)
        e = unit(F.linear(features[some], weight, bias))
        sums.index_add_(0, labels[some], e if used is None else e * used[some, None])
    return sums / torch.bincount(labels, minlength=c).clamp_min(1)[:, None]


def confusion(split: Split, folder: Path) -> Float[np.ndarray, "c c"]:
    """C[y, j]: of the training samples of class y, the share whose closest other class is j; rows sum to 1.

    Closest by the cosine of the whitened features and the class means, with the labels as the data has them.
    """
    features, labels = rows(split.train, folder), torch.from_numpy(split.train.labels)
    weight, bias = (
        part.float() for part in whitening(scatter(features, labels), min(WIDEST, features.shape[1]))
    )
    means = F.normalize(class_means(features, labels, weight, bias, split.num_classes), dim=1)
    counts = torch.zeros(split.num_classes, split.num_classes, dtype=torch.float64)
    for first in range(0, len(labels), ROWS):
        some = slice(first, first + ROWS)
        cosine = F.normalize(F.linear(features[some], weight, bias), dim=1) @ means.T
        other = cosine.scatter(1, labels[some, None], -2).argmax(1)
        counts.index_put_((labels[some], other), torch.ones(len(other), dtype=torch.float64), accumulate=True)
    return (counts / counts.sum(1, keepdim=True)).numpy()


def place_proxies(loss: nn.Module, means: Float[Tensor, "c m"]) -> None:
    """Set proxies (c k, m) in place; those of a class without any direction keep their random start."""
    loss.proxies.copy_(placed(loss.proxies.detach(), means))


def placed(proxies: Float[Tensor, "ck m"], means: Float[Tensor, "c m"]) -> Float[Tensor, "ck m"]:
    """The directions of the means, for several proxies of a class with a tenth of the proxies' own added."""
    each = len(proxies) // len(means)
    new, random = F.normalize(means, dim=1).repeat_interleave(each, 0), F.normalize(proxies, dim=1)
    if each > 1:
        new = new + OWN * random
    new = torch.where(new.any(1, keepdim=True), new, random)
    return F.normalize(new, dim=1)


def _retrieval(split: Split, query: Tensor, gallery: Tensor | None = None) -> dict[str, float]:
    labels = (torch.from_numpy(side.labels) for side in (split.query, split.gallery))
    twins = None if split.twins is None else torch.from_numpy(split.twins)
    test = Queries(query, query if gallery is None else gallery, *labels, split.shared_gallery, twins)
    return metrics(test, ranks=(1,), unit=True)


def beside(checkpoint: Path) -> dict | None:
    """What was measured before the checkpoint was trained: backbone and whitened; None if nothing was."""
    path = checkpoint.parent / FILE
    return read_json(path) if path.exists() else None
