import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deconfuse.attribution.curvature import hessian_of, sample_gradients
from deconfuse.attribution.head import Targets, Training, chunks, is_narrow, loss_change, side_gradient
from deconfuse.detector import loss, margin, self_influence
from deconfuse.influence import eif, ekfac, influence_function, tracin
from deconfuse.labels.relabel import vote
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.identity import Identity
from deconfuse.retrieval.confusion import mean_distance_gradient
from tests.influence.test_eif import GROUPS


def direct(training, sides, move):
    """Move W, pass every training feature through it, take the loss again."""
    changes = []
    for u, a in zip(sides, move, strict=True):
        weight = training.weight + a.T @ u
        moved = training.loss(training.features @ weight.T + training.bias, training.labels)
        changes.append(moved - training.loss(training.z, training.labels))
    return torch.stack(changes)


@pytest.mark.parametrize("tile", [None, 1, 5, 23])
def test_loss_change_equals_moving_the_weight(toy, tile):
    training, test = toy
    sides = test[:6].reshape(3, 2, 11)
    move = torch.randn(3, 2, 5, dtype=torch.float64) / 10
    torch.testing.assert_close(
        loss_change(training, sides, move, tile), direct(training, sides, move), rtol=1e-9, atol=1e-10
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


METHODS = {
    "eif": partial(eif.scores, n_theta=2),
    "eif, three directions": partial(eif.scores, n_theta=3),
    "tracin": tracin.scores,
    "ekfac": ekfac.scores,
    "relatif": partial(ekfac.scores, relative=True),
    "if": partial(influence_function.scores, damping=0.1, tolerance=1e-7),
}


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_the_same_where_the_training_set_is_taken_in_parts(toy, monkeypatch, method):
    training, test = toy
    targets = Targets(test, test, GROUPS)
    want = METHODS[method](training, targets)
    monkeypatch.setattr("deconfuse.attribution.head.PART_ROWS", 7)
    part = replace(training)
    assert [len(each) for _, each in part.parts()] == [7, 7, 7, 2]
    found = METHODS[method](part, targets)
    assert "z" not in vars(part)  # nothing that has all rows was made
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-9 * want.abs().max().item())


def test_what_a_side_says_of_each_sample_is_the_same_in_parts(toy, monkeypatch):
    training, _ = toy
    none, empty = torch.zeros(0, 23, dtype=torch.float64), vote(training.z, training.labels)
    detectors = [loss.suspicion, margin.suspicion, self_influence.suspicion]
    want = [detector(training, none, empty) for detector in detectors]
    gradients, embeddings = sample_gradients(training), training.embeddings()
    product = hessian_of(training)(training.weight[None])
    monkeypatch.setattr("deconfuse.attribution.head.PART_ROWS", 5)
    part = replace(training)
    for detector, values in zip(detectors, want, strict=True):
        torch.testing.assert_close(detector(part, none, empty), values)
    torch.testing.assert_close(sample_gradients(part), gradients)
    torch.testing.assert_close(part.embeddings(), embeddings)
    torch.testing.assert_close(hessian_of(part)(part.weight[None]), product)


def test_a_part_is_as_large_as_memory_allows(monkeypatch):
    loss = ProxyNCA(1000, 6)
    labels = torch.zeros(50, dtype=torch.long)
    side = Training(torch.zeros(50, 4), labels, torch.zeros(6, 4), torch.zeros(6), loss)
    assert side.part_rows == 50
    monkeypatch.setattr("deconfuse.attribution.head.PART_BYTES", 8 * 4 * 1000)
    assert side.part_rows == 8
    monkeypatch.setattr("deconfuse.attribution.head.PART_BYTES", 1)
    assert side.part_rows == 1


def turned(offset, n=200, m=32):
    """A head that is the identity on embeddings with a common part, and on as many of other classes."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(n) // 20
    centres = torch.randn(10, m, generator=random)
    z = centres[labels] + 1.2 * torch.randn(n, m, generator=random) + offset
    loss = ProxyNCA(10, m)
    with torch.no_grad():
        loss.proxies.copy_(F.normalize(z.double(), dim=1).view(10, 20, m).mean(1))
    return Training(z, labels, torch.eye(m), torch.zeros(m), loss)


@pytest.mark.parametrize(("offset", "narrow"), [(0, False), (10, False), (30, True), (5000, True)])
def test_embeddings_of_one_direction_are_narrow(offset, narrow, monkeypatch):
    training = turned(offset)
    e = F.normalize(training.z.double(), dim=1)
    assert is_narrow(training) == narrow == (e.var(0, correction=0).sum().item() < 1e-2)
    monkeypatch.setattr("deconfuse.attribution.head.PART_ROWS", 7)
    assert is_narrow(replace(training)) == narrow


@pytest.mark.parametrize("offset", [0, 10, 300])
def test_slopes_of_d_far_from_the_origin_are_those_of_float64(offset):
    """They are differences of nearly equal directions: in float32 1e-3 of them would be lost at 300."""
    training = turned(offset)
    pairs = Targets.pairs(training.features, training.features, torch.tensor([[0, 30], [50, 199]]))
    (sides,) = chunks(pairs, 200)
    found = side_gradient(training, sides)
    want = mean_distance_gradient(sides.features.double(), sides.share.double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), want, rtol=1e-6, atol=1e-6 * want.abs().max().item())


@pytest.mark.parametrize("method", METHODS)
def test_scores_of_embeddings_of_any_length_are_those_of_float64(method):
    """As they are, from 1e-18 to 1e18 row by row: scores depend on directions alone."""
    training = turned(0)
    scale = 10 ** (
        36 * torch.rand(200, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 18
    )
    rows = (training.features * scale).float()
    z = Identity(32, embeds=True)(rows)
    loss = copy.deepcopy(training.loss).double()
    exact = Training(z.double(), training.labels, torch.eye(32).double(), torch.zeros(32).double(), loss)
    found = METHODS[method](replace(training, features=z), Targets(z, z, GROUPS)).double()
    want = METHODS[method](exact, Targets(z.double(), z.double(), GROUPS))
    # Rounding of gradients that are nearly zero is not small beside them, and relatif divides by their size;
    # conjugate gradients in float32 stop at some 1e-6 of the right side, divided by the damping.
    tolerance = {"relatif": 2e-2, "if": 1e-3}.get(method, 1e-4)
    torch.testing.assert_close(found, want, rtol=0, atol=tolerance * want.abs().max().item())
