import pytest

from deconfuse.runs import tables


def test_confusions(found):
    table = tables.confusion_table(found)
    assert table["query_class"].tolist() == ["x", "y", "x"]
    assert table["neighbour_class"].tolist() == ["y", "x", "z"]
    assert table["same_thing"].tolist() == [True, True, False]
    assert table["query"].tolist() == ["5.png", "7.png", "6.png"]


def test_groups_are_classes_with_their_confusions(found):
    table = tables.group_table(found)
    assert table["class"].tolist() == ["x", "y"]
    assert table["confusions"].tolist() == [2, 1]
    assert table["queries"].tolist() == [2, 2]
    assert table["confused_with"].tolist() == ["y", "x"]
    assert table["distance"].tolist() == pytest.approx([0.3, 0.1])


def test_samples_and_relabels(found):
    samples = tables.sample_table(found)
    assert samples["influence_mean"].tolist() == pytest.approx([2, -1, -2, 0, 1])
    assert samples["influence_abs_mean"].tolist() == pytest.approx([2, 1, 4, 0, 1])
    assert samples["harmful_share"].tolist() == pytest.approx([1, 0, 1 / 3, 0, 1])
    assert samples["recommended"].tolist() == ["c", "a", "a", "b", "c"]
    assert samples["true_class"].tolist() == ["c", "a", "a", "b", "b"]
    # Harmful and voted elsewhere: sample 0 alone (2 is helpful on average, 4 keeps its label).
    assert tables.relabel_table(samples)["sample"].tolist() == [0]
