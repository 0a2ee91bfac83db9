import json

import numpy as np
import pandas as pd
import pytest
import torch

from deconfuse.report import facts
from deconfuse.retrieval.confusion import Pairs
from tests.findings import found  # noqa: F401 - a fixture

SCORES = torch.tensor([[1.0, -2, 3, 0, 0.5, 2, 4], [-1, -1.5, 0, 0, 0, -3, -2], [0, 5, 0, 0, 0, 6, 0]])


def test_tops_are_the_ends_of_each_row_with_their_scores_and_their_sign():
    told = facts.tops(SCORES)
    assert told["harmful"] == [[6, 2, 5, 0, 4], [], [5, 1]]
    assert told["harmful_scores"] == [[4, 3, 2, 1, 0.5], [], [6, 5]]
    assert [sorted(row) for row in told["helpful"]] == [[1], [0, 1, 5, 6], []]
    assert told["helpful_scores"] == [[-2], [-3, -2, -1.5, -1], []]


def test_of_many_samples_ten_are_told_a_side():
    scores = torch.randn(3, 57, generator=torch.Generator().manual_seed(0))
    told = facts.tops(scores)
    for i, row in enumerate(scores.numpy()):
        assert told["harmful"][i] == np.argsort(-row)[:10].tolist()
        assert told["helpful"][i] == np.argsort(row)[:10].tolist()


def test_what_a_sample_harms_are_the_largest_of_its_column_in_any_tiling(monkeypatch):
    scores = torch.randn(23, 9, generator=torch.Generator().manual_seed(0))
    whole = list(facts.harmed(scores))
    for k, (rows, values) in enumerate(whole):
        column = scores[:, k].numpy()
        order = [i for i in np.argsort(-column)[:10].tolist() if column[i] > 0]
        assert rows == order
        assert values == pytest.approx(column[order], rel=1e-4)
    monkeypatch.setattr(facts, "BLOCK", 50)  # two columns at a time
    assert list(facts.harmed(scores)) == whole
    assert list(facts.harmed(scores.numpy())) == whole


def test_neighbours_come_with_the_distance_of_the_vote():
    e = torch.nn.functional.normalize(torch.randn(11, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    index = torch.stack([torch.arange(11).roll(-k) for k in range(1, 10)], 1)
    for i, (rows, distance) in enumerate(facts.near(e, index)):
        assert rows == [(i + k) % 11 for k in range(1, 9)]
        assert distance == pytest.approx([((e[i] - e[j]) ** 2).sum().item() for j in rows], rel=1e-3)


def test_confused_classes_are_counted_both_ways_and_the_larger_comes_first(found):  # noqa: F811
    # Queries 0, 2, 1 of classes x, y, x have neighbours 2, 1, 3 of classes y, x, y.
    assert facts.edges(found) == [[2, 3, 2, 1, 0]]


def test_neighbours_far_from_the_origin_have_the_distance_of_float64():
    z = (torch.randn(11, 4, generator=torch.Generator().manual_seed(0)) + 5000) * 1e15
    e = z.double() / z.double().norm(dim=1, keepdim=True)
    index = torch.stack([torch.arange(11).roll(-k) for k in range(1, 10)], 1)
    for i, (rows, distance) in enumerate(facts.near(z, index)):
        # Four digits are kept; in float32 the unit rows differ by 1e-4 with an error of 1e-7.
        assert distance == pytest.approx([((e[i] - e[j]) ** 2).sum().item() for j in rows], rel=1e-3)


def test_what_corrections_changed_is_told_by_rows(found):  # noqa: F811
    changes = pd.DataFrame(
        [
            ("vanished", "7.png", "9.png", ""),
            ("appeared", "8.png", "", "10.png"),
            ("moved", "9.png", "8.png", "7.png"),
        ],
        columns=["change", "query", "neighbour_before", "neighbour_after"],
    )
    told = facts.corrections(found, {"changed": 1}, changes)
    assert told == {"changed": 1, "shown": {"vanished": [[0, 2]], "appeared": [[1, 3]], "moved": [[2, 1]]}}
    many = facts.corrections(found, {}, pd.concat([changes] * 20))
    assert {fate: len(rows) for fate, rows in many["shown"].items()} == dict.fromkeys(told["shown"], 12)
    assert facts.corrections(found, None, None) is None
    listed = pd.DataFrame(
        {"path": found.split.train.names[::-1], "old_label": ["b", "b", "a", "a", "a", "a", "b"]}
    )
    assert facts.labels_before(found, listed) == {0: 1, 4: 0}


def test_numbers_are_as_the_tables_have_them():
    values = torch.tensor([1 / 3, float("nan"), float("inf"), 2])
    assert facts.plain(values) == [0.3333333, None, None, 2.0]
    assert json.dumps(facts.plain(values)) == "[0.3333333, null, null, 2.0]"


def test_a_curve_of_many_samples_has_its_ends_and_two_hundred_points():
    random = np.random.default_rng(0)
    flipped = random.random(1003) < 0.1
    told = facts.curve(random.random(1003), flipped)
    assert len(told["checked"]) == len(told["found"]) == 200
    assert (told["checked"][0], told["found"][0]) == (0, 0)
    assert (told["checked"][-1], told["found"][-1]) == (1, 1)
    assert told["checked"] == sorted(told["checked"])


def test_a_pair_knows_its_mirror_image():
    pairs = Pairs(torch.tensor([0, 1, 2, 3]), torch.tensor([1, 0, 1, 9]), torch.arange(4.0))
    assert facts.pairs(pairs, None, True)["mirror"] == [1, 0, -1, -1]
    assert facts.pairs(pairs, None, False)["mirror"] == [-1] * 4  # rows of two different sides


@pytest.mark.parametrize(
    ("suggestions", "share", "lean", "worth"),
    [
        (2, 0.14, 1, False),
        (3, 0.6, 1, False),
        (4, 0.2, 0.75, True),
        (9, 0.12, 1, False),
        (9, 0.5, 0.6, False),
    ],
)
def test_a_merge_needs_a_count_and_a_share_that_agrees(suggestions, share, lean, worth):
    row = {"suggestions": suggestions, "share": share, "lean": lean}
    assert facts.worth_a_merge(row) is worth
