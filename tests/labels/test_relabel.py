import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deconfuse.labels import relabel
from deconfuse.labels.relabel import (
    Votes,
    candidates,
    check,
    is_many,
    neighbourhood,
    others,
    recommended_right,
    recommended_right_all,
    vote,
    vote_on,
)
from deconfuse.labels.tally import tally
from deconfuse.system.errors import UserError
from tests.drawn import points


def slow(z, labels, k, c):
    result = np.zeros((len(z), c))
    for i in range(len(z)):
        found = sorted((np.linalg.norm(z[i] - z[j]), j) for j in range(len(z)) if j != i)[:k]
        total = sum(math.exp(-d) for d, _ in found)
        for d, j in found:
            result[i, labels[j]] += math.exp(-d) / total
    return result


def dense(votes, c):
    return torch.zeros(len(votes.own), c, dtype=votes.share.dtype).scatter(1, votes.classes, votes.share)


@pytest.mark.parametrize("tile", [1, 5, None])
def test_equals_algorithm_1_written_out(tile, monkeypatch):
    if tile is not None:  # samples at a time, of 18 neighbours' numbers each
        monkeypatch.setattr("deconfuse.labels.relabel.TILE_BYTES", 8 * 18 * tile)
    z = np.random.default_rng(0).normal(size=(23, 4))
    labels = np.random.default_rng(1).integers(0, 5, 23)
    want = slow(z, labels, 6, 5)
    votes = vote(torch.from_numpy(z), torch.from_numpy(labels), 6)
    np.testing.assert_allclose(dense(votes, 5), want, atol=1e-9)
    np.testing.assert_allclose(votes.own, want[np.arange(23), labels], atol=1e-9)
    label, share = votes.best
    assert np.array_equal(label, want.argmax(1))
    np.testing.assert_allclose(share, want.max(1), atol=1e-9)
    without = want.copy()
    without[np.arange(23), labels] = -1
    other = without.max(1) > 0
    assert np.array_equal(votes.best_but(torch.from_numpy(labels))[0][other], without.argmax(1)[other])


def test_golden_votes(golden):
    data = golden("softtriple")
    z = torch.from_numpy(data["train_features"]) @ torch.from_numpy(data["weight"]).T
    labels = torch.from_numpy(data["train_labels"])
    assert neighbourhood(labels) == int(data["knn_k"])
    votes = vote(z + torch.from_numpy(data["bias"]), labels)
    assert np.abs(dense(votes, 40).numpy() - data["knn_prob"]).max() < 1e-5


def test_far_neighbours_do_not_underflow():
    z = torch.tensor([[0.0], [2000.0], [4100.0]])
    votes = vote(z, torch.tensor([0, 1, 1]), 2)
    assert torch.isfinite(votes.share).all()
    assert votes.best[0].tolist() == [1, 0, 1]


def test_where_all_neighbours_agree_there_is_no_second_choice():
    votes = vote(torch.randn(6, 2), torch.zeros(6, dtype=torch.long))
    label, share = votes.best_but(torch.zeros(6, dtype=torch.long))
    assert label.tolist() == [0] * 6
    assert share.tolist() == [0] * 6


def test_recommended_right_counts_as_table_2_does():
    # Two tight clusters; sample 0 lies in cluster 0 but says 1, sample 3 lies in cluster 1 and says 0.
    z = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    labels, clean = torch.tensor([1, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 1])
    votes = vote(z, labels, 2)
    everything = torch.ones(6, dtype=torch.bool)
    assert recommended_right(votes, labels, clean, everything) == 1.0
    # Where the vote only repeats the flipped label, the second choice counts.
    stubborn = vote(z, torch.tensor([1, 1, 0, 0, 1, 1]), 2)
    assert recommended_right(stubborn, torch.tensor([1, 1, 0, 0, 1, 1]), clean, everything) == 1.0
    assert recommended_right(votes, labels, clean, ~everything) is None
    assert recommended_right(votes, clean, clean, everything) is None


def test_votes_in_the_processors_memory_are_the_same():
    votes = vote(torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 2, 2]), 3)
    here, bare = votes.cpu(), Votes(votes.classes, votes.share, votes.own).cpu()
    for name in ("classes", "share", "own", "index"):
        assert torch.equal(getattr(here, name), getattr(votes, name)), name
    assert (here.k, bare.k, bare.index) == (3, None, None)


