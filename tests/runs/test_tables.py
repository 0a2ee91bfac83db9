from dataclasses import replace

import pytest
import torch

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
    # Probably wrong: sample 0 alone.
    assert tables.relabel_table(samples)["sample"].tolist() == [0]


def test_a_label_that_is_probably_wrong_is_recommended_another_one(found):
    # Sample 1 has label a and votes for it (0.9); so has sample 4 label c, and nobody votes for b there.
    doubt = replace(found.doubt, wrong=torch.tensor([0.0, 0.8, 0.0, 0.5, 0.9]).double())
    votes = replace(found.votes, classes=torch.tensor([[2, 0], [0, 1], [0, 1], [1, 0], [2, 2]]))
    samples = tables.sample_table(replace(found, doubt=doubt, votes=votes))
    assert samples["recommended"].tolist() == ["c", "b", "a", "b", "a"]
    assert samples["vote_recommended"].tolist() == pytest.approx([0.7, 0.1, 0.6, 0.8, 0.0])
    relabels = tables.relabel_table(samples)
    assert relabels["sample"].tolist() == [4, 1]
    assert relabels["p_wrong"].tolist() == pytest.approx([0.9, 0.8])
