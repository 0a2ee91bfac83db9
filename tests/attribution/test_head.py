import pytest
import torch
from torch import nn

from deconfuse.attribution import head
from deconfuse.attribution.head import Targets, Training, chunks, loss_change
from deconfuse.compute import exp_sums


def direct(training, sides, move):
    """Move W, pass every training feature through it, take the loss again."""
    changes = []
    for u, a in zip(sides, move, strict=True):
        weight = training.weight + a.T @ u
        moved = training.loss(training.features @ weight.T + training.bias, training.labels)
        changes.append(moved - training.loss(training.z, training.labels))
    return torch.stack(changes)


@pytest.mark.parametrize("tile", [None, 1, 5, 23])
def test_loss_change_equals_moving_the_weight(toy, tile, monkeypatch):
    training, test = toy
    if tile is not None:  # training samples at a time
        for module in (exp_sums, head):  # of a softmax of cosines, and of other losses
            monkeypatch.setattr(module, "TILE_BYTES", 4 * len(training.proxies) * tile)
    sides = test[:6].reshape(3, 2, 11)
    move = torch.randn(3, 2, 5, dtype=torch.float64) / 10
    torch.testing.assert_close(
        loss_change(training, sides, move), direct(training, sides, move), rtol=1e-9, atol=1e-10
    )


class AnyLoss(nn.Module):
    """A loss that is no function of cosines: the general path has to serve it."""

    def __init__(self, proxies):
        super().__init__()
        self.proxies = nn.Parameter(proxies)

    def forward(self, z, y):
        return nn.functional.cross_entropy(z @ self.proxies.T, y, reduction="none")


def test_any_other_loss_takes_the_general_path(toy):
    training, test = toy
    other = Training(
        training.features, training.labels, training.weight, training.bias, AnyLoss(training.proxies[:4])
    )
    sides, move = test[:4].reshape(2, 2, 11), torch.randn(2, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(loss_change(other, sides, move), direct(other, sides, move).detach())


def test_no_move_changes_nothing_and_nothing_passed_in_changes(toy):
    training, test = toy
    before = [t.clone() for t in (training.features, training.weight, training.bias, training.loss.proxies)]
    sides = test[:2][None]
    assert loss_change(training, sides, torch.zeros(1, 2, 5, dtype=torch.float64)).abs().max() < 1e-14
    after = (training.features, training.weight, training.bias, training.loss.proxies)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("size", [None, 1, 2, 3, 99])
def test_chunks_pad_groups_without_weight(size):
    features = torch.arange(20.0).reshape(10, 2)
    groups = (torch.tensor([[0, 1]]), torch.tensor([[2, 3], [4, 5], [6, 7]]), torch.tensor([[8, 9], [1, 0]]))
    seen = []
    for sides in chunks(Targets(features, features + 100, groups), 7, size):
        q = sides.share.shape[1]
        assert sides.features.shape == (len(sides.rows), 2 * q, 2)
        torch.testing.assert_close(sides.share.sum(1), torch.ones(len(sides.rows)))
        for i, row in enumerate(sides.rows):
            s = len(groups[row])
            assert (sides.share[i, s:] == 0).all()
            assert torch.equal(sides.features[i, :s], features[groups[row][:, 0]])
            assert torch.equal(sides.features[i, q : q + s], features[groups[row][:, 1]] + 100)
            seen.append(row)
    assert seen == [0, 1, 2]


def test_shares_are_the_sign_over_the_size_of_the_group():
    features = torch.arange(20.0).reshape(10, 2)
    groups = (torch.tensor([[0, 1]]), torch.tensor([[2, 3], [4, 5]]))
    for sign in (1.0, -1.0):
        (sides,) = chunks(Targets(features, features, groups, sign), 7)
        assert sides.share.tolist() == [[sign, 0.0], [sign / 2, sign / 2]]
