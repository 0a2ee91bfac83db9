import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from deconfuse.frozen import whitening as module
from deconfuse.frozen.whitening import scatter, whitening


def drawn(n=61, d=7, c=5, seed=0, offset=0.0, scale=1.0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, c, n)
    mixed = random.normal(size=(d, d))
    x = 3 * random.normal(size=(c, d))[labels] + random.normal(size=(n, d)) @ mixed
    return torch.from_numpy(scale * x + offset), torch.from_numpy(labels)


def slow(x, labels):
    """Within and total covariance with the means written out, sample by sample."""
    x, labels = x.double().numpy(), labels.numpy()
    classes = np.unique(labels)
    within = np.zeros((x.shape[1], x.shape[1]))
    for row, label in zip(x, labels, strict=True):
        apart = row - x[labels == label].mean(0)
        within += np.outer(apart, apart)
    return within / (len(x) - len(classes)), np.cov(x.T, bias=True)


@pytest.mark.parametrize("rows", [5, 8192])
def test_moments_equal_those_written_out(monkeypatch, rows):
    monkeypatch.setattr(module, "ROWS", rows)
    x, labels = drawn()
    found, (within, total) = scatter(x, labels), slow(x, labels)
    np.testing.assert_allclose(found.within, within, atol=1e-12)
    np.testing.assert_allclose(found.total, total, atol=1e-12)
    np.testing.assert_allclose(found.mean, x.mean(0), atol=1e-13)


def test_samples_that_are_left_out_take_no_part():
    x, labels = drawn()
    used = torch.from_numpy(np.random.default_rng(1).random(len(x)) < 0.6)
    found, want = scatter(x, labels, used), scatter(x[used], labels[used])
    for name in ("mean", "within", "total"):
        np.testing.assert_allclose(getattr(found, name), getattr(want, name), atol=1e-12)


def test_the_spread_inside_the_classes_becomes_a_unit_matrix():
    x, labels = drawn(n=400)
    weight, bias = whitening(scatter(x, labels), 7, shrink=0.0)
    within, _ = slow(x @ weight.T + bias, labels)
    level = within.trace() / 7
    # 1e-6 of the mean eigenvalue is always added, so that a singular matrix has a root.
    np.testing.assert_allclose(within / level, np.eye(7), atol=1e-3)


def test_directions_are_those_of_the_generalised_eigenproblem():
    x, labels = drawn(n=200)
    within, total = slow(x, labels)
    shrunk = within + 0.3 * within.trace() / 7 * np.eye(7)
    _, vectors = eigh(total, shrunk)
    weight, _ = whitening(scatter(x, labels), 3, shrink=0.3)
    for mine, theirs in zip(weight.numpy(), vectors.T[::-1][:3], strict=True):
        cosine = mine @ theirs / np.linalg.norm(mine) / np.linalg.norm(theirs)
        assert abs(cosine) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(("offset", "scale"), [(0, 1e-4), (1e3, 1.0), (-1e4, 1e4)])
def test_cosines_do_not_depend_on_offset_and_scale(offset, scale):
    (x, labels), (other, _) = drawn(), drawn(offset=offset, scale=scale)

    def cosines(rows):
        weight, bias = whitening(scatter(rows, labels), 4)
        z = torch.nn.functional.normalize(rows @ weight.T + bias, dim=1)
        return z @ z.T

    # An offset of 1e3 costs three of float64's sixteen digits, its square six.
    np.testing.assert_allclose(cosines(x), cosines(other), atol=1e-6)


def test_entries_have_the_same_size_whatever_the_features():
    for x, labels in (drawn(), drawn(scale=37.0)):
        weight, _ = whitening(scatter(x, labels), 4)
        assert weight.square().mean().item() == pytest.approx(1 / 7)


def test_more_numbers_than_features_are_zeros():
    x, labels = drawn()
    weight, bias = whitening(scatter(x, labels), 10)
    assert weight.shape == (10, 7)
    assert not weight[7:].any()
    assert not bias[7:].any()


def test_without_spread_inside_the_classes_the_main_directions_stay():
    x = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 3]] * torch.tensor([1.0, 2, 3, 4]).double()
    weight, _ = whitening(scatter(x, torch.tensor([0, 1, 2, 3, 3])), 2)
    _, vectors = np.linalg.eigh(np.cov(x.T.numpy(), bias=True))
    for mine, theirs in zip(weight.numpy(), vectors.T[::-1][:2], strict=True):
        assert abs(mine @ theirs) / np.linalg.norm(mine) == pytest.approx(1, abs=1e-9)


def test_classes_apart_along_a_narrow_direction_are_found():
    """Two classes differ along one axis, the samples vary far more along the other."""
    random = np.random.default_rng(3)
    labels = torch.from_numpy(np.arange(300) % 2)
    x = torch.from_numpy(random.normal(size=(300, 2)) * [50, 1] + np.outer(labels, [0, 6]))
    weight, bias = whitening(scatter(x, labels), 1, shrink=0.0)
    z = (x @ weight.T + bias)[:, 0]
    assert ((z > 0) == (labels == labels[z.argmax()])).double().mean() > 0.99