@pytest.mark.parametrize(
    ("budget", "k", "c", "sizes"),
    # 8 bytes for each class or three times for each neighbour, whichever are more.
    [
        (8 * 18 * 5, 6, 5, [5, 5, 5, 5, 3]),
        (8 * 18 * 6 - 1, 6, 5, [5, 5, 5, 5, 3]),
        (8 * 20 * 11, 6, 20, [11, 11, 1]),
        (1, 6, 5, [1] * 23),
        (2**26, 6, 5, [23]),
    ],
)
def test_as_many_samples_hear_votes_at_a_time_as_memory_allows(monkeypatch, budget, k, c, sizes):
    z, labels, seen = torch.randn(23, 4), torch.arange(23) % c, []

    def watched(squared, *rest):
        seen.append(len(squared))
        return tally(squared, *rest)

    monkeypatch.setattr(relabel, "TILE_BYTES", budget)
    monkeypatch.setattr(relabel, "tally", watched)
    vote(z, labels, k)
    vote_on(torch.arange(23), z, labels, k)
    assert seen == sizes * 2


def test_votes_are_added_up_by_class_for_more_than_256_neighbours_of_no_more_classes():
    asked = [(256, 5), (257, 5), (257, 257), (257, 258)]
    assert [is_many(*each) for each in asked] == [False, True, True, False]


@pytest.mark.parametrize("k", [4, 30])
def test_only_voters_vote(k):
    z = np.random.default_rng(2).normal(size=(23, 4))
    labels = np.random.default_rng(3).integers(0, 5, 23)
    voters = np.random.default_rng(4).random(23) < 0.6
    votes = vote(torch.from_numpy(z), torch.from_numpy(labels), k, voters=torch.from_numpy(voters))
    found = dense(votes, 5)
    for i in range(23):
        rows = [i, *(j for j in np.flatnonzero(voters) if j != i)]
        want = slow(z[rows], labels[rows], min(k, voters.sum() - 1), 5)[0]
        np.testing.assert_allclose(found[i], want, atol=1e-9)


def test_recommended_right_all_counts_every_flipped_sample_once():
    votes = Votes(
        torch.tensor([[1, 0], [0, 1], [2, 0], [2, 1]]),
        torch.tensor([[0.7, 0.3], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]]),
        torch.tensor([0.3, 0.9, 0.6, 0.4]),
    )
    # Flipped: 0 (voted 1, right), 2 (its own label leads, the next is right), 3 (voted 2, wrong).
    labels, clean = torch.tensor([0, 0, 2, 1]), torch.tensor([1, 0, 0, 0])
    assert recommended_right_all(votes, labels, clean) == pytest.approx(2 / 3)
    assert recommended_right_all(votes, clean, clean) is None


def test_one_sample_is_refused():
    with pytest.raises(UserError, match="at least two"):
        vote(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    with pytest.raises(UserError, match="at least two"):
        vote(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long), voters=torch.tensor([True, False, False]))
    with pytest.raises(UserError, match="at least two"):
        vote_on(torch.tensor([0]), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    assert neighbourhood(torch.zeros(1, dtype=torch.long)) == 1


def test_two_samples_and_two_voters_are_enough():
    z = torch.tensor([[0.0], [1.0], [5.0]])
    for found in (vote(z[:2], torch.tensor([0, 1])), vote_on(torch.arange(2), z[:2], torch.tensor([0, 1]))):
        assert found.best[0].tolist() == [1, 0]
        assert found.best[1].tolist() == [1, 1]
    # Each voter hears the other; sample 2 hears the nearer one only, as K is at most the other voters.
    found = vote(z, torch.tensor([0, 1, 2]), voters=torch.tensor([True, True, False]))
    assert found.index.tolist() == [[1], [0], [1]]
    assert found.classes.tolist() == [[1], [0], [1]]


def test_candidates_hear_as_many_neighbours_as_all_do():
    """Without k both take the median class size, here 3: a sample's vote for its own label says so."""
    z = torch.arange(12.0).square()[:, None]
    labels = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor([2, 3, 7]))
    found, want = vote_on(torch.arange(12), z, labels), vote(z, labels)
    assert want.classes.shape == (12, 3)
    torch.testing.assert_close(dense(found, 3), dense(want, 3))
    # Sample 2, at 4, class 1: the nearest three are 1 and 0, of class 0 at distances 3 and 4, and 3 at 5.
    near = [math.exp(-3), math.exp(-4), math.exp(-5)]
    assert found.own[2].item() == pytest.approx(near[2] / sum(near), rel=1e-5)


def test_a_sample_that_is_not_found_among_its_many_copies_hears_the_first_of_them():
    squared, index = others(torch.tensor([5, 1]), torch.zeros(6, 2), 2)
    assert index.tolist() == [[0, 1], [0, 2]]
    assert squared.tolist() == [[0, 0], [0, 0]]


