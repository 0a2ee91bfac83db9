"""Made-up findings: what a run found out, of images that are told apart by their grey."""

import numpy as np
import pytest
import torch

from deconfuse.data.images import ArrayImages
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.labels.relabel import Votes
from deconfuse.labels.wrong import Doubt
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.runs.tables import Findings

GREYS = 20 + 20 * np.arange(11, dtype=np.uint8)  # image i is all of one grey, its own


@pytest.fixture
def found():
    """Seven training images of two classes, four queries; three explained pairs."""
    images = ArrayImages(np.broadcast_to(GREYS[:, None, None], (11, 8, 8)).copy())
    names = tuple(f"{i}.png" for i in range(11))
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    train = Part(images, np.arange(7), labels, names[:7])
    query = Part(images, np.arange(7, 11), np.array([2, 2, 3, 3]), names[7:])
    split = Split(train, query, query, ("a", "b", "x", "y"), 2, ImageSpec(8, 1, "none"))
    pairs = Pairs(torch.tensor([0, 2, 1]), torch.tensor([2, 1, 3]), torch.tensor([0.1, 0.2, 0.5]))
    influence = torch.tensor([[1.0, -2, 3, 0, 1, 2, 4], [-1, -1, 0, 0, 0, -3, -2], [0, 5, 0, 0, 0, 5, 0]])
    votes = Votes(torch.zeros(7, 1, dtype=torch.long), torch.ones(7, 1), torch.ones(7))
    explained = Explained(tuple(pairs.pairs[:, None].unbind(0)), 1.0, "confusions.csv", pairs)
    noisy = NoisyLabels(labels, labels)
    return Findings(split, noisy, pairs, explained, influence, votes.own, votes, sure(labels))


def sure(labels, wrong=(), other=None):
    """No doubt about the labels but those that are wrong; the likeliest other class is the next."""
    chance = torch.zeros(len(labels), dtype=torch.float64)
    chance[list(wrong)] = 0.9
    other = torch.from_numpy((labels + 1) % (labels.max() + 1)) if other is None else torch.tensor(other)
    return Doubt(
        chance,
        other,
        chance.mean().item(),
        0.0,
        1.0,
        0.5,
        None,
        Votes(other[:, None], chance[:, None], 1 - chance),
        torch.ones(len(labels), dtype=torch.bool),
    )
