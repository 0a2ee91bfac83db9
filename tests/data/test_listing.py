import numpy as np

from deconfuse.data.images import FeatureRows
from deconfuse.data.listing import KEYS, Listing, Reading

ROWS = FeatureRows(np.zeros((5, 2), np.float32))
CLASSES = ["b", "a", "b", "c", "a"]
PARTS = ["train", "train", "query", "gallery", "train"]
NAMES = ["0.png", "1.png", "2.png", "3.png", "4.png"]


def listing(**more):
    return Listing(ROWS, CLASSES, PARTS, NAMES, "made", **more)


def test_classes_and_parts_are_numbered_as_they_come():
    codes, names = listing().class_codes
    assert (codes.tolist(), names.tolist()) == ([0, 1, 0, 2, 1], ["b", "a", "c"])
    codes, parts = listing().part_codes
    assert (codes.tolist(), parts.tolist()) == ([0, 0, 1, 2, 0], ["train", "query", "gallery"])


def test_samples_of_one_identity_are_one_file_and_without_identities_the_names_say_so():
    assert listing().files.tolist() == [0, 1, 2, 3, 4]
    keys = [(7, 1), (7, 2), (7, 1), None, (7, 2)]
    assert listing(identities=keys).files.tolist() == [0, 1, 0, 2, 1]


def test_the_rows_of_some_parts_keep_their_order():
    rows = np.array([4, 3, 2, 0])
    assert listing().among(rows, "train").tolist() == [4, 0]
    assert listing().among(rows, "query", "gallery").tolist() == [3, 2]
    assert listing().among(rows, "test").tolist() == []


def test_the_shared_keys_are_the_fields_of_a_reading():
    assert set(KEYS) == set(Reading.__dataclass_fields__)
    assert {"image_size", "on_bad_image", "on_small_class", "value_range"} <= set(KEYS)
