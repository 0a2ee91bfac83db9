import torch

from src.head import Targets
from src.influence.random import scores
from tests.influence.test_eif import GROUPS


def test_random_is_seeded_and_normal(toy):
    training, test = toy
    targets = Targets(test, test, GROUPS * 200)
    found = scores(training, targets, seed=1)
    assert torch.equal(found, scores(training, targets, seed=1))
    assert not torch.equal(found, scores(training, targets, seed=2))
    assert abs(found.mean().item()) < 0.05
    assert abs(found.std().item() - 1) < 0.05
