from functools import partial

import pytest
import torch

from deconfuse.attribution import attribute
from deconfuse.attribution.head import Targets, Training
from deconfuse.attribution.network import Network
from deconfuse.influence import eif, tracin
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.identity import Identity
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
