import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from deconfuse.attribution.head import Targets
from deconfuse.influence import influence_function
from deconfuse.retrieval.confusion import distance
from deconfuse.system.errors import UserError
from deconfuse.unrolling.full_batch import retrain, stable_rate
from deconfuse.unrolling.subsets import (
    SubsetRetraining,
    distances,
    draw,
    linear_datamodeling_scores,
    measure_changes,
)
from tests.damping import share_of_largest
from tests.influence.test_eif import GROUPS


def test_subsets_are_seeded_and_of_one_size():
    plan = SubsetRetraining(6, 0.3, 10, 4)
    masks = draw(plan, 23)
    assert masks.shape == (6, 23)
    assert masks.sum(1).tolist() == [7] * 6
    assert torch.equal(masks, draw(plan, 23))
    assert len({tuple(mask.tolist()) for mask in masks}) == 6
    assert draw(SubsetRetraining(3, 0.0, 1, 0), 5).sum(1).tolist() == [1, 1, 1]
    assert draw(SubsetRetraining(3, 1.0, 1, 0), 5).sum(1).tolist() == [4, 4, 4]


def test_the_score_is_spearmans():
    random = np.random.default_rng(0)
    influence, changes = torch.tensor(random.normal(size=(4, 23))), torch.tensor(random.normal(size=(9, 4)))
    changes[3] = changes[5]  # a tie
    influence[2] = 0  # predicts nothing
    changes[:, 3] = 0.5  # nothing happens
    left_out = draw(SubsetRetraining(9, 0.4, 1, 0), 23)
    found = linear_datamodeling_scores(influence, left_out, changes)
    for g in (0, 1):
        sums = [influence[g][mask].sum().item() for mask in left_out]
        assert found[g] == pytest.approx(spearmanr(sums, changes[:, g]).statistic, abs=1e-12)
    assert found[2] == 0
    assert np.isnan(found[3])


def test_a_change_is_retraining_without_a_subset_minus_retraining_with_all(toy):
    training, test = toy
    targets, plan = Targets(test, test, GROUPS), SubsetRetraining(3, 0.5, 5, 1)
    left_out = draw(plan, 23)
    found = measure_changes(training, targets, left_out, plan)
    h = torch.autograd.functional.hessian(
        lambda w: training.loss(training.features @ w.T + training.bias, training.labels).mean(),
        training.weight,
    )
    largest, even = torch.linalg.eigvalsh(h.reshape(55, 55))[-1].item(), torch.full((23,), 1 / 23).double()
    rate = stable_rate(training, even, 5, largest)
    shares = [torch.full((23,), 1 / 23, dtype=torch.float64), *((~m).double() / (~m).sum() for m in left_out)]
    d = [distances(training, targets, retrain(training, share, 5, rate)) for share in shares]
    for mine, theirs in zip(found, d[1:], strict=True):
        torch.testing.assert_close(mine, theirs - d[0], rtol=0.05, atol=1e-4)


def test_influence_functions_predict_retraining_of_a_convex_head(toy_convex):
    """And a sign turned around predicts it the wrong way: this is a check of the sign as well."""
    training, test, _ = toy_convex
    targets = Targets.pairs(test, test, torch.tensor([[0, 1], [2, 3], [4, 5]]))
    plan = SubsetRetraining(40, 0.1, 30, 0)
    left_out = draw(plan, 40)
    changes = measure_changes(training, targets, left_out, plan)
    scores = influence_function.scores(
        training,
        targets,
        solver=influence_function.Solver("explicit"),
        damping=share_of_largest(training, 0.05),
    )
    assert (linear_datamodeling_scores(scores, left_out, changes) > 0.5).all()
    assert (linear_datamodeling_scores(-scores, left_out, changes) < -0.5).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((2, 0.5, 9, 0), "counterfactual.subsets=2 ranks nothing"),
        ((9, 1.5, 9, 0), "counterfactual.share=1.5 is out of range"),
        ((9, 0.5, 0, 0), "counterfactual.steps=0 is too small"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        SubsetRetraining(*settings)


def test_distances_of_groups(toy):
    training, test = toy
    weight = training.weight * 1.3 + 0.1
    groups = (torch.tensor([[0, 1]]), torch.tensor([[2, 3], [4, 2], [5, 6]]))
    found = distances(training, Targets(test, test, groups, sign=-1.0), weight)
    z = test @ weight.T + training.bias
    want = [-distance(z[group[:, 0]], z[group[:, 1]]).mean() for group in groups]
    torch.testing.assert_close(found, torch.stack(want))
    assert distances(training, Targets(test, test, ()), weight).shape == (0,)
