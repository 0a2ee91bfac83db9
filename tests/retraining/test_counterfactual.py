import numpy as np
import pytest
import torch

from deconfuse.attribution.head import Targets
from deconfuse.retraining.counterfactual import check, find_or_measure_changes, measure, report
from deconfuse.system.errors import UserError
from deconfuse.unrolling.subsets import SubsetRetraining, draw
from tests.influence.test_eif import GROUPS
from tests.made import recipe


def test_what_was_measured_is_used_again_for_the_same_plan_and_targets(toy, tmp_path, monkeypatch):
    training, test = toy
    targets, plan = Targets(test, test, GROUPS), SubsetRetraining(3, 0.5, 2, 1)
    left_out, checkpoint = draw(plan, 23), tmp_path / "model.ckpt"
    checkpoint.write_bytes(b"weights")
    first = find_or_measure_changes(training, targets, left_out, plan, checkpoint)
    (kept,) = tmp_path.glob("*.npz")
    monkeypatch.setattr(
        "deconfuse.retraining.counterfactual.measure_changes", lambda *args: pytest.fail("measured again")
    )
    assert torch.equal(find_or_measure_changes(training, targets, left_out, plan, checkpoint), first)
    monkeypatch.undo()
    kept.write_bytes(kept.read_bytes()[:50])  # cut short
    assert torch.equal(find_or_measure_changes(training, targets, left_out, plan, checkpoint), first)
    find_or_measure_changes(training, Targets(test, test, GROUPS[:1]), left_out, plan, checkpoint)
    find_or_measure_changes(training, Targets(test, test, GROUPS, -1.0), left_out, plan, checkpoint)
    assert len(list(tmp_path.glob("*.npz"))) == 3
    checkpoint.write_bytes(b"other weights")
    find_or_measure_changes(training, targets, left_out, plan, checkpoint)
    assert len(list(tmp_path.glob("*.npz"))) == 4


def test_nothing_asked_or_nothing_explained_is_no_score(toy, tmp_path):
    training, test = toy
    none, some = SubsetRetraining(0, 0.5, 2, 1), SubsetRetraining(3, 0.5, 2, 1)
    targets = Targets(test, test, GROUPS)
    assert measure(training, targets, torch.zeros(3, 23), none, tmp_path / "a") is None
    assert measure(training, Targets(test, test, ()), torch.zeros(0, 23), some, tmp_path / "a") is None
    assert report(None, none) is None
    found = report(np.array([0.5, 0.7]), some)
    assert (found["mean"], found["subsets"], found["n"]) == (pytest.approx(0.6), 3, 2)


def test_more_than_the_head_is_refused():
    check(SubsetRetraining(0, 0.5, 2, 1), "all", recipe())
    check(SubsetRetraining(3, 0.5, 2, 1), "head", recipe())
    with pytest.raises(UserError, match=r"counterfactual.subsets=3 trains the head again, but params=all"):
        check(SubsetRetraining(3, 0.5, 2, 1), "all", recipe())
