import numpy as np
import pytest
import torch
from torch import nn

import deconfuse as dc
from deconfuse.api import steps  # noqa: F401 - the face imports it when it is first used
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.retrieval.metrics import metrics
from deconfuse.retrieval.queries import Queries
from deconfuse.system.errors import UserError
from tests.api.data import rows

TRAIN, TEST = rows(70, 5, 0), rows(47, 4, 1, first=5)


def test_each_step_alone_gives_what_explain_gives():
    torch.manual_seed(0)
    head, loss = nn.Linear(12, 6), SoftTriple(5, 6)
    for influence in ("eif", "tracin", "ekfac", "unrolled"):
        found = dc.explain(train=TRAIN, test=TEST, head=head, loss=loss, influence=influence)
        query, neighbour = found.seen.confusions.pairs.T
        pairs = TEST[0][query], TEST[0][neighbour]
        scores = getattr(dc.influence, influence)(TRAIN, pairs, head=head, loss=loss)
        np.testing.assert_allclose(scores, found.influence, rtol=1e-4, atol=1e-7)
    plain = dc.explain(train=TRAIN, test=TEST)  # embeddings of any length, and proxies that are fitted
    query, neighbour = plain.seen.confusions.pairs.T
    scores = dc.influence.eif(TRAIN, (TEST[0][query], TEST[0][neighbour]))
    np.testing.assert_allclose(scores, plain.influence, rtol=1e-4, atol=1e-7)
    again = dc.relabel(found.embeddings()["train"], TRAIN[1])
    assert again["recommended"].map(str).tolist() == found.samples["recommended"].tolist()
    np.testing.assert_allclose(again["vote_current"], found.samples["vote_current"], rtol=1e-5)
    z = found.embeddings()["test"], TEST[1]
    assert dc.retrieval.metrics(z) == pytest.approx(found.retrieval)
    pairs = dc.retrieval.confusion(z)
    np.testing.assert_allclose(pairs["distance"], found.confusions["distance"], rtol=1e-5)


def test_a_module_that_can_be_called_is_still_the_module():
    z, labels = torch.from_numpy(TEST[0]), torch.from_numpy(TEST[1])
    whole = metrics(Queries(z, z, labels, labels, True), unit=True)
    assert dc.retrieval.metrics(TEST) == pytest.approx(whole)
    assert dc.retrieval.metrics.metrics is metrics


def test_options_of_a_method_are_keywords():
    pairs = TEST[0][:3], TEST[0][3:6]
    one, two = (dc.influence.eif(TRAIN, pairs, n_theta=n) for n in (1, 2))
    assert one.shape == two.shape == (3, 70)
    assert not np.allclose(one, two)


def test_relabel_votes_as_algorithm_1_by_hand():
    x, y = TRAIN[0].astype(float), np.array(list("abcde"), dtype=object)[TRAIN[1]]
    e = x / np.linalg.norm(x, axis=1, keepdims=True)
    found = dc.relabel(x, y, neighbours=4, weights="paper")
    d = np.linalg.norm(e[:, None] - e[None], axis=2)
    np.fill_diagonal(d, np.inf)
    for i in range(70):
        near = np.argsort(d[i])[:4]
        weight = np.exp(-d[i][near]) / np.exp(-d[i][near]).sum()
        share = {label: weight[y[near] == label].sum() for label in sorted(set(y[near]))}
        assert found["vote_recommended"][i] == pytest.approx(max(share.values()), rel=1e-5)
        assert share[found["recommended"][i]] == pytest.approx(max(share.values()))
        assert found["vote_current"][i] == pytest.approx(share.get(y[i], 0), abs=1e-6)
        assert found["label"][i] == y[i]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: dc.influence.eif(TRAIN, (TEST[0][:3], TEST[0][:2])),
            r"^pairs: shapes \(3, 12\) and \(2, 12\)",
        ),
        (lambda: dc.influence.eif(TRAIN, (TEST[0], TEST[0]), radius=2), r"^there is no key influence.radius"),
        (lambda: dc.influence.eif(TRAIN[0], (TEST[0], TEST[0])), r"^train: give \(embeddings, labels\)"),
        (lambda: dc.relabel(TRAIN[0][:1], TRAIN[1][:1]), r"at least two training samples"),
        (lambda: dc.relabel(*TRAIN, neighbours=0), r"^neighbours=0"),
        (lambda: dc.relabel(*TRAIN, weights="fare"), r"^weights=fare is not known; did you mean fair"),
        (lambda: dc.retrieval.metrics(TEST, ranks=(0,)), r"^ranks=0"),
    ],
)
def test_a_step_with_wrong_arguments_is_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_labels_are_the_classes_of_a_loss_that_is_given():
    """Labels 0, 2 and 4 of five classes: their proxies are the loss's own, as all five labels show."""
    torch.manual_seed(0)
    loss, kept = SoftTriple(5, 12), np.isin(TRAIN[1], (0, 2, 4))
    pairs = TEST[0][:4], TEST[0][4:8]
    some = dc.influence.eif((TRAIN[0][kept], TRAIN[1][kept]), pairs, loss=loss)
    np.testing.assert_allclose(some, dc.influence.eif(TRAIN, pairs, loss=loss)[:, kept], rtol=1e-4, atol=1e-7)
    with pytest.raises(UserError, match="the label 5 is none of the loss's 5 classes"):
        dc.influence.eif((TRAIN[0], TRAIN[1] + 1), pairs, loss=loss)
