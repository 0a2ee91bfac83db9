from dataclasses import replace
from functools import partial

import pytest
import torch

from deconfuse.adapt.options import option
from deconfuse.attribution import attribute
from deconfuse.attribution.head import Targets, Training
from deconfuse.attribution.look import Frozen, Subject
from deconfuse.attribution.network import Network
from deconfuse.influence import eif, tracin
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.identity import Identity
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.system.errors import UserError
from deconfuse.training.embedder import Embedder
from tests.made import recipe


def on_the_head(training: Training, targets: Targets):
    return torch.zeros(len(targets), len(training))


def on_both(training: Training | Network, targets: Targets):
    return torch.zeros(len(targets), len(training))


def test_a_signature_says_whether_earlier_checkpoints_are_wanted():
    assert attribute.takes_earlier(partial(tracin.scores))
    assert not attribute.takes_earlier(partial(eif.scores))


def test_the_unit_is_what_the_modules_docstring_says():
    assert attribute.unit(partial(eif.scores)).startswith("d times nats")
    assert attribute.unit(partial(on_both)) == "not stated"


def test_params_are_refused_where_the_method_works_on_the_head_only():
    for params in attribute.PARAMS:
        attribute.check(partial(on_both), "both", params)
    attribute.check(partial(on_the_head), "mine", "head")
    with pytest.raises(UserError, match="influence=mine works on the head only; take params=head"):
        attribute.check(partial(on_the_head), "mine", "all")
    with pytest.raises(UserError, match="params=heads is not known; did you mean head"):
        attribute.check(partial(on_both), "both", "heads")


def test_scores_of_another_shape_are_found_before_training():
    model = Embedder(Identity(5), ProxyNCA(2, 8), recipe())
    attribute.rehearse(partial(on_the_head), model, "head", (5,))

    def turned(training, targets):
        return torch.zeros(len(training), len(targets))

    with pytest.raises(UserError, match=r"scores of shape \(4, 1\); a method returns \(explanations, n\)"):
        attribute.rehearse(partial(turned), model, "head", (5,))


def test_a_missing_derivative_is_answered_with_the_head():
    model = Embedder(Identity(5), ProxyNCA(2, 8), recipe())

    def lacking(training, targets):
        raise NotImplementedError("no derivative of it\nmore")

    with pytest.raises(NotImplementedError):
        attribute.rehearse(partial(lacking), model, "head", (5,))
    with pytest.raises(
        UserError, match=r"Identity lacks a derivative .*\(no derivative of it\); take params=h"
    ):
        attribute.rehearse(partial(lacking), model, "all", (5,))


@pytest.mark.parametrize("name", ["eif", "if", "tracin", "ekfac", "if_code"])
def test_samples_that_were_left_out_are_in_no_sum_and_score_nothing(toy, tmp_path, name):
    """All scores are those of a training set that never had them."""
    training, test = toy
    used = torch.tensor([i for i in range(23) if i not in (0, 7, 8, 22)])
    pairs = torch.tensor([[0, 1], [4, 2]])
    explained = Explained(tuple(pairs[:, None]), 1.0, "confusions.csv", Pairs(*pairs.T, torch.ones(2)))

    def scored(side, used=None):
        subject = Subject(None, None, "head", torch.device("cpu"), used)
        made = option("influence", {"name": "if", "damping": 1.0} if name == "if" else name, 0)
        return attribute.attribute(made, explained, Frozen(side, test, test, tmp_path), subject, [])

    alone = replace(training, features=training.features[used], labels=training.labels[used])
    found, whole = scored(training, used), scored(training)
    torch.testing.assert_close(found[:, used], scored(alone), rtol=1e-9, atol=1e-12)
    assert found.shape == (2, 23)
    assert not found[:, [0, 7, 8, 22]].any()
    assert whole[:, [0, 7, 8, 22]].all()