def test_neighbourhood_is_the_median_class_size_within_reason():
    assert neighbourhood(torch.tensor([0, 0, 0, 2, 2, 5])) == 2
    assert neighbourhood(torch.zeros(3, dtype=torch.long)) == 2
    sizes = torch.tensor([1, 2, 9])  # their mean is 4
    assert neighbourhood(torch.arange(3).repeat_interleave(sizes)) == 2
    # Of an even number of classes the smaller of the two in the middle; a class without a sample is none.
    assert neighbourhood(torch.tensor([0, 2, 4, 6]).repeat_interleave(torch.tensor([8, 1, 3, 5]))) == 3


@given(points(least=2), st.one_of(st.none(), st.integers(1, 12)), st.floats(0, 1e4))
def test_votes_of_any_labels_are_shares(drawn, k, scale):
    """Also with one class, more neighbours asked for than there are, points that coincide or are far off."""
    z, labels = drawn
    votes = vote(scale * z, labels, k)
    n, capped = len(z), min(k or neighbourhood(labels), len(z) - 1)
    assert votes.classes.shape == votes.share.shape == (n, capped)
    whole = dense(votes, int(labels.max()) + 1)
    torch.testing.assert_close(whole.sum(1), torch.ones_like(whole[:, 0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(votes.own, whole.gather(1, labels[:, None])[:, 0], rtol=0, atol=1e-5)
    label, share = votes.best
    assert share.min() >= 1 / len(labels.unique()) - 1e-5
    if len(labels.unique()) == 1:
        assert torch.equal(label, labels)
        assert votes.best_but(labels)[1].tolist() == [0] * n
    assert recommended_right(votes, labels, labels, torch.ones(n, dtype=torch.bool)) is None


def test_candidates_are_the_most_harmful_in_the_order_of_the_training_set():
    influence = torch.tensor([0.0, 3, -1, 5, 3, 4, 0.5])
    assert candidates(influence, 3).tolist() == [1, 3, 5]
    assert candidates(influence, 99).tolist() == [1, 3, 4, 5, 6]
    assert candidates(torch.full((4,), torch.nan), 2).tolist() == []


@pytest.mark.parametrize("k", [1, 6, 22, 40])
def test_votes_on_candidates_are_those_that_all_would_get(k):
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(23, 4)))
    z[[5, 6, 7]] = z[4].clone()  # a sample among its equals is still no neighbour of its own
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 5, 23))
    labels[4:8] = 2  # which of them comes first is rounding's to say
    asked = torch.tensor([0, 4, 5, 7, 19])
    want, found = vote(z, labels, k), vote_on(asked, z, labels, k, tile=2)
    assert torch.allclose(dense(found, 5)[asked], dense(want, 5)[asked], atol=1e-9)
    assert torch.allclose(found.own[asked], want.own[asked], atol=1e-9)
    assert torch.equal(found.best[0][asked], want.best[0][asked])
    rest = torch.ones(23, dtype=torch.bool).index_fill(0, asked, False)
    assert found.own[rest].isnan().all()
    label, share = found.best
    assert torch.equal(label[rest], labels[rest])
    assert share[rest].isnan().all()
    assert torch.equal(found.best_but(labels)[0][rest], labels[rest])
    # What was not asked counts neither as right nor as wrong.
    clean = (labels + 1) % 5
    second = want.best_but(labels)[0][asked]
    assert recommended_right_all(found, labels, clean) == (second == clean[asked]).float().mean().item()


def test_of_many_labels_the_most_likely_are_kept_for_candidates():
    z, labels = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).double(), torch.arange(60) % 20
    want, found = vote(z, labels, 30), vote_on(torch.arange(60), z, labels, 30)
    assert found.classes.shape == (60, 8)
    torch.testing.assert_close(found.share, dense(want, 20).topk(8, dim=1).values)


def test_votes_that_memory_cannot_hold_are_refused_before_training():
    labels = torch.arange(10**7) // 2  # as many neighbours of fewer classes are added up by class
    with pytest.raises(
        UserError, match=r"^the votes of 10000000 samples with 4000000 neigh.*candidates=10000"
    ):
        check(labels, 4 * 10**6, None)
    check(labels, None, 10)
    check(labels, 1, None)
    check(torch.tensor([0, 10**13]), 10**12, None)  # a sample has no more neighbours than there are others
    with pytest.raises(UserError, match=r"^candidates=0 is too small; give 1 or more$"):
        check(labels, 1, 0)


