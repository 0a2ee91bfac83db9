import math
from functools import partial

import pytest
import torch

from deconfuse.attribution.head import Targets, Training, chunks
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.retraining.parallel_heads import Heads, chunk_size, value_and_slope
from deconfuse.retrieval.confusion import distance

ROWS = [torch.tensor(rows) for rows in ([0, 5, 22, 5, 9], [1, 2, 3], [22, 7, 4, 11, 16, 0, 13])]
OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, lr=1e-3),
    "AdamW": partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1),
    "SGD": partial(torch.optim.SGD, lr=1e-2, momentum=0.9, nesterov=True),
    "Adagrad": partial(torch.optim.Adagrad, lr=1e-3),
    "RMSprop": partial(torch.optim.RMSprop, lr=1e-3),
    "NAdam": partial(torch.optim.NAdam, lr=1e-3),
    "Rprop": partial(torch.optim.Rprop, lr=1e-3),
    "Adafactor": partial(torch.optim.Adafactor, lr=1e-2),  # looks at a whole matrix at once
    "Muon": partial(torch.optim.Muon, lr=1e-2),  # so does this
    "foreach": partial(torch.optim.Adam, lr=1e-3, foreach=True),
}


def drawn_weights(g: int) -> torch.Tensor:
    """Of every head on every sample: 0, 1 and 2 in another order each."""
    choice = torch.randint(0, 3, (g, 23), generator=torch.Generator().manual_seed(g))
    return choice.double()


def one_by_one(training, weights, make):
    """The slow version: one nn.Linear per head, the optimizer as it comes, autograd through W."""
    found = []
    for mine in weights:
        head = torch.nn.Linear(11, 5).double()
        head.load_state_dict({"weight": training.weight, "bias": training.bias})
        optimizer = make([head.weight])
        for rows in ROWS:
            losses = training.loss(head(training.features[rows]), training.labels[rows])
            total = sum(mine[k] * loss for k, loss in zip(rows, losses, strict=True)) / len(rows)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        found.append(head.weight.detach())
    return torch.stack(found)


def at_once(training, weights, make):
    heads = Heads.start(training, weights)
    optimizer = heads.optimizer(make)
    for rows in ROWS:
        heads.learn(optimizer, training.features[rows], training.labels[rows], rows)
    return heads.weight


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_heads_at_once_are_heads_one_by_one(toy, name):
    training, _ = toy
    before, weights = training.weight.clone(), drawn_weights(7)
    found = at_once(training, weights, OPTIMIZERS[name])
    torch.testing.assert_close(found, one_by_one(training, weights, OPTIMIZERS[name]), rtol=1e-10, atol=1e-10)
    assert (found - before).abs().amax((1, 2)).min() > 1e-4
    assert torch.equal(training.weight, before)


def test_a_head_does_not_see_the_others(toy):
    training, _ = toy
    weights, make = drawn_weights(7), OPTIMIZERS["Adam"]
    whole = at_once(training, weights, make)
    for size in (1, 2):
        parts = torch.cat([at_once(training, some, make) for some in weights.split(size)])
        torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)


def test_a_weight_of_zero_leaves_the_sample_out_of_the_sum_and_not_of_the_count(toy):
    training, _ = toy
    rows = ROWS[2]
    weights = torch.ones(1, 23, dtype=torch.float64)
    weights[0, [7, 16]] = 0
    heads = Heads.start(training, weights)
    optimizer = heads.optimizer(partial(torch.optim.SGD, lr=1.0))
    value = heads.learn(optimizer, training.features[rows], training.labels[rows], rows)
    kept = torch.tensor([row for row in rows.tolist() if row not in (7, 16)])
    leaf = training.weight.clone().requires_grad_()
    z = training.features[kept] @ leaf.T + training.bias
    loss = training.loss(z, training.labels[kept]).sum() / 7
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(heads.weight[0], training.weight - leaf.grad, rtol=1e-12, atol=1e-12)


def test_weights_of_one_are_the_mean_loss_and_of_two_twice_that(toy):
    training, _ = toy
    z = training.z[:6, None].repeat(1, 3, 1)
    weights = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64).repeat(6, 1)
    value, slope = value_and_slope(training.loss, z, training.labels[:6], weights)
    mean = training.loss(training.z[:6], training.labels[:6]).mean()
    torch.testing.assert_close(value, torch.stack([mean, 2 * mean, 0 * mean]))
    torch.testing.assert_close(slope[:, 1], 2 * slope[:, 0])
    assert (slope[:, 2] == 0).all()
    assert slope[:, 0].abs().max() > 1e-3


def test_each_head_measures_its_own_group(toy):
    training, test = toy
    groups = (torch.tensor([[0, 1]]), torch.tensor([[2, 3], [4, 2], [5, 6]]), torch.tensor([[7, 8], [8, 0]]))
    heads = Heads.start(training, torch.ones(3, 23))
    heads.weight.mul_(torch.tensor([1.0, 1.3, 0.7])[:, None, None]).add_(0.1)
    (sides,) = chunks(Targets(test, test, groups, sign=-1.0), 1)
    want = []
    for weight, group in zip(heads.weight, groups, strict=True):
        z = test @ weight.T + training.bias
        want.append(-distance(z[group[:, 0]], z[group[:, 1]]).mean())
    torch.testing.assert_close(heads.distances(sides), torch.stack(want))


def test_the_fused_form_is_taken_unless_another_was_chosen(toy):
    heads = Heads.start(toy[0], torch.ones(2, 23))
    assert heads.optimizer(torch.optim.Adam).defaults["fused"] is True
    assert heads.optimizer(partial(torch.optim.Adam, fused=False)).defaults["fused"] is False
    assert heads.optimizer(OPTIMIZERS["foreach"]).defaults["foreach"] is True
    assert "fused" not in heads.optimizer(torch.optim.Rprop).defaults


def test_a_chunk_fits_its_budget():
    training = Training(
        torch.zeros(3, 2048), torch.zeros(3, dtype=torch.long), torch.zeros(512, 2048), torch.zeros(512),
        ProxyNCA(100, 512),
    )  # fmt: skip
    each = 4 * (4 * 512 * 2048 + 4 * 32 * (512 + 100))
    assert chunk_size(training, 32, 7 * each) == 7
    assert chunk_size(training, 32, 7 * each - 1) == 6
    assert chunk_size(training, 32, 1) == 1
    assert chunk_size(training, 32) == math.floor(2**29 / each)
