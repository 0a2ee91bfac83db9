import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from deconfuse.attribution.trajectory import Moment, Trajectory, When, agreement, listed, method, report
from deconfuse.data.images import ArrayImages
from deconfuse.data.split import ImageSpec, Part, Split
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.system.errors import UserError

HISTORY = [{"epoch": epoch, "R@1": recall} for epoch, recall in ((2, 0.4), (4, 0.7), (6, 0.7), (8, 0.6))]


@pytest.mark.parametrize(
    ("when", "until", "due"),
    [
        (When(), 9, set()),
        (When("every_n_epochs", 4), 9, {4, 8}),
        (When("every_n_epochs", 4), 3, set()),
        (When("every_n_epochs"), 9, {3, 6, 9}),
        (When("every_n_epochs"), 8, {3, 6}),
        (When("best"), 1, set()),
        (When("best"), 3, {2}),
        (When("best"), 9, {4}),  # the first of two equals
    ],
)
def test_which_epochs_are_due_so_far(when, until, due):
    assert when.due(until, {3, 6, 9}, HISTORY) == due


def test_the_keys_are_read_beside_the_methods_own_and_only_those_that_count_are_told():
    influence = {"radius": 0.02, "when": "best", "every": 3}
    assert method(influence) == {"radius": 0.02}
    assert When.of(influence) == When("best", 3)
    assert When.of({"radius": 1}) == When()
    assert When("last", 7).asked == {}
    assert When("best", 7).asked == {"when": "best"}
    assert When("every_n_epochs", 7).asked == {"when": "every_n_epochs", "every": 7}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"when": "lsat"}, r"^influence.when=lsat is not known; did you mean last\?"),
        ({"when": "best", "every": 0}, r"^influence.every=0 is too small"),
        ({"every": 1.5}, r"^influence.every=1.5 is not a whole number"),
        ({"when": "every_n_epochs", "every": 5}, r"^influence.every=5 names no epoch .* recipe.epochs=5"),
    ],
)
def test_wrong_words_are_named(words, message):
    with pytest.raises(UserError, match=message):
        When(**words).check(5)
    When("best", 9).check(5)


def test_what_is_explained_is_listed_group_by_group():
    pairs = Pairs(torch.tensor([3, 0, 5]), torch.tensor([1, 2, 2]), torch.tensor([0.25, 0.5, 0.75]))
    groups = (torch.tensor([[5, 2], [3, 1]]), torch.tensor([[0, 2]]))
    group, found, distance = listed(Explained(groups, 1.0, "groups.csv", pairs))
    assert group.tolist() == [0, 0, 1]
    assert found.tolist() == [[5, 2], [3, 1], [0, 2]]
    assert distance.tolist() == [0.75, 0.25, 0.5]
    assert [each.shape for each in listed(Explained((), 1.0, "groups.csv", pairs))] == [(0,), (0, 2), (0,)]


def moment(epoch, scores, recall=0.5):
    """Each row of scores explains the pair (row, row + 1)."""
    scores = torch.tensor(scores).reshape(-1, 5)
    rows = torch.arange(len(scores))
    sides = rows, torch.stack([rows, rows + 1], 1), 0.1 * (rows + 1).float()
    return Moment.of(epoch, recall, len(scores) + 1, sides, scores)


@pytest.fixture
def three():
    """Three epochs with something to explain, and one without, of five samples."""
    return Trajectory(
        When("every_n_epochs", 3),
        (
            moment(3, [[1.0, -2, 0, 4, -1], [3, -2, 0, -2, -1]]),  # means 2 -2 0 1 -1
            moment(6, []),
            moment(9, [[4.0, 1, 0, -3, -1]]),
            moment(10, [[3.0, -3, 0, 5, 1]], 0.75),
        ),
    )


def test_a_samples_mean_spread_and_first_harmful_epoch(three):
    found = three.columns()
    means = np.array([[2, -2, 0, 1, -1], [4, 1, 0, -3, -1], [3, -3, 0, 5, 1]], float)
    np.testing.assert_allclose(found["influence_epochs_mean"], means.mean(0))
    np.testing.assert_allclose(found["influence_epochs_std"], means.std(0, ddof=1))
    first = pd.Series(found["first_harmful_epoch"])
    assert first.isna().tolist() == [False, False, True, False, False]
    assert first.dropna().tolist() == [3, 9, 3, 10]
    assert torch.isnan(three.means[1]).all()
    assert three.moments[0].worst.tolist() == [3, 0]
    assert three.moments[0].abs_mean.tolist() == [2, 2, 0, 3, 1]
    assert three.moments[0].line().startswith("epoch 3: R@1 0.500, 3 confusions, 2 explanations, 2 of 5 sam")


