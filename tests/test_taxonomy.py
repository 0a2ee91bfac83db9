import math

import numpy as np
import pytest

from src.taxonomy import merge_quality, merges, taxonomy

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
    nothing = merge_quality(np.empty((0, 2), np.int64), ((3, 0),), 6)
    assert nothing == {"joined": 0, "known": 1, "precision": None, "recall": 0}