@pytest.mark.parametrize(("k", "needed"), [(20, 36 * 1000 * 20), (300, 36 * 1000 * 3)])
def test_votes_take_36_bytes_for_each_neighbour_or_where_many_vote_for_each_class(monkeypatch, k, needed):
    labels, there = torch.arange(1000) % 3, {"SC_PAGE_SIZE": 4, "SC_PHYS_PAGES": needed // 4}
    monkeypatch.setattr(relabel.os, "sysconf", lambda name: there[name])
    check(labels, k, None)
    there["SC_PHYS_PAGES"] -= 1
    with pytest.raises(UserError, match=r"^the votes of 1000 samples"):
        check(labels, k, None)


def far_off():
    """200 samples of ten classes, and what is done to them: a large common part, scales, also row by row."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 20)
    x = (random.normal(size=(10, 32))[labels] + 1.2 * random.normal(size=(200, 32))).astype(np.float32)
    scales = 10 ** random.uniform(-18, 18, size=(200, 1))
    changed = [x + np.float32(offset) for offset in (300, 1000, 5000)]
    return labels, [*changed, (x * scales).astype(np.float32), x * np.float32(1e-18), x * np.float32(1e18)]


@pytest.mark.parametrize("case", range(6))
def test_votes_on_directions_are_those_of_float64(case):
    """Of the float32 numbers that were given; neighbours that float32 confuses are told apart, also ties of
    two labels with as many neighbours each."""
    labels, cases = far_off()
    x = cases[case].astype(np.float64)
    e = x / np.linalg.norm(x, axis=1, keepdims=True)
    want = slow(e, labels, 6, 10)
    distance = np.linalg.norm(e[:, None] - e, axis=2)
    np.fill_diagonal(distance, np.inf)
    y, z = torch.from_numpy(labels), torch.from_numpy(cases[case])
    votes = vote(z, y, 6, unit=True)
    assert np.array_equal(votes.index, np.argsort(distance, axis=1, kind="stable")[:, :6])
    # A weight exp(-d) is off by some 1e-6 of d, as the search promises no more than d needs; then float32.
    np.testing.assert_allclose(dense(votes, 10), want, atol=2e-6)
    assert np.array_equal(votes.best[0], want.argmax(1))
    asked = vote_on(torch.arange(200), z, y, 6, unit=True)
    np.testing.assert_allclose(asked.own, want[np.arange(200), labels], atol=2e-6)
    assert np.array_equal(asked.best[0], want.argmax(1))
    voters = torch.arange(200) % 3 > 0
    some = vote(z, y, 6, voters=voters, unit=True)
    distance[:, ~voters.numpy()] = np.inf
    assert np.array_equal(some.index, np.argsort(distance, axis=1, kind="stable")[:, :6])


@pytest.mark.parametrize("tile", [1, 5, None])
def test_fair_votes_are_divided_by_the_size_of_each_class(tile, monkeypatch):
    if tile is not None:
        monkeypatch.setattr("deconfuse.labels.relabel.TILE_BYTES", 8 * 18 * tile)
    z = np.random.default_rng(0).normal(size=(23, 4))
    labels = np.array([0] * 14 + [1] * 6 + [2] * 3)
    want = slow(z, labels, 6, 3)
    for i in range(23):
        size = np.bincount(labels) - (np.arange(3) == labels[i])
        want[i] /= size
        want[i] /= want[i].sum()
    args = torch.from_numpy(z), torch.from_numpy(labels), 6
    votes = vote(*args, fair=True)
    np.testing.assert_allclose(dense(votes, 3), want, atol=1e-9)
    asked = vote_on(torch.arange(23), *args, fair=True)
    np.testing.assert_allclose(asked.own, want[np.arange(23), labels], atol=1e-9)


def test_a_large_class_does_not_outvote_a_small_one():
    """Classes of 20 to 800 samples that overlap: the share of a class that is voted for another one."""
    random = np.random.default_rng(0)
    sizes = [20, 60, 200, 800]
    labels = torch.from_numpy(np.repeat(np.arange(4), sizes))
    means = random.normal(size=(4, 8))
    means *= 2.2 / np.linalg.norm(means, axis=1, keepdims=True)
    z = torch.from_numpy(means[labels] + random.normal(size=(len(labels), 8)))

    def lost(fair):
        voted = vote(z, labels, unit=True, fair=fair).best[0] != labels
        return [voted[labels == c].double().mean().item() for c in range(4)]

    paper, fair = lost(False), lost(True)
    assert paper[0] > 0.6
    assert fair[0] < paper[0] / 2
    assert max(fair) < max(paper)
