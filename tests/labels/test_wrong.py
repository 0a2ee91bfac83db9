import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from deconfuse.labels import wrong as module
from deconfuse.labels.relabel import Votes
from deconfuse.labels.wrong import doubt, interval, likeliest, log_likelihood, posterior
from deconfuse.retrieval.statistics import calibration_error


def test_posterior_is_bayes_rule():
    # Of 5 classes p(given) = 0.1, one label in ten is wrong: 0.1 * 0.9 / 4 against 0.9 * 0.1.
    want = (0.1 * 0.9 / 4) / (0.1 * 0.9 / 4 + 0.9 * 0.1)
    found = posterior(torch.tensor([0.1, 1.0, 0.0], dtype=torch.float64), 0.1, 5)
    np.testing.assert_allclose(found, [want, 0, 1], atol=1e-12)


def test_a_hard_sample_is_not_a_wrong_one():
    """A tenth of the probability is much, compared with a wrong label's share of all other classes."""
    assert posterior(torch.tensor([0.1], dtype=torch.float64), 0.01, 98).item() < 0.001


def test_the_share_is_the_likeliest_one():
    random = np.random.default_rng(0)
    p = torch.from_numpy(
        np.where(random.random(500) < 0.2, 10 ** random.uniform(-6, -2, 500), random.random(500))
    )
    share, at_most = likeliest(p, 10)
    best = minimize_scalar(lambda s: -log_likelihood(p, s, 10), bounds=(1e-6, 1 - 1e-6), method="bounded")
    assert share == pytest.approx(best.x, abs=1e-4)
    assert at_most == pytest.approx(-best.fun, abs=1e-4)
    each = sum(math.log((1 - share) * x + share * (1 - x) / 9) for x in p.tolist())
    assert at_most == pytest.approx(each, abs=1e-8)


def test_the_interval_ends_where_the_likelihood_falls_by_half_of_chi_square():
    p = torch.from_numpy(np.random.default_rng(1).beta(0.4, 1, 300))
    share, most = likeliest(p, 7)
    low, high = interval(p, share, 7)
    assert low < share < high
    for end in (low, high):
        assert 2 * (most - log_likelihood(p, end, 7)) == pytest.approx(3.841, abs=1e-3)


def test_the_interval_of_no_wrong_label_starts_at_zero():
    low, high = interval(torch.full((200,), 0.99, dtype=torch.float64), 0.0, 7)
    assert low == 0
    assert 0 < high < 0.05


