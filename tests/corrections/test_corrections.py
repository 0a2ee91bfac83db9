import json

import numpy as np
import pytest

from deconfuse.corrections.corrections import Source, read
from deconfuse.data.images import ArrayImages
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.system.errors import UserError

IMAGES = ArrayImages(np.zeros((9, 8, 8), np.uint8))
TRAIN = Part(IMAGES, np.arange(5), np.array([0, 0, 1, 1, 2]), tuple(f"{i // 2}/{i}.png" for i in range(5)))
QUERY = Part(IMAGES, np.arange(5, 9), np.array([3, 3, 4, 4]), tuple(f"q/{i}.png" for i in range(4)))
SPLIT = Split(TRAIN, QUERY, QUERY, ("apple", "bear", "cat", "xenon", "yak"), 3, ImageSpec(8, 1, "none"))
GIVEN = NoisyLabels(TRAIN.labels, TRAIN.labels)
FLIPPED = NoisyLabels(np.array([1, 0, 1, 2, 2]), TRAIN.labels)


def listed(path, *rows, header="path,label"):
    path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
    return Source(str(path), 0.6)


def test_no_file_no_corrections():
    assert read(Source(None, 0.6), SPLIT, GIVEN) is None


def test_labels_change_where_the_file_says_so(tmp_path):
    found = read(listed(tmp_path / "l.csv", "0/1.png,cat", "2/4.png,bear", "1/2.png,bear"), SPLIT, GIVEN)
    assert found.noisy.labels.tolist() == [0, 2, 1, 1, 1]
    assert found.evidence.tolist() == ["", "list", "", "", "list"]
    assert found.changed.tolist() == [False, True, False, False, True]
    assert found.already == 1
    # Nobody knows what is right: nothing counts as flipped.
    assert not found.noisy.flipped.any()
    assert GIVEN.labels.tolist() == [0, 0, 1, 1, 2]


def test_corrections_apply_on_top_of_flipped_labels(tmp_path):
    plan = listed(tmp_path / "l.csv", "0/0.png,apple", "2/4.png,bear")
    found = read(plan, SPLIT, FLIPPED)
    assert found.given is FLIPPED
    assert found.noisy.labels.tolist() == [0, 0, 1, 2, 1]
    assert found.noisy.flipped.tolist() == [False, False, False, True, True]


def test_a_runs_relabels_count_from_the_least_vote(tmp_path):
    header = "rank,path,class,recommended,vote_recommended"
    rows = ["0,0/0.png,apple,bear,0.9", "1,0/1.png,apple,cat,0.5"]
    plan = listed(tmp_path / "relabels.csv", *rows, header=header)
    assert read(plan, SPLIT, GIVEN).noisy.labels.tolist() == [1, 0, 1, 1, 2]
    assert read(Source(plan.file, 0.5), SPLIT, GIVEN).noisy.labels.tolist() == [1, 2, 1, 1, 2]
    with pytest.raises(UserError, match=r"nothing to change: it gives no label; .*lower relabels.min_vote"):
        read(Source(plan.file, 0.95), SPLIT, GIVEN)


