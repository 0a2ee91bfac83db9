from functools import partial

import numpy as np
import pytest
import torch

from deconfuse.attribution.head import Targets
from deconfuse.influence import ekfac, influence_function
from deconfuse.influence.influence_function import Solver
from deconfuse.system.errors import UserError
from deconfuse.unrolling import damping as module
from deconfuse.unrolling.damping import DAMPINGS, check, chosen
from deconfuse.unrolling.subsets import SubsetRetraining, draw, linear_datamodeling_scores, measure_changes
from tests.influence.test_eif import GROUPS
from tests.made import recipe

PLAN = SubsetRetraining(12, 0.3, 20, 4)


def slow(training, targets, score):
    """The LDS of each damping on the subsets that are not those of the plan's own seed."""
    plan = SubsetRetraining(12, 0.3, 20, 4 + module.OTHER)
    left_out = draw(plan, len(training))
    changes = measure_changes(training, targets, left_out, plan)
    return [
        linear_datamodeling_scores(score(damping=value), left_out, changes).mean()
        for value in module.DAMPINGS
    ]


@pytest.mark.parametrize("method", ["if", "ekfac", "relatif"])
def test_is_the_one_whose_scores_predict_best(toy, method, capsys, monkeypatch):
    training, test = toy
    monkeypatch.setattr(module, "DAMPINGS", (0.01, 0.3, 10.0))
    targets = Targets(test, test, GROUPS)
    score = {
        "if": partial(influence_function.scores, training, targets, solver=Solver("explicit")),
        "ekfac": partial(ekfac.scores, training, targets),
        "relatif": partial(ekfac.scores, training, targets, relative=True),
    }[method]
    want = slow(training, targets, score)
    capsys.readouterr()
    capsys.readouterr()
    found = score(damping="auto", auto=PLAN)
    said = " ".join(capsys.readouterr().err.split())
    best = module.DAMPINGS[int(np.argmax(want))]
    assert max(want) > min(want)
    torch.testing.assert_close(found, score(damping=best))
    assert "is trained again without 12 random subsets of 30% of the training set, and 3 explanations" in said
    assert f"damping=auto: {best:g} predicts these trainings best, LDS {max(want):.2f}" in said


def test_is_chosen_by_some_of_many_explanations_evenly(toy, monkeypatch):
    training, test = toy
    seen = []

    def score(side, some, value):
        seen.append((len(side), [group.tolist() for group in some.groups], value))
        return ekfac.scores(side, some, damping=value)

    monkeypatch.setattr(module, "EXPLAINED", 2)
    assert chosen("auto", training, Targets(test, test, GROUPS), PLAN, None, score) in DAMPINGS
    ends = [GROUPS[0].tolist(), GROUPS[-1].tolist()]
    assert seen == [(23, ends, value) for value in DAMPINGS]


def test_a_number_stays_as_it_is_and_nothing_is_trained(toy):
    training, test = toy
    some, none = Targets(test, test, GROUPS), Targets(test, test, ())
    assert chosen(0.7, training, some, PLAN, None, pytest.fail) == 0.7
    assert chosen("auto", training, none, PLAN, None, pytest.fail) in DAMPINGS
    assert ekfac.scores(training, none, damping="auto").shape == (0, 23)


def test_what_cannot_be_trained_again_is_refused_before_training():
    asked = partial(ekfac.scores, damping="auto", auto=PLAN)
    check(asked, "head", recipe())
    check(partial(ekfac.scores, damping=0.1), "all", recipe())
    with pytest.raises(UserError, match=r"^influence.damping=auto trains the head again, but params=all"):
        check(asked, "all", recipe())
    whole = SubsetRetraining(12, 0.3, 20, 4, "training")
    with pytest.raises(UserError, match=r"^counterfactual.through=training goes through the training of a"):
        check(partial(ekfac.scores, damping="auto", auto=whole), "head", recipe())
    none = SubsetRetraining(0, 0.3, 20, 4)
    with pytest.raises(UserError, match=r"give influence.auto.subsets=16"):
        check(partial(ekfac.scores, damping="auto", auto=none), "head", recipe())
