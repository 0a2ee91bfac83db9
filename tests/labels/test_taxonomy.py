import math

import numpy as np
import pytest

from deconfuse.labels.taxonomy import KINDS, merge_quality, merges, taxonomy

# Class 0: 2 of 18 say 1. Class 1: 6 of 20, 3 each. Class 2: 1 of 21. Class 3: 1 of 11. Class 4: none.
# Class 5: 10 of 20, nine of them 0.
SIZES = {0: 18, 1: 20, 2: 21, 3: 11, 4: 9, 5: 20}
SAYS = {0: [1, 1], 1: [5, 5, 5, 2, 2, 2], 2: [0], 3: [0], 4: [], 5: [0] * 9 + [3]}
LABELS = np.repeat(list(SIZES), list(SIZES.values()))
RECOMMENDED = np.concatenate([SAYS[c] + [c] * (SIZES[c] - len(SAYS[c])) for c in SIZES])


def test_every_kind_by_hand():
    table = taxonomy(LABELS, RECOMMENDED, LABELS != RECOMMENDED).set_index("class")
    assert table.index.tolist() == [0, 1, 2, 3, 5]
    assert table["samples"].tolist() == [18, 20, 21, 11, 20]
    assert table["suggestions"].tolist() == [2, 6, 1, 1, 10]
    assert table["leans_to"].tolist() == [1, 2, 0, 0, 0]
    h = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))  # 0.325 nats
    np.testing.assert_allclose(table["entropy"], [0, math.log(2), 0, 0, h], atol=1e-12)
    np.testing.assert_allclose(table["lean"], [1, 0.5, 1, 1, 0.9])
    assert table["kind"].tolist() == ["centralized", "diversified", "individual", "others", "centralized"]
    assert table["kind_by_share"].tolist() == table["kind"].tolist()
    # The thresholds are arguments, and the two rules apart.
    strict = taxonomy(LABELS, RECOMMENDED, LABELS != RECOMMENDED, 0.3, 0.1, 0.3, 0.9).set_index("class")
    assert strict["kind"].tolist() == ["others", "others", "individual", "individual", "diversified"]
    assert strict["kind_by_share"].tolist() == ["others", "others", "individual", "individual", "centralized"]


def test_only_what_is_suggested_counts():
    table = taxonomy(LABELS, RECOMMENDED, (LABELS != RECOMMENDED) & (LABELS != 5))
    assert table["class"].tolist() == [0, 1, 2, 3]
    nothing = taxonomy(LABELS, RECOMMENDED, np.zeros(len(LABELS), bool))
    assert len(nothing) == 0
    assert merges(nothing).shape == (0, 2)


def test_merges_join_what_is_joined_on_the_way():
    table = taxonomy(LABELS, RECOMMENDED, LABELS != RECOMMENDED)
    assert merges(table).tolist() == [[0, 1], [5, 0]]
    # Joined: 0-1, 0-5 and so 1-5. Known below 6: 0-1, 0-3, 1-3; 7 is a test class.
    found = merge_quality(merges(table), ((0, 1, 3), (4, 7)), 6)
    assert found == {
        "joined": 3,
        "known": 3,
        "precision": pytest.approx(1 / 3),
        "recall": pytest.approx(1 / 3),
    }
    assert merge_quality(merges(table), ((4, 7),), 6) is None
    assert merge_quality(merges(table), ((5, 6),), 6) is None  # 6 is the first test class
    assert merge_quality(merges(table), ((7, 4),), 6) is None  # in whatever order a group is listed
    backwards = merge_quality(np.array([[5, 0]]), ((5, 0),), 6)
    assert backwards == {"joined": 1, "known": 1, "precision": 1, "recall": 1}
    nothing = merge_quality(np.empty((0, 2), np.int64), ((3, 0),), 6)
    assert nothing == {"joined": 0, "known": 1, "precision": None, "recall": 0}


def one_class(says, size):
    """The row of a class 0 of `size` samples, some of which are recommended the labels in `says`."""
    recommended = np.array([*says, *[0] * (size - len(says))])
    (row,) = taxonomy(np.zeros(size, np.int64), recommended, recommended != 0).to_dict("records")
    return row


def test_the_default_thresholds_lie_where_the_paper_has_them():
    """The nearest numbers on either side of each threshold that few suggestions can have."""
    # H of 8 and 1 is 0.3488 nats, of 7 and 1 it is 0.3768: th_H = 0.35 lies between them.
    below, above = one_class([1] * 8 + [2], 20), one_class([1] * 7 + [2], 20)
    assert (below["entropy"], above["entropy"]) == pytest.approx((0.3488321, 0.3767702), abs=1e-6)
    assert (below["kind"], above["kind"]) == ("centralized", "diversified")
    # Of 9 suggestions 8 are less than 0.9 of them, of 10 suggestions 9 are not.
    at = one_class([1] * 9 + [2], 20)
    assert (below["kind_by_share"], at["kind_by_share"]) == ("diversified", "centralized")
    assert below["lean"] == pytest.approx(8 / 9)
    # More than 0.10 is many, less than 0.05 is few; both bounds themselves are neither.
    kinds = [one_class([1] * n, size)["kind"] for n, size in ((2, 19), (2, 20), (1, 19), (1, 20), (1, 21))]
    assert kinds == ["centralized", "others", "others", "others", "individual"]


def test_an_entropy_at_the_threshold_is_not_below_it():
    h = float(one_class([1, 2], 9)["entropy"])  # log 2
    labels, recommended = np.zeros(9, np.int64), np.array([1, 2, 0, 0, 0, 0, 0, 0, 0])
    for entropy, kind in ((h, "diversified"), (math.nextafter(h, 1), "centralized")):
        found = taxonomy(labels, recommended, recommended != 0, entropy=entropy)
        assert found["kind"].tolist() == [kind]


def test_the_kinds_are_those_that_a_table_can_have():
    table = taxonomy(LABELS, RECOMMENDED, LABELS != RECOMMENDED)
    assert set(table["kind"]) == set(KINDS) == {"centralized", "diversified", "individual", "others"}