def test_the_label_a_sample_had_is_checked_but_not_where_it_is_right_by_now(tmp_path):
    header = "path,old_label,new_label"
    rows = ["0/0.png,bear,apple", "0/1.png,apple,cat"]
    plan = listed(tmp_path / "clean_list.csv", *rows, header=header)
    found = read(plan, SPLIT, GIVEN)  # the first was corrected in the data itself
    assert (found.noisy.labels.tolist(), found.already) == ([0, 2, 1, 1, 2], 1)
    message = (
        r"clean_list.csv: 1 sample has another label than at the review: "
        r"0/1.png is apple here, bear in the file; give the dataset=, noise= and seed="
    )
    with pytest.raises(UserError, match=message):
        read(listed(tmp_path / "clean_list.csv", "0/1.png,bear,cat", header=header), SPLIT, GIVEN)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0/7.png,cat"], r"1 path is in no training set of this data: 0/7.png; did you mean 0/"),
        (["cats/4.png,cat"], r"cats/4.png; did you mean 2/4.png\?"),
        (["C:\\pictures\\3.png,cat"], r"did you mean 1/3.png\?"),
        (["nothing like it,cat"], r"they are named like 0/0.png"),
        (["q/0.png,cat"], r"q/0.png is a test sample, and the list is of training samples"),
        (["0/0.png,caat"], r"there is no class caat; did you mean cat\? Training classes: apple, bear, cat"),
        (["0/0.png,yak"], r"yak is no training class but one to test with"),
        (["0/0.png,cat", "0/0.png,bear"], r"0/0.png is to be cat and bear; keep one line"),
        (["0/0.png,apple"], r"nothing to change: it gives 1 label, there already"),
        ([], r"nothing to change: it gives no label"),
        (["0/0.png,cat", "0/1.png,cat", "1/2.png,cat", "1/3.png,cat"], r"would be of one class"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, rows, message):
    with pytest.raises(UserError, match=message) as caught:
        read(listed(tmp_path / "l.csv", *rows), SPLIT, GIVEN)
    assert str(caught.value).startswith(str(tmp_path / "l.csv"))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_among_many_is_answered_at_once(tmp_path):
    n = 30000
    names = tuple(f"class_{i % 100}/image_{i}.png" for i in range(n))
    many = Part(ArrayImages(np.zeros((1, 8, 8), np.uint8)), np.zeros(n, int), np.arange(n) % 3, names)
    split = Split(many, QUERY, QUERY, SPLIT.class_names, 3, ImageSpec(8, 1, "none"))
    labels = NoisyLabels(many.labels, many.labels)
    with pytest.raises(UserError, match=r"did you mean class_0/image_0.png\?"):
        read(listed(tmp_path / "l.csv", "elsewhere/image_0.png,cat"), split, labels)
    rows = [f"{name},{('bear', 'cat', 'apple')[i % 3]}" for i, name in enumerate(names)]
    found = read(listed(tmp_path / "l.csv", *rows), split, labels)
    assert (found.noisy.labels == (many.labels + 1) % 3).all()


@pytest.mark.parametrize("least", [-0.1, 1.1, "much"])
def test_a_bad_vote_is_named(least):
    with pytest.raises(UserError, match=rf"relabels.min_vote={least}"):
        Source("x.csv", least)


ODD = ("=1", "'=1", "New\u00a0York", "'-2", "x", "y")


def odd_split():
    names = ("p/a.png", "=b.png", "'=b.png", "p/é.png", "'-c.png", "-d.png")
    train = Part(IMAGES, np.arange(6), np.array([0, 0, 1, 1, 2, 3]), names)
    return Split(train, QUERY, QUERY, ODD, 4, ImageSpec(8, 1, "none")), NoisyLabels(
        train.labels, train.labels
    )


@pytest.mark.parametrize(
    ("row", "at", "label"),
    [
        ("./p/a.png, New York ", 0, 2),
        ("p//a.png,Ｎew York", 0, 2),
        ("p/e\u0301.png,=1", 3, 0),
        ("'-c.png,=1", 4, 0),  # as it stands
        ("'-d.png,=1", 5, 0),  # as a run's table has it
        ("p/a.png,'-2", 0, 3),
        ("p/a.png,''-2", 0, 3),
    ],
)
def test_another_spelling_or_a_tables_guard_means_the_same(tmp_path, row, at, label):
    split, labels = odd_split()
    found = read(listed(tmp_path / "l.csv", row), split, labels)
    assert np.flatnonzero(found.changed).tolist() == [at]
    assert found.noisy.labels[at] == label


def test_a_cell_that_may_be_either_of_two_names_is_refused(tmp_path):
    split, labels = odd_split()
    with pytest.raises(
        UserError, match=r"l.csv: '=b.png may be '=b.png or, without the sign .*, =b.png; use"
    ):
        read(listed(tmp_path / "l.csv", "'=b.png,'-2"), split, labels)
    header = "path,old_label,new_label"  # always guarded
    found = read(listed(tmp_path / "l.csv", "'=b.png,'=1,''-2", header=header), split, labels)
    assert found.noisy.labels.tolist() == [0, 3, 1, 1, 2, 3]


