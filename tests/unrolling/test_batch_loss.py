import pytest
import torch

from deconfuse.unrolling.batch_loss import Weighted, linearised, slopes
from tests.unrolling.made import LOSSES, C, M


def case(loss, moves):
    """(Weighted, labels, z of two heads, their proxies, weights) of a batch of seven."""
    draw = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    module = LOSSES[loss]().double().requires_grad_(False)
    module.proxies.copy_(normal(*module.proxies.shape))
    weighted = Weighted(module, moves and hasattr(module, "of_batch"), moves)
    own = {"loss.proxies": normal(2, *module.proxies.shape)} if moves else {}
    weights = torch.rand(2, 7, generator=draw, dtype=torch.float64)
    return weighted, torch.arange(7) % C, normal(2, 7, M), own, weights


def value(weighted, labels, z, own, w):
    """The loss written out, with the module's proxies replaced."""
    return torch.func.functional_call(weighted, own, (z, labels, w))


@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_slopes_of_several_heads_are_autograds_of_each(loss, moves):
    weighted, labels, z, own, weights = case(loss, moves)
    found = slopes(weighted, labels, z, own, weights)
    assert found.moving.keys() == own.keys()
    for h in range(2):
        leaves = {name: each[h].clone().requires_grad_() for name, each in {"z": z, **own}.items()}
        inner = {name: leaves[name] for name in own}
        total = value(weighted, labels, leaves["z"], inner, weights[h])
        want = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
        torch.testing.assert_close(found.z[h], want["z"])
        for name in own:
            torch.testing.assert_close(found.moving[name][h], want[name])


@pytest.mark.parametrize("loss", LOSSES)
def test_products_are_those_of_autograds_second_derivatives(loss):
    weighted, labels, z, own, _ = case(loss, True)
    ones = torch.ones(7, dtype=torch.float64)
    at = (z[0], own["loss.proxies"][0], ones)
    rows = torch.autograd.functional.hessian(
        lambda z, p, w: value(weighted, labels, z, {"loss.proxies": p}, w), at
    )
    along = (
        torch.randn(3, *at[0].shape, dtype=torch.float64),
        torch.randn(3, *at[1].shape, dtype=torch.float64),
    )
    first, times = linearised(weighted, labels, at[0], {"loss.proxies": at[1]})
    found = times(along[0], {"loss.proxies": along[1]})

    def product(k, j):
        sides = (rows[i][j].reshape(along[i][k].numel(), -1) for i in range(2))
        return sum(along[i][k].flatten() @ side for i, side in enumerate(sides))

    for k in range(3):
        torch.testing.assert_close(found.z[k].flatten(), product(k, 0))
        torch.testing.assert_close(found.moving["loss.proxies"][k].flatten(), product(k, 1))
        torch.testing.assert_close(found.weights[k], product(k, 2))
    leaf = at[0].clone().requires_grad_()
    (want,) = torch.autograd.grad(value(weighted, labels, leaf, {"loss.proxies": at[1]}, ones), leaf)
    torch.testing.assert_close(first.z, want)


def test_weights_of_one_are_what_training_minimises():
    for loss in LOSSES:
        weighted, labels, z, own, _ = case(loss, True)
        module = weighted.loss
        with torch.no_grad():
            module.proxies.copy_(own["loss.proxies"][0])
        mean = module.of_batch(z[0], labels) if hasattr(module, "of_batch") else module(z[0], labels).mean()
        found = weighted(z[0], labels, torch.ones(7, dtype=torch.float64))
        torch.testing.assert_close(found, mean + module.regulariser())
