import numpy as np
import pytest

from deconfuse.corrections.class_map import class_map
from deconfuse.system.errors import UserError

NAMES = tuple("abcdef")


def test_merges_follow_each_other_and_swaps_exchange():
    decided = [(0, 1, "merge"), (1, 2, "merge"), (3, 4, "swap"), (0, 5, "apart")]
    assert class_map(decided, 6, NAMES).tolist() == [2, 2, 2, 4, 3, 5]
    assert class_map([], 4, NAMES).tolist() == [0, 1, 2, 3]
    # A label counted twice, whatever the order of the decisions.
    labels = np.array([0, 1, 2, 3, 4, 5, 0])
    assert class_map(decided[::-1], 6, NAMES)[labels].tolist() == [2, 2, 2, 4, 3, 5, 2]


@pytest.mark.parametrize(
    ("decided", "message"),
    [
        ([(0, 1, "merge"), (1, 2, "merge"), (2, 0, "merge")], "merged into itself by way of others"),
        ([(0, 1, "merge"), (0, 2, "merge")], "a is to be merged into b and c"),
        ([(0, 1, "swap"), (1, 2, "swap")], "b is to be swapped with two classes"),
        ([(0, 1, "swap"), (2, 0, "merge")], "a is to be swapped and merged"),
    ],
)
def test_what_cannot_be_is_named(decided, message):
    with pytest.raises(UserError, match=message):
        class_map(decided, 6, NAMES)
