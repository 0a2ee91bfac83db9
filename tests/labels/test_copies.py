import numpy as np
import pytest
import torch

from deconfuse.data.images import ArrayImages
from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.duplicates.search import Duplicates
from deconfuse.labels import copies
from deconfuse.labels.relabel import Judgement, Votes
from deconfuse.retrieval.confusion import Pairs
from deconfuse.runs.columns import COLUMNS

IMAGES = ArrayImages(np.zeros((10, 8, 8), np.uint8))
LABELS = np.array([0, 0, 1, 1, 0])
TRAIN = Part(IMAGES, np.arange(5), LABELS, tuple(f"t{i}" for i in range(5)))
QUERY = Part(IMAGES, np.arange(5, 10), np.array([2, 2, 3, 3, 2]), tuple(f"q{i}" for i in range(5)))
SPLIT = Split(TRAIN, QUERY, QUERY, ("a", "b", "x", "y"), 2, ImageSpec(8, 1, "none"))


def groups(*members):
    """Duplicates of groups, each a list of (part, row)."""
    flat = [(part, row, g) for g, group in enumerate(members) for part, row in group]
    part, row, group = (np.array(each) for each in zip(*flat, strict=True))
    n = len(flat)
    return Duplicates(part.astype(object), row, group, np.full(n, 0.01), np.full(n, 3))


FOUND = groups(
    [("train", 0), ("train", 2), ("query", 0)],  # two labels in training, and on both sides
    [("train", 1), ("query", 1)],
    [("query", 2), ("query", 3)],
    [("train", 3), ("train", 3)],
)


def test_groups_are_named_by_what_is_wrong_with_them():
    kinds = copies.kinds(FOUND, SPLIT, LABELS)
    assert kinds.tolist() == ["two labels"] * 3 + ["both sides"] * 2 + ["copies"] * 4
    table = copies.table(FOUND, SPLIT, LABELS)
    assert list(table) == list(COLUMNS["duplicates.csv"])
    assert table.iloc[1].tolist() == [0, "two labels", "train", 2, "t2", "b", 0.01, 3]


def test_recall_is_said_without_the_queries_that_have_a_copy():
    assert copies.copied(FOUND, SPLIT).tolist() == [True, True, True, True, False]
    alone = groups([("train", 1), ("query", 1)])
    assert copies.copied(alone, SPLIT).tolist() == [False, True, False, False, False]
    confusions = Pairs(torch.tensor([1, 4]), torch.tensor([2, 3]), torch.tensor([0.1, 0.2]))
    # Four queries are left, one of them confused.
    assert copies.recall_without(alone, SPLIT, confusions) == {"copied": 1, "R@1": 0.75}
    told = copies.report(alone, SPLIT, LABELS, confusions)
    assert told == {"groups": 1, "two labels": 0, "both sides": 1, "copies": 0, "copied": 1, "R@1": 0.75}
    assert copies.report(None, SPLIT, LABELS, confusions) is None


def test_a_gallery_apart_is_what_queries_are_searched_in():
    gallery = Part(IMAGES, np.arange(2), np.array([2, 3]), ("g0", "g1"))
    split = Split(TRAIN, QUERY, gallery, SPLIT.class_names, 2, SPLIT.image)
    found = groups([("query", 0), ("query", 1)], [("query", 2), ("gallery", 1)])
    assert copies.copied(found, split).tolist() == [False, False, True, False, False]


def test_labels_of_copies_are_as_much_evidence_as_all_else():
    classes = torch.tensor([[0, 1, 2], [0, 1, 2], [3, 1, 0], [1, 0, 2], [0, 1, 2]])
    share = torch.tensor([[0.7, 0.2, 0.1]] * 5)
    labels = torch.tensor([0, 0, 2, 1, 0])
    own = torch.tensor([0.7, 0.7, 0.0, 0.7, 0.7])
    judged = Judgement(torch.arange(5.0), Votes(classes, share, own))
    found = groups([("train", 0), ("train", 1), ("train", 2)], [("train", 4), ("query", 0)])
    new = copies.with_copies(judged, found, labels)
    # Sample 0: half its P, and half of one copy each that says 0 and 2.
    told = dict(zip(new.votes.classes[0].tolist(), new.votes.share[0].tolist(), strict=True))
    assert told == {0: pytest.approx(0.35 + 0.25), 1: pytest.approx(0.1), 2: pytest.approx(0.05 + 0.25)}
    # Sample 2: both copies say 0; its own label 2 was not among those kept.
    told = dict(zip(new.votes.classes[2].tolist(), new.votes.share[2].tolist(), strict=True))
    assert told == {3: pytest.approx(0.35), 1: pytest.approx(0.1), 0: pytest.approx(0.05 + 0.5)}
    assert new.votes.own.tolist() == pytest.approx([0.6, 0.6, 0, 0.7, 0.7])
    assert new.suspicion[0].item() == pytest.approx(np.log(0.3 / 0.6), rel=1e-5)
    assert new.suspicion[2] > 80  # its label has no evidence left
    assert new.suspicion[3:].tolist() == [3, 4]
    assert judged.votes.share[0, 0] == pytest.approx(0.7)  # nothing was changed in place
    assert copies.with_copies(judged, None, labels) is judged


def test_a_label_that_was_not_kept_takes_the_place_of_the_least_likely():
    votes = Votes(
        torch.tensor([[0, 1], [4, 3]]), torch.tensor([[0.6, 0.4], [0.9, 0.1]]), torch.tensor([0.6, 0.9])
    )
    judged = Judgement(torch.zeros(2), votes)
    new = copies.with_copies(judged, groups([("train", 0), ("train", 1)]), torch.tensor([0, 4]))
    assert new.votes.classes.tolist() == [[0, 4], [4, 0]]
    torch.testing.assert_close(new.votes.share, torch.tensor([[0.3, 0.5], [0.45, 0.5]]))
