from pathlib import Path

import numpy as np
import pytest
import torch

from deconfuse.attribution.head import Training
from deconfuse.attribution.look import Frozen, Seen
from deconfuse.corrections.corrections import Corrections
from deconfuse.data.images import ArrayImages
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.labels.effect import TABLE, changes, compare, report, tables
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.retrieval.confusion import find
from deconfuse.retrieval.metrics import metrics
from deconfuse.retrieval.queries import Queries
from deconfuse.runs.columns import COLUMNS

CLASSES = ("a", "b", "x", "y", "z")


def split_of(labels):
    n = len(labels)
    images = ArrayImages(np.zeros((n + 4, 8, 8), np.uint8))
    train = Part(images, np.arange(4), np.array([0, 0, 1, 1]), ("0", "1", "2", "3"))
    query = Part(images, np.arange(4, n + 4), np.array(labels), tuple(f"q{i}" for i in range(n)))
    return Split(train, query, query, CLASSES, 2, ImageSpec(8, 1, "none"))


def seen(split, degrees):
    """Every test sample on the unit circle."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    z, labels = torch.stack([angle.cos(), angle.sin()], 1), torch.from_numpy(split.query.labels)
    test = Queries(z, z, labels, labels, True)
    found = metrics(test, ranks=(1,))
    training = Training(z, labels, torch.eye(2).double(), torch.zeros(2).double(), ProxyNCA(5, 2))
    frozen = Frozen(training, z, z, Path())
    return Seen(Path(), frozen, test, find(test), found)


def chord(degrees):
    """d of two unit vectors: 2 - 2 cos."""
    return 2 - 2 * np.cos(np.deg2rad(degrees))


SPLIT = split_of([2, 2, 3, 3, 4, 4])
#                       x0  x1   y2   y3   z4   z5
BEFORE = seen(SPLIT, [0, 10, 12, 100, 102, 200])
AFTER = seen(SPLIT, [0, 40, 100, 104, 205, 200])


def test_each_fate_with_its_pair_and_distances():
    # Before: x0-x1, x1-y2, y2-x1, y3-z4, z4-y3, z5-z4. After: x0-x1, x1-x0, y2-y3, y3-y2, z4-z5, z5-z4.
    table = changes(BEFORE, AFTER, SPLIT)
    assert list(table) == list(COLUMNS["changes.csv"])
    assert table["change"].tolist() == ["vanished"] * 4
    assert table["query"].tolist() == ["q1", "q2", "q3", "q4"]
    assert table["neighbour_before"].tolist() == ["q2", "q1", "q4", "q3"]
    assert table["class_before"].tolist() == ["y", "x", "z", "y"]
    assert set(table["neighbour_after"]) == set(table["class_after"]) == {""}
    assert table["distance_before"].tolist() == pytest.approx([chord(2)] * 4)
    assert table["distance_after"].tolist() == pytest.approx([chord(60)] * 2 + [chord(101)] * 2)
    back = changes(AFTER, BEFORE, SPLIT)
    assert back["change"].tolist() == ["appeared"] * 4
    assert back["class_after"].tolist() == ["y", "x", "z", "y"]
    assert set(back["class_before"]) == {""}
    # An appeared pair is told by the distances of the pair there is now.
    assert back["distance_after"].tolist() == pytest.approx([chord(2)] * 4)


def test_moved_is_taken_for_another_class_and_what_stays_is_no_row():
    split = split_of([2, 2, 3, 4])
    one, other = seen(split, [0, 90, 5, 95]), seen(split, [0, 90, 95, 5])
    # x0: y2 -> z3, x1: z3 -> y2, y2: x0 -> x1 (one class: stays), z3 likewise.
    table = changes(one, other, split)
    assert table["change"].tolist() == ["moved", "moved"]
    assert table[["class_before", "class_after"]].values.tolist() == [["y", "z"], ["z", "y"]]
    assert table["distance_after"].tolist() == pytest.approx([chord(95), chord(85)], rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_recall_changes_by_vanished_less_appeared(seed):
    random = np.random.default_rng(seed)
    split = split_of(np.sort(random.integers(2, 5, 23)).tolist())
    one, other = (seen(split, random.uniform(0, 360, 23).tolist()) for _ in range(2))
    fates = changes(one, other, split)["change"].value_counts()
    alone = (np.bincount(split.query.labels)[split.query.labels] == 1).sum()
    gain = (fates.get("vanished", 0) - fates.get("appeared", 0)) / (23 - alone)
    assert other.retrieval["R@1"] - one.retrieval["R@1"] == pytest.approx(gain, abs=1e-6)
    assert fates.sum() > 5


def corrected(clean):
    given = NoisyLabels(np.array([0, 0, 1, 1]), np.array(clean))
    new = NoisyLabels(np.array([1, 0, 0, 0]), given.clean)
    return Corrections(
        "d.json",
        given,
        new,
        np.array(["list", "", "list", "list"], object),
        2,
        np.array([False, True, False, False]),
    )


def test_the_report_counts_right_and_wrong_where_that_is_known():
    comparison = compare(corrected([1, 0, 0, 1]), BEFORE, AFTER, SPLIT)
    found = report(comparison)
    assert (found["changed"], found["right"], found["wrong"], found["already"]) == (3, 2, 1, 2)
    assert (found["vanished"], found["appeared"], found["moved"]) == (4, 0, 0)
    assert (found["before"]["confusions"], found["after"]["confusions"]) == (4, 0)
    assert (found["before"]["R@1"], found["after"]["R@1"]) == (pytest.approx(2 / 6), 1)
    assert found["vanished_most"] == [
        {"classes": ["x", "y"], "confusions": 2},
        {"classes": ["y", "z"], "confusions": 2},
    ]
    assert found["appeared_most"] == []
    assert tables(comparison)["changes.csv"] is comparison.changes
    unknown = report(compare(corrected([0, 0, 1, 1]), BEFORE, AFTER, SPLIT))
    assert (unknown["right"], unknown["wrong"]) == (None, None)


def test_without_corrections_nothing_is_said():
    assert report(None) is None
    assert tables(None) == {}


def test_the_columns_are_those_that_columns_json_describes():
    assert tuple(COLUMNS["changes.csv"]) == TABLE
