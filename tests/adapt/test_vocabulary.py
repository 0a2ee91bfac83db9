import numpy as np
import pytest

import deconfuse as dc
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.system.errors import UserError
from tests.api.data import rows

TRAIN, TEST = rows(30, 3, 0), rows(20, 4, 1, first=2)  # class 2 is in both


def test_labels_of_both_sides_are_one_vocabulary():
    words = np.array(["ant", "bee", "cat", "dog", "eel", "fox"], dtype=object)
    found = dc.explain(train=(TRAIN[0], words[TRAIN[1]]), test=(TEST[0], words[TEST[1]]))
    split = found.findings.split
    assert split.class_names == ("ant", "bee", "cat", "dog", "eel", "fox")
    assert split.num_classes == 3
    assert set(split.query.labels.tolist()) == {2, 3, 4, 5}
    numbers = dc.explain(train=TRAIN, test=TEST)
    np.testing.assert_array_equal(found.influence, numbers.influence)


@pytest.mark.parametrize("classes", [["a", "b", "c"], {0: "a", 1: "b", 2: "c"}])
def test_names_are_given_as_a_list_or_by_label(classes):
    found = dc.explain(train=TRAIN, test=TEST, classes=classes)
    assert found.findings.split.class_names == ("a", "b", "c", "3", "4", "5")


def test_a_fitted_loss_keeps_its_classes_also_those_without_samples():
    found = dc.explain(train=(TRAIN[0], TRAIN[1] + 4), test=TEST, loss=SoftTriple(9, 12))
    split = found.findings.split
    assert split.num_classes == 9
    assert np.unique(split.train.labels).tolist() == [4, 5, 6]
    assert split.class_names[:9] == tuple(map(str, range(9)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["a", "a", "c"]}, r"^classes: two labels have the name 'a'"),
        ({"train": (TRAIN[0], TRAIN[1] - 1), "loss": SoftTriple(3, 12)}, r"^train: the label -1 is none of"),
        ({"train": (TRAIN[0][:1], TRAIN[1][:1])}, r"^train: a single sample"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        dc.explain(**{"train": TRAIN, "test": TEST, **arguments})
