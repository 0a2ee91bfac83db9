import numpy as np
import pytest

from deconfuse.corrections.corrections import Source, read
from deconfuse.corrections.tested import corrected
from deconfuse.data.images import ArrayImages
from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.system.errors import UserError
from tests.corrections.test_corrections import GIVEN, SPLIT, decided

QUERY = [("query", "q/0.png", "xenon", "other", "yak"), ("query", "q/3.png", "yak", "exclude", None)]


def asked(path, *args, **kwargs):
    return Source(decided(path, *args, **kwargs).file, 0.6, True)


def test_test_labels_change_only_where_a_run_asks_for_it(tmp_path):
    file = tmp_path / "d.json"
    split, told = corrected(decided(file, tests=QUERY), SPLIT)
    assert split is SPLIT
    assert (told.applied, told.changed, told.left_out) == (False, 1, 1)
    split, told = corrected(asked(file, tests=QUERY), SPLIT)
    assert (told.applied, told.changed, told.left_out) == (True, 1, 1)
    assert split.query.names == ("q/0.png", "q/1.png", "q/2.png")
    assert split.query.labels.tolist() == [4, 3, 4]
    assert split.query.rows.tolist() == [5, 6, 7]
    assert split.shared_gallery
    assert SPLIT.query.labels.tolist() == [3, 3, 4, 4]
    assert corrected(Source(None, 0.6, True), SPLIT) == (SPLIT, None)


def test_test_classes_are_merged_after_single_labels(tmp_path):
    split, told = corrected(asked(tmp_path / "d.json", [], [("yak", "xenon", "merge")], QUERY[:1]), SPLIT)
    assert split.query.labels.tolist() == [3, 3, 3, 3]
    assert told.changed == 2


def test_a_gallery_apart_keeps_its_twins(tmp_path):
    images = ArrayImages(np.zeros((12, 8, 8), np.uint8))
    gallery = Part(images, np.arange(9, 12), np.array([3, 4, 3]), ("g/0.png", "q/1.png", "g/2.png"))
    split = Split(
        SPLIT.train, SPLIT.query, gallery, SPLIT.class_names, 3, SPLIT.image, twins=np.array([-1, 1, 2, 0])
    )
    tests = [*QUERY[1:], ("gallery", "g/0.png", "xenon", "exclude", None)]
    found, told = corrected(asked(tmp_path / "d.json", tests=tests), split)
    assert found.gallery.names == ("q/1.png", "g/2.png")
    assert found.query.names == ("q/0.png", "q/1.png", "q/2.png")
    assert found.twins.tolist() == [-1, 0, 1]
    assert told.left_out == 2
    assert isinstance(found.image, ImageSpec)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (("query", "q/9.png", "yak", "exclude", None), r"q/9.png is no test sample"),
        (("query", "q/0.png", "yak", "exclude", None), r"q/0.png is xenon here, yak in the file"),
        (
            ("query", "q/0.png", "xenon", "other", "cat"),
            r"q/0.png: cat is no class to test with \(xenon, yak",
        ),
        (("gallery", "q/0.png", "xenon", "exclude", None), r"no gallery apart from its queries"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, test, message):
    with pytest.raises(UserError, match=message):
        corrected(asked(tmp_path / "d.json", tests=[test]), SPLIT)


def test_a_file_of_test_labels_alone_changes_no_training_label(tmp_path):
    source = asked(tmp_path / "d.json", tests=QUERY)
    split, told = corrected(source, SPLIT)
    found = read(source, split, GIVEN, told)
    assert not found.trains
    source = decided(tmp_path / "d.json", tests=QUERY)
    with pytest.raises(UserError, match=r"relabels.test=true takes its 2 of test samples"):
        read(source, SPLIT, GIVEN, corrected(source, SPLIT)[1])
