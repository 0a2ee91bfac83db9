import torch

from deconfuse.attribution.head import Targets
from deconfuse.influence.random import scores
from tests.influence.test_eif import GROUPS
from tests.networks import only_a_head


def test_random_is_seeded_and_normal(toy):
    training, test = toy
    targets = Targets(test, test, GROUPS * 200)
    found = scores(training, targets, seed=1)
    assert torch.equal(found, scores(training, targets, seed=1))
    assert not torch.equal(found, scores(training, targets, seed=2))
    assert abs(found.mean().item()) < 0.05
    assert abs(found.std().item() - 1) < 0.05


def test_a_network_has_the_heads_scores_and_the_default_seed_is_0(toy):
    training, test = toy
    targets, network = Targets(test, test, GROUPS), only_a_head(training, test, "all")
    for seed in (0, 3):
        want = torch.randn(3, 23, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(scores(training, targets, seed=seed), want)
        assert torch.equal(scores(network, targets, seed=seed), want)
    assert torch.equal(scores(training, targets), scores(training, targets, seed=0))
    assert torch.equal(scores(network, targets), scores(network, targets, seed=0))
