import numpy as np
import pytest
import torch

from deconfuse.labels.relabel import Votes
from deconfuse.report import examples


def test_typical_samples_are_nearest_to_the_mean_of_those_not_doubted():
    random = torch.Generator().manual_seed(0)
    z = torch.randn(23, 5, generator=random) + 3
    labels, doubted = np.arange(23) % 3, np.arange(23) % 7 == 0
    found = examples.typical(z * torch.rand(23, 1, generator=random), labels, doubted, 4)
    e = (z / z.norm(dim=1, keepdim=True)).double().numpy()
    for c in range(3):
        mine = [i for i in range(23) if labels[i] == c and not doubted[i]]
        mean = e[mine].mean(0)
        assert found[c] == sorted(mine, key=lambda i: -float(e[i] @ mean))[:6]
    assert found[3] == []
    # Where all are doubted, they are what there is.
    assert sorted(examples.typical(z[:4], np.zeros(4, int), np.ones(4, bool), 1)[0]) == [0, 1, 2, 3]


def test_likely_labels_are_the_largest_votes_each_once():
    classes = torch.tensor([[3, 3, 1, 0, 2, 4, 5], [2, 2, 2, 2, 2, 2, 2]])
    share = torch.tensor([[0.4, 0.4, 0.1, 0.1, 0.2, 0.15, 0.05], [float("nan")] * 7])
    votes = Votes(classes, share, torch.tensor([0.1, float("nan")]))
    first, second = examples.likely(votes)
    assert first == ([3, 2, 4, 0, 1], [0.4, 0.2, 0.15, 0.1, 0.1])
    assert second == ([], [])


@pytest.mark.parametrize("same", [True, False])
def test_neighbours_of_queries_are_those_of_all_distances(same):
    random = torch.Generator().manual_seed(1)
    query = torch.randn(11, 4, generator=random)
    gallery = query if same else torch.randn(6, 4, generator=random)
    twins = None if same else torch.tensor([2, *[-1] * 10])
    rows, distances = examples.neighbours_of_queries(query, gallery, same, twins)
    e, f = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (query, gallery))
    d = torch.cdist(e, f) ** 2
    if same:
        d.fill_diagonal_(torch.inf)
    else:
        d[0, 2] = torch.inf
    for i in range(11):
        wanted = [j for j in d[i].argsort().tolist() if d[i, j] < torch.inf][:8]
        assert rows[i] == wanted
        assert distances[i] == pytest.approx(d[i, wanted].tolist(), rel=1e-3)


def test_a_single_sample_has_no_neighbour():
    assert examples.neighbours_of_queries(torch.ones(1, 3), torch.ones(1, 3), True, None) == ([[]], [[]])


def test_a_recommended_label_comes_before_the_votes():
    votes = Votes(torch.tensor([[3, 1], [0, 2]]), torch.tensor([[0.7, 0.3], [0.6, 0.4]]), torch.ones(2))
    found = list(examples.likely(votes, torch.tensor([1, 5])))
    assert found == [([1, 3], [0.3, 0.7]), ([5, 0, 2], [0.0, 0.6, 0.4])]