def classes(n, c, d, apart, seed):
    """n samples of c Gaussian classes whose means are `apart` standard deviations from the origin."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % c
    means = random.normal(size=(c, d))
    means *= apart / np.linalg.norm(means, axis=1, keepdims=True)
    return torch.from_numpy(means[labels] + random.normal(size=(n, d))), labels


@pytest.mark.parametrize("apart", [2.5, 4.0])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.2])
def test_wrong_labels_are_counted_also_where_classes_overlap(apart, share):
    """A held-out nearest mean is right for two thirds of the samples, or for nearly all, and no more."""
    x, clean = classes(3000, 30, 24, apart, 0)
    random = np.random.default_rng(1)
    wrong = random.random(3000) < share
    labels = np.where(wrong, (clean + random.integers(1, 30, 3000)) % 30, clean)
    found = doubt(x, torch.from_numpy(labels), 30)
    if share:
        assert found.share / wrong.mean() == pytest.approx(1, abs=0.33)
        assert found.low < wrong.mean() * 1.2
        assert found.high > wrong.mean() * 0.8
    else:
        assert found.share < 0.02
    assert calibration_error(found.wrong.numpy(), wrong) < 0.05
    listed = found.listed.numpy()
    if listed.any():
        assert wrong[listed].mean() > 0.5
    right = (found.label.numpy() == clean)[wrong & listed]
    assert not share or right.mean() > 0.6


def test_votes_are_the_classifiers_probabilities():
    x, labels = classes(300, 6, 12, 3.0, 5)
    labels = torch.from_numpy(labels)
    found = doubt(x, labels, 6)
    np.testing.assert_allclose(found.votes.share.sum(1), 1, atol=1e-9)
    own = found.votes.share[found.votes.classes == labels[:, None]]
    np.testing.assert_allclose(own, found.votes.own, atol=1e-9)
    assert (found.votes.best[0] == labels).double().mean() == pytest.approx(found.agree)
    assert (found.label != labels).all()


def test_a_class_of_one_sample_cannot_be_judged():
    x, labels = classes(300, 10, 12, 4.0, 2)
    labels = labels.copy()
    labels[3] = 10
    found = doubt(x, torch.from_numpy(labels), 11)
    assert found.wrong[3] == pytest.approx(found.share)
    assert torch.isfinite(found.wrong).all()


@pytest.mark.parametrize("c", [1, 2])
def test_few_classes_and_copies(c):
    labels = torch.arange(12) % c
    found = doubt(torch.ones(12, 3), labels, c)
    assert ((found.wrong >= 0) & (found.wrong <= 1)).all()
    assert 0 <= found.low <= found.share <= found.high <= 1


def test_a_scale_that_some_samples_choose_is_used_for_all(monkeypatch):
    x, clean = classes(1500, 10, 12, 3.0, 7)
    random = np.random.default_rng(1)
    wrong = random.random(1500) < 0.1
    labels = torch.from_numpy(np.where(wrong, (clean + random.integers(1, 10, 1500)) % 10, clean))
    whole = doubt(x, labels, 10)
    monkeypatch.setattr(module, "FITTED", 700)
    some = doubt(x, labels, 10)
    # The neighbouring scale at most, a tenth larger or smaller.
    assert some.share == pytest.approx(whole.share, abs=0.01)
    assert (some.wrong - whole.wrong).abs().mean() < 0.02
    np.testing.assert_allclose(some.votes.share.sum(1), whole.votes.share.sum(1), atol=0.05)


def test_leave_one_out_is_the_share_whose_nearest_has_their_label():
    x, labels = classes(40, 4, 6, 4.0, 0)
    labels = torch.from_numpy(labels)
    wanted = labels.clone()
    wanted[:10] = (wanted[:10] + 1) % 4
    index = torch.stack([torch.tensor([labels.tolist().index(c), 0]) for c in wanted.tolist()])
    # Votes of many neighbours are listed by class, so that only index says who is the nearest.
    votes = Votes(torch.arange(4).repeat(40, 1), torch.ones(40, 4), torch.ones(40), index)
    assert doubt(x, labels, 4, votes).leave_one_out == pytest.approx(0.75)
    assert doubt(x, labels, 4).leave_one_out is None


def test_labels_of_samples_that_were_left_out_say_nothing():
    x, labels = classes(400, 4, 6, 4.0, 0)
    labels = torch.from_numpy(labels)
    used = torch.tensor([i for i in range(400) if i % 10])
    moved = x.clone()
    moved[::10] = 5 * torch.randn(40, 6, generator=torch.Generator().manual_seed(1)).double()
    one, two = (doubt(each, labels, 4, used=used) for each in (x, moved))
    torch.testing.assert_close(one.wrong[used], two.wrong[used], rtol=1e-4, atol=1e-7)
    assert (one.share, one.agree) == pytest.approx((two.share, two.agree), rel=1e-4)
    whole = doubt(moved, labels, 4).wrong
    assert not torch.allclose(one.wrong[used], whole[used], rtol=1e-4, atol=1e-7)
    # With every fifth label wrong, half of them left out: these are judged by the others, but not listed.
    other = torch.randint(1, 4, (400,), generator=torch.Generator().manual_seed(2))
    given = torch.where(torch.arange(400) % 10 < 2, (labels + other) % 4, labels)
    judged = doubt(x, given, 4, used=used)
    assert (judged.wrong[::10] > 0.5).sum() > 20
    assert not judged.listed[::10].any()
    assert judged.listed[1::10].sum() > 20
