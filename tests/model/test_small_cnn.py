import pytest
import torch

from deconfuse.model.small_cnn import SmallCNN
from deconfuse.system.errors import UserError


@pytest.mark.parametrize(("channels", "side"), [(1, 32), (3, 8), (1, 41)])
def test_features_have_four_times_the_width(channels, side):
    network = SmallCNN(channels, width=6)
    assert network(torch.randn(5, channels, side, side)).shape == (5, 24)
    assert network.num_features == 24
    assert len(network.mean) == len(network.std) == channels


def test_same_numbers_as_its_layers_one_by_one():
    network = SmallCNN(1, width=4).eval()
    x = torch.randn(3, 1, 16, 16)
    want = x
    for layer in network.blocks:
        want = layer(want)
    torch.testing.assert_close(network(x), want.flatten(2).max(2).values)


def test_number_of_weights_at_the_default_width():
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
    norms = 2 * (32 + 64 + 128 + 256)
    assert sum(p.numel() for p in SmallCNN().parameters()) == convolutions + norms


def test_width_is_checked():
    with pytest.raises(UserError, match=r"model.width=1 is too small"):
        SmallCNN(1, width=1)


def test_the_last_block_is_the_last_convolution_and_its_batch_norm():
    network = SmallCNN(3, width=4)
    shapes = {name: tuple(dict(network.named_parameters())[name].shape) for name in network.last_block}
    assert shapes == {"blocks.12.weight": (16, 8, 3, 3), "blocks.13.weight": (16,), "blocks.13.bias": (16,)}
