import torch

from deconfuse.model.identity import Identity


def test_features_are_the_rows():
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    network = Identity(in_features=7)
    assert network.num_features == 7
    assert torch.equal(network(rows), rows)
    assert not list(network.parameters())
