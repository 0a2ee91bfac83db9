import torch

from deconfuse.model.identity import Identity


def test_features_are_the_rows():
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    network = Identity(in_features=7)
    assert network.num_features == 7
    assert torch.equal(network(rows), rows)
    assert not list(network.parameters())


def test_embeddings_as_they_are_are_scaled_by_powers_of_two():
    scales = torch.tensor([[1.0], [1e-18], [1e18], [1e-36], [1e38]])
    rows = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) * scales
    found = Identity(in_features=7, embeds=True)(rows)
    largest = found.abs().amax(1)
    assert ((largest >= 0.5) & (largest < 1)).all()
    ratio = found.double() / rows.double()
    assert torch.equal(ratio, ratio[:, :1].expand_as(ratio))  # one factor for a row
    assert torch.equal(torch.frexp(ratio).mantissa, torch.full_like(ratio, 0.5))  # and that a power of two
    assert torch.equal(Identity(7, embeds=True)(torch.zeros(2, 7)), torch.zeros(2, 7))
