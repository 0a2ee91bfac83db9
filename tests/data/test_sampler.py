import math
from itertools import chain

import numpy as np
import pytest
import torch

from deconfuse.data.sampler import BalancedBatches

SIZES = [1, 3, 7, 23]


def labels_of(sizes, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


def rows_of(batches):
    return [[row for row, _ in batch] for batch in batches]


SHAPES = [
    (SIZES, 3, 4),
    (SIZES, 4, 1),
    (SIZES, 2, 5),
    (SIZES, 1, 2),
    (SIZES, 9, 3),
    ([5] * 11, 4, 2),
    ([20] * 7, 3, 4),
    ([1, 1, 1], 2, 3),
    ([40, 2, 2, 2], 3, 2),
    ([17], 4, 3),
]


every_shape = pytest.mark.parametrize(("sizes", "classes", "per_class"), SHAPES)


@every_shape
def test_every_sample_occurs_in_every_epoch(sizes, classes, per_class):
    labels = labels_of(sizes)
    for epoch in range(3):
        rows = np.concatenate(rows_of(BalancedBatches(labels, classes, per_class, 5, epoch)))
        assert set(rows.tolist()) == set(range(len(labels)))


@every_shape
def test_a_batch_repeats_a_class_only_where_there_are_too_few_batches_for_it(sizes, classes, per_class):
    labels = labels_of(sizes)
    left = np.array([math.ceil(size / per_class) for size in sizes])
    batches = rows_of(BalancedBatches(labels, classes, per_class, 5))
    for i, batch in enumerate(batches):
        counts = np.bincount(labels[batch], minlength=len(sizes))
        assert per_class <= counts.sum() <= per_class * min(classes, len(sizes))
        assert (counts % per_class == 0).all()
        assert (counts // per_class <= np.ceil(left / (len(batches) - i))).all()
        left -= counts // per_class
    assert not left.any()


@every_shape
def test_an_epoch_draws_no_more_than_filling_the_last_share_takes(sizes, classes, per_class):
    labels = labels_of(sizes)
    rows = np.concatenate(rows_of(BalancedBatches(labels, classes, per_class, 5)))
    drawn = np.bincount(labels[rows])
    assert drawn.tolist() == [math.ceil(size / per_class) * per_class for size in sizes]
    # A class that has enough samples repeats none of them more than once.
    times = np.bincount(rows, minlength=len(labels))
    for c, size in enumerate(sizes):
        assert times[labels == c].min() >= 1
        if size >= per_class:
            assert times[labels == c].max() <= 2


@every_shape
def test_the_length_is_the_number_of_batches_and_the_least_possible(sizes, classes, per_class):
    batches = BalancedBatches(labels_of(sizes), classes, per_class, 5)
    shares = sum(math.ceil(size / per_class) for size in sizes)
    assert len(batches) == len(list(batches)) == math.ceil(shares / min(classes, len(sizes)))


def test_a_class_that_is_most_of_the_data_is_as_much_of_every_batch():
    """1,000 of one class beside nine of 100, four at a time: 250 + 9 x 25 shares, 48 batches of ten."""
    labels = labels_of([1000] + [100] * 9)
    for epoch in range(3):
        batches = rows_of(BalancedBatches(labels, 16, 4, 0, epoch))
        counts = np.array([np.bincount(labels[batch], minlength=10) for batch in batches]) // 4
        assert counts.sum(axis=1).tolist() == [10] * 47 + [5]
        assert set(counts[:-1, 0].tolist()) == {5, 6}
        assert counts[-1, 0] == 5
        assert set(counts[:-1, 1:].sum(axis=1).tolist()) == {4, 5}
        assert counts[:, 1:].max() == 1


@every_shape
def test_class_balanced_epochs_are_as_long_and_have_each_class_equally_often(sizes, classes, per_class):
    labels = labels_of(sizes)
    batches = BalancedBatches(labels, classes, per_class, 5, class_balanced=True)
    assert len(batches) == len(BalancedBatches(labels, classes, per_class, 5)) == len(list(batches))
    rows = rows_of(batches)
    for batch in rows:  # no class twice in a batch
        assert set(np.bincount(labels[batch]).tolist()) <= {0, per_class}
    shares = sum(math.ceil(size / per_class) for size in sizes)
    drawn = np.concatenate(rows)
    found = np.bincount(labels[drawn]) // per_class
    assert found.sum() == shares
    assert set(found.tolist()) <= {shares // len(sizes), -(-shares // len(sizes))}
    times = np.bincount(drawn, minlength=len(labels))
    for c in range(len(sizes)):  # within a class no sample more than once oftener than another
        assert np.ptp(times[labels == c]) <= 1


def test_class_balanced_epochs_show_other_samples_of_a_large_class():
    labels = labels_of([1000] + [100] * 9)
    seen = set()
    for epoch in range(12):
        rows = np.concatenate(rows_of(BalancedBatches(labels, 10, 4, 0, epoch, class_balanced=True)))
        assert (labels[rows] == 0).sum() in (47 * 4, 48 * 4)  # 475 shares, 47.5 of each class
        seen |= set(rows[labels[rows] == 0].tolist())
    # 1000 x (1 - (1 - 190 / 1000)^12) = 920 are expected
    assert 890 < len(seen) < 950


def test_batches_of_equal_classes_are_full_but_for_the_last():
    batches = rows_of(BalancedBatches(labels_of([6] * 11), 4, 3, 0))
    assert [len(batch) for batch in batches] == [12, 12, 12, 12, 12, 6]


def one_batch_after_the_other(labels, classes, per_class, seed):
    """The fullest classes first until nothing is left, written out; the last batch has what remains."""
    random = np.random.default_rng([seed, 0])
    shares = []
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        missing = -len(rows) % per_class
        extra = random.choice(rows, missing, replace=missing > len(rows))
        shares.append(np.concatenate([random.permutation(rows), extra]).reshape(-1, per_class).tolist())
    while any(shares):
        chance = random.random(len(shares))
        order = sorted(range(len(shares)), key=lambda c: (-len(shares[c]), chance[c]))[:classes]
        batch = [row for c in order if shares[c] for row in shares[c].pop()]
        random.integers(2**62, size=len(batch))
        yield batch


@pytest.mark.parametrize(
    ("sizes", "classes"),
    [([4] * 12, 4), ([4] * 10, 4), ([4] * 7 + [8, 8], 4), ([12, 12, 12, 3], 4), ([5] * 9, 6)],
)
def test_a_last_batch_of_half_the_classes_or_more_stays(sizes, classes):
    labels = labels_of(sizes)
    found = rows_of(BalancedBatches(labels, classes, 4, 7))
    assert found == list(one_batch_after_the_other(labels, classes, 4, 7))


@pytest.mark.parametrize(
    ("sizes", "classes", "expected"),
    [
        ([4] * 13, 4, [4, 3, 3, 3]),  # would be 4, 4, 4, 1
        ([4] * 33, 16, [11, 11, 11]),  # would be 16, 16, 1
        ([12, 12, 12, 12, 4, 4], 6, [5, 5, 4]),  # would be 6, 4, 4
    ],
)
def test_a_smaller_last_batch_is_shared_among_all(sizes, classes, expected):
    labels = labels_of(sizes)
    for epoch in range(4):
        batches = rows_of(BalancedBatches(labels, classes, 4, 3, epoch))
        assert [len(np.unique(labels[batch])) for batch in batches] == expected
        assert [len(batch) for batch in batches] == [4 * n for n in expected]
        assert sorted(chain(*batches)) == list(range(len(labels)))


def test_a_class_of_one_fills_its_share_with_itself():
    labels = np.array([0, 1, 1, 1, 1])
    for epoch in range(5):
        rows = np.concatenate(rows_of(BalancedBatches(labels, 2, 4, 0, epoch)))
        assert sorted(rows.tolist()) == [0, 0, 0, 0, 1, 2, 3, 4]


def test_labels_need_not_be_consecutive():
    labels = np.array([7, 90, 7, 90, 7])
    batches = rows_of(BalancedBatches(labels, 5, 2, 0))
    assert [len(batch) for batch in batches] == [4, 2]
    assert set(np.concatenate(batches).tolist()) == set(range(5))


def test_seed_and_epoch_alone_decide_batches_and_seeds():
    labels = labels_of(SIZES)
    first, again = BalancedBatches(labels, 3, 4, 5, 2), BalancedBatches(labels, 3, 4, 5, 2)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the old global state is what must not matter
    one = list(first)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert one == list(again) == list(first)


def test_epochs_and_seeds_differ():
    labels = labels_of(SIZES)
    epochs = [str(list(BalancedBatches(labels, 3, 4, seed, epoch))) for seed in (5, 6) for epoch in range(4)]
    assert len(set(epochs)) == 8


def test_set_epoch_is_being_born_in_that_epoch():
    labels = labels_of(SIZES)
    batches = BalancedBatches(labels, 3, 4, 5)
    assert list(batches) == list(BalancedBatches(labels, 3, 4, 5, 0))
    batches.set_epoch(3)
    assert list(batches) == list(BalancedBatches(labels, 3, 4, 5, 3))


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_the_parts_of_several_processes_are_the_batches_of_one(processes):
    labels = labels_of(SIZES)
    parts = [list(BalancedBatches(labels, 3, 4, 8, 1, (i, processes))) for i in range(processes)]
    whole = list(BalancedBatches(labels, 3, 4, 8, 1))
    assert [list(chain(*batch)) for batch in zip(*parts, strict=True)] == whole
    sizes = np.array([[len(batch) for batch in part] for part in parts])
    assert (np.ptp(sizes, axis=0) <= 1).all()
    assert np.ptp(sizes) > 0


def test_every_draw_has_a_seed_of_its_own():
    seeds = [seed for batch in BalancedBatches(labels_of([20] * 9), 4, 4, 0) for _, seed in batch]
    assert len(set(seeds)) == len(seeds) == 180
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_which_classes_meet_is_left_to_chance():
    labels = labels_of([4] * 9)
    met = np.zeros((9, 9))
    for epoch in range(200):
        for batch in rows_of(BalancedBatches(labels, 3, 4, 0, epoch)):
            found = np.unique(labels[batch])
            met[np.ix_(found, found)] += 1
    off = met[~np.eye(9, dtype=bool)]
    # Each pair meets in a quarter of the 200 epochs: 50, standard deviation 6; four of them.
    assert 25 < off.min() <= off.max() < 75
    assert (np.diag(met) == 200).all()


def test_rows_are_the_samples_of_the_first_epochs_whatever_was_drawn_before():
    labels = np.array([0] * 5 + [1] * 3 + [-1] + [2] * 4)
    batches = BalancedBatches(labels, 2, 2, seed=7)
    want = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        want += [[row for row, _ in batch] for batch in batches]
    for _ in range(2):
        assert [rows.tolist() for rows in batches.rows(3)] == want
    assert len(want) == 3 * len(batches)
    assert {row for batch in want[: len(batches)] for row in batch} == set(range(13)) - {8}
