import numpy as np
import pytest
import torch

from deconfuse.data.images import ArrayImages
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.labels.relabel import Votes
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.runs.tables import Findings
from tests.findings import sure


@pytest.fixture
def found():
    """Five training samples of classes a, b, c; three confusions among the test classes x, y, z."""
    images = ArrayImages(np.zeros((11, 8, 8), np.uint8))
    names = tuple(f"{i}.png" for i in range(11))
    train = Part(images, np.arange(5), np.array([0, 0, 1, 1, 2]), names[:5])
    query = Part(images, np.arange(5, 11), np.array([3, 3, 4, 4, 5, 5]), names[5:])
    classes = ("a", "b", "c", "x", "y", "z")
    split = Split(train, query, query, classes, 3, ImageSpec(8, 1, "none"), same_things=((3, 4),))
    confusions = Pairs(torch.tensor([0, 2, 1]), torch.tensor([2, 0, 4]), torch.tensor([0.1, 0.1, 0.5]))
    influence = torch.tensor([[1.0, -2, 3, 0, 1], [2, -1, 0, 0, 1], [3, 0, -9, 0, 1]])
    # Flipped: sample 0 (c, says a), sample 2 (a, says b), sample 4 (b, says c).
    noisy = NoisyLabels(np.array([0, 0, 1, 1, 2]), np.array([2, 0, 0, 1, 1]))
    votes = Votes(
        torch.tensor([[2, 0], [0, 1], [0, 1], [1, 0], [2, 0]]),
        torch.tensor([[0.7, 0.3], [0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.6, 0.4]]),
        torch.tensor([0.3, 0.9, 0.4, 0.8, 0.6]),
    )
    explained = Explained(tuple(confusions.pairs[:, None].unbind(0)), 1.0, "confusions.csv", confusions)
    return Findings(
        split,
        noisy,
        confusions,
        explained,
        influence,
        1 - votes.own,
        votes,
        sure(noisy.labels, [0], [2, 1, 0, 0, 0]),
    )
