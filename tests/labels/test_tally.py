import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deconfuse.labels import relabel, tally
from deconfuse.labels.relabel import vote
from deconfuse.labels.tally import by_class
from tests.labels.test_relabel import dense, slow


def drawn(n=61, c=5, dtype=torch.float64):
    random = np.random.default_rng(7)
    labels = random.integers(0, c, n)
    x = random.normal(size=(c, 6))[labels] + random.normal(size=(n, 6)) + 30  # far from the origin
    return torch.from_numpy(x).to(dtype), torch.from_numpy(labels)


@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("held", [10, 2**24])
def test_equals_the_sum_written_out(monkeypatch, k, held):
    monkeypatch.setattr(tally, "CACHED", held)
    x, labels = drawn()
    want = slow(F.normalize(x, dim=1).numpy(), labels.numpy(), k, 5)
    np.testing.assert_allclose(by_class(x, labels, k, 5), want, atol=1e-9)


def test_only_voters_count_and_none_for_itself():
    x, labels = drawn()
    voters = torch.arange(61) % 3 > 0
    found, z = by_class(x, labels, 20, 5, voters), F.normalize(x, dim=1).numpy()
    for i in range(61):
        rows = [i, *(j for j in voters.nonzero()[:, 0].tolist() if j != i)]
        np.testing.assert_allclose(found[i], slow(z[rows], labels.numpy()[rows], 20, 5)[0], atol=1e-9)


def test_copies_and_ties_are_decided_as_by_the_order_of_neighbours():
    x, labels = drawn(40)
    x, labels = torch.cat([x, x, x[:11]]), torch.cat([labels, (labels + 1) % 5, (labels[:11] + 2) % 5])
    x[50] *= 1 + 1e-9  # the same direction
    for k in (1, 2, 6, 30):
        want = dense(vote(x, labels, k, unit=True), 5)  # k is not many: neighbour by neighbour
        torch.testing.assert_close(by_class(x, labels, k, 5), want, rtol=0, atol=1e-9)


def test_rows_that_nearly_coincide_keep_their_digits():
    x, labels = drawn()
    near = 1000 + 1e-3 * x  # directions that are some 1e-7 apart
    want = dense(vote(near, labels, 9, unit=True), 5)
    torch.testing.assert_close(by_class(near, labels, 9, 5), want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("left", [None, 4])
def test_many_neighbours_vote_as_they_do_one_by_one(monkeypatch, dtype, left):
    x, labels = drawn(n=80, dtype=dtype)
    labels[(labels == 4) & (torch.arange(80) > 3)] = 1  # a class that few have among their neighbours
    voters = None if left is None else labels != left
    want = vote(x, labels, 30, voters=voters, unit=True)
    monkeypatch.setattr(relabel, "MANY", 29)
    found = vote(x, labels, 30, voters=voters, unit=True)
    atol = 1e-9 if dtype == torch.float64 else 1e-7  # float32 holds shares to 6e-8
    assert (
        (found.share.dtype, found.own.dtype, found.k)
        == (want.share.dtype, want.own.dtype, want.k)
        == (dtype, dtype, 30)
    )
    torch.testing.assert_close(dense(found, 5), dense(want, 5), rtol=0, atol=atol)
    torch.testing.assert_close(found.own, want.own, rtol=0, atol=atol)
    assert torch.equal(found.best[0], want.best[0])
    assert torch.equal(found.best_but(labels)[0], want.best_but(labels)[0])
    assert torch.equal(found.index, want.index[:, : relabel.SHOWN])
    assert vote(x, labels, 30, voters=voters, unit=True, listed=False).index is None


def test_where_all_of_many_neighbours_agree_there_is_no_second_choice(monkeypatch):
    monkeypatch.setattr(relabel, "MANY", 2)
    x, _ = drawn(n=24, c=3)
    votes = vote(x, torch.where(torch.arange(24) < 1, 1, 0), 3, unit=True)
    label, share = votes.best_but(torch.zeros(24, dtype=torch.long))
    alone = dense(votes, 2)[:, 1] == 0
    assert alone.sum() > 10
    assert (label[alone] == 0).all()
    assert (share[alone] == 0).all()
