import dataclasses
import inspect
from functools import partial

import pytest
import torch

from deconfuse.attribution.head import Targets
from deconfuse.influence import influence_function, unrolled
from deconfuse.influence.influence_function import Solver
from deconfuse.influence.unrolled import scores
from deconfuse.loss.pml import load
from deconfuse.retraining.parallel_heads import Heads
from deconfuse.system.errors import UserError
from deconfuse.system.progress import console
from deconfuse.unrolling import plans
from deconfuse.unrolling.batch_loss import Weighted
from deconfuse.unrolling.descent import Descent
from deconfuse.unrolling.full_batch import rate_of, retrain
from deconfuse.unrolling.optimizers import SGD
from deconfuse.unrolling.subsets import distances
from tests.agree import small
from tests.damping import share_of_largest
from tests.influence.test_eif import GROUPS

FEW = [0, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 1, 2]  # 20 samples
ADAM = plans.Epochs(2, 3, 2, 5, partial(torch.optim.Adam, lr=0.01, eps=1e-3))
STEPS = plans.FullBatch(7)
MOMENTUM = plans.Epochs(2, 3, 2, 5, partial(torch.optim.SGD, lr=0.02, momentum=0.9))


def by_eq_7(training, targets, plan, weights):
    """d of all groups (h, g) after Eq. 7's retraining, with h rows of weights on the samples."""
    heads = Heads.start(training, weights)
    optimizer = heads.optimizer(plan.optimizer)
    for rows in plans.again(training, plan).batches:
        heads.learn(optimizer, training.features[rows], training.labels[rows], rows)
    return torch.stack([distances(training, targets, weight) for weight in heads.weight])


def shifted(few, step):
    """Weights of the samples, one of them larger or smaller by step: (2, len(few), 23)."""
    shift = step * torch.nn.functional.one_hot(torch.tensor(few), 23).double()
    return torch.stack([1 + shift, 1 - shift])


@pytest.mark.parametrize("plan", [ADAM, MOMENTUM], ids=["adam", "momentum"])
def test_is_the_change_of_d_by_eq_7s_retraining_when_a_sample_weighs_more(toy, plan):
    training, test = toy
    targets, step = Targets(test, test, GROUPS, sign=-1.0), 1e-6
    found = scores(training, targets, retraining=plan)
    up, down = (by_eq_7(training, targets, plan, weights) for weights in shifted(FEW, step))
    want = -23 * (up - down).T / (2 * step)
    torch.testing.assert_close(found[:, FEW], want, rtol=1e-4, atol=1e-5 * found.abs().max().item())


def test_is_the_change_of_d_by_the_counterfactual_descent(toy):
    training, test = toy
    targets, step = Targets(test, test, GROUPS), 1e-6
    found = scores(training, targets, through="descent", descent=plans.FullBatch(9))
    rate = rate_of(training, 9, 0)
    for k in FEW[:5]:
        share = torch.zeros(2, 23, dtype=torch.float64) + 1 / 23
        share[:, k] += torch.tensor([step, -step]) / 23
        d = [distances(training, targets, retrain(training, one, 9, rate)) for one in share]
        want = -23 * (d[0] - d[1]) / (2 * step)
        torch.testing.assert_close(found[:, k], want, rtol=1e-4, atol=1e-6 * found.abs().max().item())


def test_is_if_at_the_minimum_of_a_convex_head(toy_convex):
    """300 full-batch steps with the weight decay of the minimum: the unrolled inverse has converged."""
    training, test, _ = toy_convex
    targets = Targets.pairs(test, test, torch.tensor([[0, 1], [2, 3], [4, 5]]))
    want = influence_function.scores(
        training, targets, solver=Solver("explicit"), damping=share_of_largest(training, 0.05)
    )
    start = {"weight": training.weight, "bias": training.bias}
    moves = {"weight": SGD(0.5, momentum=0.9, decay=0.05)}
    rows, ones = (torch.arange(40),) * 300, (1.0,) * 300
    descent = Descent(training.features, training.labels, Weighted(training.loss), start, moves, rows, ones)
    found = unrolled._mean(training, targets, [descent], None, "descent")
    for mine, theirs in zip(found, want, strict=True):
        assert torch.corrcoef(torch.stack([mine, theirs]))[0, 1] > 0.999
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-4 * want.abs().max().item())


