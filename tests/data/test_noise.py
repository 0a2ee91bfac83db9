import numpy as np
import pytest

from deconfuse.data.noise import flip
from deconfuse.system.errors import UserError


def labels_of(n, c, seed=0):
    return np.random.default_rng(seed).integers(c, size=n)


@pytest.mark.parametrize("kind", ["symmetric", "shift"])
@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.1, 0.25, 0.5, 0.999])
@pytest.mark.parametrize(("n", "c"), [(23, 2), (97, 5), (101, 10), (1003, 23)])
def test_exactly_the_rounded_share_changes_class(n, c, ratio, kind):
    labels = labels_of(n, c)
    if 0 < ratio * n < 0.5:
        with pytest.raises(UserError, match=rf"^noise.ratio={ratio} of {n} .* none; give 0.043 or more, or"):
            flip(labels, c, ratio, kind, seed=3)
        return
    noisy = flip(labels, c, ratio, kind, seed=3)
    assert noisy.flipped.dtype == bool
    assert noisy.flipped.sum() == round(ratio * n)
    assert ((noisy.labels >= 0) & (noisy.labels < c)).all()
    assert noisy.labels.dtype == labels.dtype
    np.testing.assert_array_equal(noisy.clean, labels)
    np.testing.assert_array_equal(noisy.flipped, noisy.labels != labels)


def test_the_given_labels_stay_and_are_not_shared():
    labels = labels_of(97, 7)
    before = labels.copy()
    noisy = flip(labels, 7, 0.5, "symmetric", seed=0)
    np.testing.assert_array_equal(labels, before)
    assert not np.shares_memory(noisy.labels, labels)
    assert not np.shares_memory(noisy.clean, labels)


def test_symmetric_flips_are_uniform_over_the_other_classes():
    n, c = 60_000, 7
    labels = labels_of(n, c)
    noisy = flip(labels, c, 0.7, "symmetric", seed=1)
    flipped = noisy.flipped
    counts = np.zeros((c, c))
    np.add.at(counts, (labels[flipped], noisy.labels[flipped]), 1)
    assert np.diag(counts).sum() == 0
    expected = counts.sum(1, keepdims=True) / (c - 1) * (1 - np.eye(c))
    chi_square = ((counts - expected)[expected > 0] ** 2 / expected[expected > 0]).sum()
    # 7 * 5 = 35 degrees of freedom: 66.6 is passed by one seed in a thousand.
    assert chi_square < 66.6
    assert counts[~np.eye(c, dtype=bool)].min() > 800  # each of 42 cells near 1000


def test_confused_flips_follow_the_confusion():
    n, c = 40_000, 5
    labels = labels_of(n, c)
    confusion = np.random.default_rng(2).dirichlet(np.ones(c), c) * (1 - np.eye(c))
    confusion[3] = [0, 0, 1, 0, 0]
    confusion /= confusion.sum(1, keepdims=True)
    noisy = flip(labels, c, 0.6, "confused", seed=1, confusion=confusion)
    assert noisy.flipped.sum() == round(0.6 * n)
    counts = np.zeros((c, c))
    np.add.at(counts, (labels[noisy.flipped], noisy.labels[noisy.flipped]), 1)
    assert counts[3].tolist() == [0, 0, counts[3].sum(), 0, 0]
    # About 4,800 of each class: five standard deviations of a share are below 0.037.
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), confusion, atol=0.037)
    other = flip(labels, c, 0.6, "symmetric", seed=1)
    np.testing.assert_array_equal(noisy.flipped, other.flipped)  # the seed chooses the same samples


def test_which_samples_flip_is_uniform_over_the_samples():
    hits = sum(flip(np.zeros(11, dtype=int), 3, 0.37, "symmetric", seed).flipped for seed in range(1500))
    assert hits.sum() == 1500 * round(0.37 * 11)
    # Binomial(1500, 4/11): mean 545, standard deviation 18.6; five of them.
    assert np.abs(hits - 1500 * 4 / 11).max() < 93


@pytest.mark.parametrize("c", [11, 12, 100])
def test_shift_goes_five_up_or_five_down_around_the_circle(c):
    labels = labels_of(2001, c)
    noisy = flip(labels, c, 0.5, "shift", seed=2)
    step = (noisy.labels - labels)[noisy.flipped] % c
    assert set(step.tolist()) == {5, c - 5}
    # Binomial(1000, 1/2): mean 500, standard deviation 16; five of them.
    assert abs((step == 5).sum() - 500) < 80


@pytest.mark.parametrize(("c", "steps"), [(5, {1}), (10, {5}), (3, {1, 2}), (2, {1}), (7, {5, 2})])
def test_shift_never_lands_on_the_same_class_where_five_is_a_whole_turn(c, steps):
    labels = labels_of(401, c)
    noisy = flip(labels, c, 0.9, "shift", seed=0)
    assert set(((noisy.labels - labels)[noisy.flipped] % c).tolist()) == steps


@pytest.mark.parametrize("kind", ["symmetric", "shift"])
def test_the_same_seed_flips_the_same_and_another_does_not(kind):
    labels = labels_of(301, 12)
    first, again, other = (flip(labels, 12, 0.2, kind, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.flipped != other.flipped).any()


def test_which_samples_flip_does_not_depend_on_the_labels():
    one, two = labels_of(301, 12, seed=0), labels_of(301, 12, seed=1)
    np.testing.assert_array_equal(
        flip(one, 12, 0.2, "symmetric", 4).flipped, flip(two, 12, 0.2, "symmetric", 4).flipped
    )


def test_a_larger_ratio_flips_the_same_samples_and_more():
    labels = labels_of(301, 12)
    few, many = (flip(labels, 12, ratio, "symmetric", 4).flipped for ratio in (0.1, 0.3))
    assert (few <= many).all()


@pytest.mark.parametrize("kind", ["symmetric", "shift"])
@pytest.mark.parametrize("c", [1, 2, 9])
def test_ratio_zero_changes_nothing(c, kind):
    labels = labels_of(23, c)
    noisy = flip(labels, c, 0.0, kind, seed=0)
    np.testing.assert_array_equal(noisy.labels, labels)
    assert not noisy.flipped.any()


def test_one_class_has_nothing_to_flip_to():
    with pytest.raises(UserError, match=r"noise\.ratio: one training class .*noise=none"):
        flip(np.zeros(23, dtype=int), 1, 0.1, "symmetric", seed=0)


@pytest.mark.parametrize("ratio", [1.5, -0.1, 1, 1.0])
def test_a_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(UserError) as caught:
        flip(labels_of(23, 4), 4, ratio, "symmetric", seed=0)
    assert str(caught.value) == f"noise.ratio={ratio} is out of range; give a value in [0.0, 1.0)"


@pytest.mark.parametrize("ratio", [True, "0.1", None, float("nan")])
def test_a_ratio_that_is_no_number_is_refused(ratio):
    with pytest.raises(UserError, match=r"^noise\.ratio=.* is not a number$"):
        flip(labels_of(23, 4), 4, ratio, "symmetric", seed=0)


def test_an_unknown_kind_is_refused_with_a_suggestion():
    with pytest.raises(UserError, match=r"^noise\.kind=symetric is not known; did you mean symmetric\?"):
        flip(labels_of(23, 4), 4, 0.1, "symetric", seed=0)