def decided(path, labels=(), classes=(), tests=()):
    """A decisions file; labels: (path, class, decision, label); classes: (class, with, decision)."""
    names = ("path", "class", "decision", "label")
    content = {
        "format": 1,
        "run": "r",
        "pairs": [],
        "labels": [dict(zip(names, one, strict=True)) for one in labels],
        "tests": [dict(zip(("kind", *names), one, strict=True)) for one in tests],
        "classes": [dict(zip(("class", "with", "decision"), one, strict=True)) for one in classes],
    }
    path.write_text(json.dumps(content))
    return Source(str(path), 0.6)


def test_an_excluded_sample_keeps_its_label_and_is_left_out(tmp_path):
    labels = [("0/1.png", "apple", "exclude", None), ("2/4.png", "cat", "other", "bear")]
    found = read(decided(tmp_path / "d.json", labels), SPLIT, GIVEN)
    assert found.left_out.tolist() == [False, True, False, False, False]
    assert found.noisy.labels.tolist() == [0, 0, 1, 1, 1]
    assert found.evidence.tolist() == ["", "reviewer", "", "", "reviewer"]
    assert found.already == 0
    header = "path,old_label,new_label"  # a clean list says the same by an empty label
    other = read(
        listed(tmp_path / "c.csv", "0/1.png,apple,", "2/4.png,cat,bear", header=header), SPLIT, GIVEN
    )
    assert other.left_out.tolist() == found.left_out.tolist()
    assert other.noisy.labels.tolist() == found.noisy.labels.tolist()
    alone = read(decided(tmp_path / "e.json", labels[:1]), SPLIT, GIVEN)
    assert alone.trains
    assert not alone.changed.any()


def test_classes_are_merged_and_swapped_after_single_labels(tmp_path):
    labels = [("0/1.png", "apple", "other", "cat")]
    merged = decided(tmp_path / "d.json", labels, [("cat", "bear", "merge"), ("apple", "bear", "apart")])
    found = read(merged, SPLIT, GIVEN)
    assert found.noisy.labels.tolist() == [0, 1, 1, 1, 1]
    assert found.classes == (("cat", "bear", "merge"),)
    assert found.evidence.tolist() == ["", "reviewer", "", "", "classes"]
    swapped = read(decided(tmp_path / "s.json", [], [("apple", "cat", "swap")]), SPLIT, GIVEN)
    assert swapped.noisy.labels.tolist() == [2, 2, 1, 1, 0]


def test_flipped_labels_stay_flipped_under_a_merge(tmp_path):
    found = read(decided(tmp_path / "d.json", [], [("cat", "bear", "merge")]), SPLIT, FLIPPED)
    assert found.noisy.labels.tolist() == [1, 0, 1, 1, 1]
    assert found.noisy.clean.tolist() == [0, 0, 1, 1, 1]  # the 3 that was a bear is right by now
    assert found.noisy.flipped.tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([("cat", "dear", "merge")], r"there is no class dear; did you mean bear"),
        ([("cat", "yak", "merge")], r"of cat and yak one is trained on and the other is tested with"),
        ([("cat", "bear", "merge"), ("bear", "cat", "merge")], r"in two ways; keep one"),
        ([("cat", "cat", "swap")], r"cat and cat are one class"),
        ([("cat", "bear", "swap"), ("bear", "apple", "merge")], r"bear is to be swapped and merged"),
        ([("yak", "xenon", "merge")], r"nothing to change: it gives no label"),
    ],
)
def test_class_decisions_that_do_not_fit_are_named(tmp_path, classes, message):
    with pytest.raises(UserError, match=message):
        read(decided(tmp_path / "d.json", [], classes), SPLIT, GIVEN)