def test_one_epoch_alone_has_no_spread_and_none_has_nothing():
    one = Trajectory(When("best"), (moment(1, []), moment(2, [[1.0, -1, 0, 0, 2]])))
    assert np.isnan(one.columns()["influence_epochs_std"]).all()
    assert one.columns()["influence_epochs_mean"].tolist() == [1, -1, 0, 0, 2]
    none = Trajectory(When("best"), (moment(1, []), moment(2, [])))
    assert np.isnan(none.columns()["influence_epochs_mean"]).all()
    assert pd.Series(none.columns()["first_harmful_epoch"]).isna().all()
    flipped = np.array([True, False, False, False, False])
    assert none.table(flipped)["AUROC"].isna().all()
    assert report(none, flipped)["first_harmful"]["flipped"] == {"median": None, "never": 1.0}


def test_an_epochs_row(three):
    flipped = np.array([True, False, False, True, False])
    table = three.table(flipped)
    assert table["epoch"].tolist() == [3, 6, 9, 10]
    assert table["R@1"].tolist() == [0.5, 0.5, 0.5, 0.75]
    assert table["confusions"].tolist() == [3, 1, 2, 2]
    assert table["explained"].tolist() == [2, 0, 1, 1]
    assert table["harmful"].tolist() == [2, 0, 2, 3]
    assert table["harmful_flipped"].tolist() == [2, 0, 1, 2]
    last = [3, -3, 0, 5, 1]
    want = [spearmanr(mean, last).statistic for mean in ([2, -2, 0, 1, -1], [4, 1, 0, -3, -1])]
    np.testing.assert_allclose(table["agreement"], [want[0], np.nan, want[1], 1])
    # Sizes 2 2 0 3 1, flipped 0 and 3: of six (flipped, other) pairs 0 ties with 1, all else is right.
    np.testing.assert_allclose(table["AUROC"][:2], [5.5 / 6, np.nan])
    assert list(three.table(~flipped & flipped)) == list(table)[:6]


def test_agreement_of_what_does_not_vary_is_unknown():
    one = np.array([1.0, 2, 2, 4])
    assert agreement(one, -one) == pytest.approx(-1)
    assert np.isnan(agreement(one, np.ones(4)))
    assert np.isnan(agreement(one, np.full(4, np.nan)))


def test_each_pair_that_was_explained_is_named(three):
    images = ArrayImages(np.zeros((9, 8, 8), np.uint8))
    train = Part(images, np.arange(5), np.array([0, 0, 1, 1, 1]), tuple("abcde"))
    query = Part(images, np.arange(5, 9), np.array([2, 2, 3, 3]), tuple("qrst"))
    split = Split(train, query, query, ("k", "l", "m", "n"), 2, ImageSpec(8, 1, "none"), same_things=())
    table = three.explained_table(split)
    assert table.values.tolist() == [
        [3, 0, "q", "m", "r", "m", pytest.approx(0.1), "d", 4],
        [3, 1, "r", "m", "s", "n", pytest.approx(0.2), "a", 3],
        [9, 0, "q", "m", "r", "m", pytest.approx(0.1), "a", 4],
        [10, 0, "q", "m", "r", "m", pytest.approx(0.1), "d", 5],
    ]


def test_the_report_tells_flipped_samples_from_others(three):
    flipped = np.array([True, True, True, False, False])  # first harmful at 3, at 9 and never
    found = report(three, flipped)
    assert found["epochs"] == [3, 6, 9, 10]
    assert found["when"] == "every_n_epochs"
    assert found["first_harmful"] == {
        "flipped": {"median": 6, "never": pytest.approx(1 / 3)},
        "others": {"median": 6.5, "never": 0},
    }
    assert report(three, ~flipped & flipped)["first_harmful"] == {"all": {"median": 6, "never": 0.2}}
    assert report(None, flipped) is None