@pytest.mark.parametrize("through", ["retraining", "descent"])
def test_does_not_depend_on_how_many_explanations_go_back_at_once(toy, monkeypatch, through):
    training, test = toy
    targets = Targets(test, test, GROUPS)
    want = scores(training, targets, retraining=ADAM, through=through, descent=STEPS)
    for size in (1, 2):
        monkeypatch.setattr(unrolled, "chunk_size", lambda *_, size=size: size)
        found = scores(training, targets, retraining=ADAM, through=through, descent=STEPS)
        torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-12 * want.abs().max().item())


def test_as_many_explanations_go_back_at_once_as_fit(toy, monkeypatch):
    training, _ = toy
    descent = plans.again(training, ADAM)
    wide = 8 * 6 * (5 + len(training.loss.proxies))
    monkeypatch.setattr(unrolled, "BLOCK_BYTES", 2 * 8 * (5 * 5 * 11 + wide))  # three states, two more
    assert unrolled.chunk_size(training, descent) == 2
    monkeypatch.setattr(unrolled, "BLOCK_BYTES", 1)
    assert unrolled.chunk_size(training, descent) == 1


def test_orders_are_averaged_and_the_first_is_the_trainings_own(toy):
    training, test = toy
    targets = Targets(test, test, GROUPS)
    each = [scores(training, targets, retraining=dataclasses.replace(ADAM, seed=seed)) for seed in (5, 6, 7)]
    found = scores(training, targets, retraining=ADAM, smooth=plans.Smooth(3))
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=1e-9, atol=1e-12)


def test_a_sample_that_is_never_drawn_has_no_influence(toy):
    """Of a class of one share, all samples are drawn: here the second share of each class is left out."""
    training, test = toy
    plan = plans.Epochs(1, 3, 2, 0, partial(torch.optim.SGD, lr=0.1))
    descent = plans.again(training, plan)
    some = dataclasses.replace(descent, batches=descent.batches[:1], factors=(1.0,))
    found = unrolled._mean(training, Targets(test, test, GROUPS), [some], None, "descent")
    drawn = torch.zeros(23, dtype=torch.bool)
    drawn[some.batches[0]] = True
    assert 0 < drawn.sum() < 23
    assert (found[:, ~drawn] == 0).all()
    assert (found[:, drawn] != 0).all()


def test_nothing_explained_is_no_score(toy):
    training, test = toy
    assert scores(training, Targets(test, test, ()), retraining=ADAM).shape == (0, 23)


def test_a_loss_of_another_library():
    """ArcFace, which is not normalised by us and has no closed form."""
    training, targets = small(load(4, 5, "ArcFaceLoss", {"scale": 8.0}), 4)
    found = scores(training, targets, retraining=MOMENTUM)
    up, down = (by_eq_7(training, targets, MOMENTUM, weights) for weights in shifted([3], 1e-6))
    torch.testing.assert_close(found[:, [3]], -23 * (up - down).T / 2e-6, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"through": "trainin"}, "influence.through=trainin is not known; did you mean training"),
        ({"smooth": 2}, "influence.smooth=2 is not a group of keys"),
        ({"retraining": 3}, "influence.retraining=3 is not a group of keys"),
        ({"descent": 9}, "influence.descent=9 is not a group of keys"),
        ({"through": "training"}, "repeats a training that a run has done, and there is none here"),
    ],
)
def test_bad_settings_are_named(toy, words, message):
    training, test = toy
    with pytest.raises(UserError, match=message):
        inspect.unwrap(scores)(training, Targets(test, test, GROUPS), **words)
    with pytest.raises(UserError, match=r"influence.descent.steps=0 is too small"):
        plans.FullBatch(0)
    with pytest.raises(UserError, match=r"influence.smooth.orders=0 is too small"):
        plans.Smooth(0)
    with pytest.raises(UserError, match=r"influence.smooth.blur=-0.1 is too small"):
        plans.Smooth(1, -0.1)


def test_a_slow_way_back_is_said_beforehand(toy, monkeypatch):
    training, test = toy
    lines = []
    monkeypatch.setattr(console, "print", lines.append)
    monkeypatch.setattr(unrolled, "SLOW", 0)
    scores(training, Targets(test, test, GROUPS), retraining=ADAM)
    (line,) = lines
    assert line.startswith(
        f"unrolled: back through {len(plans.again(training, ADAM))} steps for 3 explanations, some "
    )
