import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from deconfuse.retrieval.confusion import retrieve
from deconfuse.retrieval.metrics import metrics, nmi
from deconfuse.retrieval.neighbours import PRECISE, TILE, nearest
from deconfuse.retrieval.queries import Queries
from tests.drawn import points

PROMISED = {"rtol": PRECISE, "atol": 0}  # of a distance; the order is exact


def slow_nearest(query, gallery, k, same):
    distances, indices = [], []
    for i, row in enumerate(query.tolist()):
        found = sorted(
            (sum((a - b) ** 2 for a, b in zip(row, other, strict=True)), j)
            for j, other in enumerate(gallery.tolist())
            if not (same and i == j)
        )[:k]
        distances.append([d for d, _ in found])
        indices.append([j for _, j in found])
    return torch.tensor(distances, dtype=torch.float64), torch.tensor(indices)


@pytest.mark.parametrize("tile", [TILE, (1, 1), (5, 3), (3, 5), (23, 4), (4, 23)])
@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize("same", [True, False])
def test_nearest_equals_a_sorted_list_for_any_tile(tile, k, same):
    query = torch.randn(23, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gallery = query if same else torch.randn(17, 6, dtype=torch.float64)
    distance, index = nearest(query, gallery, k, same=same, tile=tile)
    want_distance, want_index = slow_nearest(query, gallery, k, same)
    assert torch.equal(index, want_index)
    torch.testing.assert_close(distance, want_distance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tile", [TILE, (5, 3), (3, 5)])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_ties_go_to_the_smaller_index_for_any_tile(tile, k):
    # Points of a coarse grid, each of them several times: sums of small whole numbers are exact.
    random = torch.Generator().manual_seed(1)
    points = torch.randint(0, 3, (29, 2), generator=random).float()
    others = torch.randint(0, 3, (19, 2), generator=random).float()
    for query, gallery, same in ((points, points, True), (points, others, False)):
        distance, index = nearest(query, gallery, k, same=same, tile=tile)
        want_distance, want_index = slow_nearest(query, gallery, k, same)
        assert torch.equal(index, want_index)
        torch.testing.assert_close(distance.double(), want_distance, **PROMISED)


def test_ties_go_to_the_smaller_index_and_k_is_capped():
    points = torch.tensor([[0.0, 0], [1, 0], [-1, 0], [0, 1]])
    distance, index = nearest(points, points, 99, same=True)
    assert index[0].tolist() == [1, 2, 3]
    assert distance[0].tolist() == [1, 1, 1]
    assert index.shape == (4, 3)


def test_where_nothing_can_be_near_nothing_is():
    one = torch.ones(1, 2)
    assert [x.shape for x in nearest(one, one, 3, same=True)] == [(1, 0), (1, 0)]
    assert nearest(one[:0], one, 3, same=False)[1].shape == (0, 1)


def test_more_ties_than_k_still_go_to_the_smaller_index():
    points = torch.zeros(100, 3)
    _, index = nearest(points, points, 5, same=True)
    assert index[0].tolist() == [1, 2, 3, 4, 5]
    assert index[3].tolist() == [0, 1, 2, 4, 5]
    assert nearest(points, points, 1, same=True)[1][:, 0].tolist() == [1] + [0] * 99


def test_the_nearest_of_many_is_the_first_of_more():
    # What a run calls confusions (k = 1) and R@1 (k = 8) are then the same queries.
    random = torch.Generator().manual_seed(2)
    z = torch.nn.functional.normalize(torch.randn(3001, 37, generator=random))
    assert torch.equal(nearest(z, z, 1, same=True)[1], nearest(z, z, 8, same=True)[1][:, :1])


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("k", [257, 300, 640])
def test_many_neighbours_are_ranked_by_whole_rows(k, same, monkeypatch):
    monkeypatch.setattr("deconfuse.retrieval.neighbours.HELD", 60_000)  # a few rows at a time
    random = torch.Generator().manual_seed(6)
    query = torch.randint(0, 9, (641, 3), generator=random).float()  # exact, with many ties
    gallery = query if same else torch.randint(0, 9, (2100, 3), generator=random).float()
    distance, index = nearest(query, gallery, k, same=same)
    exact = torch.cdist(query.double(), gallery.double()).square().round()
    if same:
        exact.fill_diagonal_(torch.inf)
    want = exact.argsort(dim=1, stable=True)[:, :k]
    assert torch.equal(index, want)
    torch.testing.assert_close(distance.double(), exact.gather(1, want), **PROMISED)


def test_metrics_of_few_large_classes_are_those_of_a_full_ranking(monkeypatch):
    monkeypatch.setattr("deconfuse.retrieval.neighbours.HELD", 60_000)
    random = torch.Generator().manual_seed(7)
    z = torch.nn.functional.normalize(torch.randn(701, 4, generator=random, dtype=torch.float64))
    labels = torch.arange(701) % 2
    found = metrics(Queries(z, z, labels, labels, same=True), ranks=(1, 5))
    near = torch.cdist(z, z).fill_diagonal_(torch.inf).argsort(1)
    hits = (labels[near] == labels[:, None])[:, :-1].tolist()
    precision = []
    for i, row in enumerate(hits):
        relevant, seen, total = int((labels == labels[i]).sum()) - 1, 0, 0.0
        for rank, hit in enumerate(row[:relevant], 1):
            seen += hit
            total += hit * seen / rank
        precision.append(total / relevant)
    assert found["MAP@R"] == pytest.approx(sum(precision) / 701, abs=1e-12)
    assert found["R@1"] == pytest.approx(sum(row[0] for row in hits) / 701, abs=1e-12)
    assert found["R@5"] == pytest.approx(sum(any(row[:5]) for row in hits) / 701, abs=1e-12)


def test_golden_neighbours(golden):
    data = golden("proxynca")
    z = torch.from_numpy(data["test_features"]) @ torch.from_numpy(data["weight"]).T
    z = z + torch.from_numpy(data["bias"])
    _, index = nearest(z, z, 1, same=True)
    assert np.array_equal(index[:, 0], data["nn_indices"])


def sizes(*counts):
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


LABELS = {
    "random": sizes(7, 2, 11, 5, 3),
    "one class": sizes(9),
    "single-sample classes": sizes(1, 4, 1, 1, 6),
}


@pytest.mark.parametrize("points", ["random", "ties"])
@pytest.mark.parametrize("own_gallery", [False, True])
@pytest.mark.parametrize("case", LABELS)
def test_metrics_equal_pytorch_metric_learning(case, own_gallery, points):
    random = torch.Generator().manual_seed(3)

    def draw(n):
        if points == "ties":
            return torch.randint(0, 2, (n, 3), generator=random).float()
        return torch.nn.functional.normalize(torch.randn(n, 5, generator=random))

    labels = LABELS[case]
    query, gallery, gallery_labels = draw(len(labels)), None, None
    if own_gallery:  # without a sample of the first class
        gallery_labels = labels[labels > 0].flip(0) if len(labels.unique()) > 1 else labels
        gallery = draw(len(gallery_labels))

    def neighbours(query, k, reference, same):
        return slow_nearest(query, reference, k, same)

    def clusters(x, c):
        means = KMeans(c, n_init=1, max_iter=20, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return means.fit_predict(x.numpy())

    names = ("precision_at_1", "mean_average_precision_at_r", "NMI")
    other = AccuracyCalculator(
        include=names,
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=neighbours,
        kmeans_func=clusters,
    ).get_accuracy(query, labels, gallery, gallery_labels)
    found = metrics(
        Queries(
            query,
            query if gallery is None else gallery,
            labels,
            labels if gallery is None else gallery_labels,
            same=gallery is None,
        )
    )
    assert found["R@1"] == pytest.approx(other["precision_at_1"], abs=1e-6)
    assert found["MAP@R"] == pytest.approx(other["mean_average_precision_at_r"], abs=1e-6)
    assert nmi(query, labels) == pytest.approx(other["NMI"], abs=1e-6)


def slow_recall(query, gallery, labels, gallery_labels, rank, same):
    _, index = slow_nearest(query, gallery, rank, same)
    asked = [i for i, y in enumerate(labels) if (gallery_labels == y).sum() > int(same)]
    return sum(bool((gallery_labels[index[i]] == labels[i]).any()) for i in asked) / len(asked)


@pytest.mark.parametrize("same", [True, False])
def test_recall_at_any_rank_is_counted(same):
    random = torch.Generator().manual_seed(4)
    labels = torch.cat([sizes(2, 2, 3, 2, 5), torch.tensor([5])])  # the last class has a single sample
    query = torch.randn(len(labels), 4, generator=random, dtype=torch.float64)
    gallery = query if same else torch.randn(11, 4, generator=random, dtype=torch.float64)
    gallery_labels = labels if same else sizes(3, 1, 1, 6)
    ranks = (1, 3, 7, 1000)
    found = metrics(Queries(query, gallery, labels, gallery_labels, same=same), ranks=ranks)
    assert list(found) == ["R@1", "R@3", "R@7", "R@1000", "MAP@R"]
    for rank in ranks:
        want = slow_recall(query, gallery, labels, gallery_labels, rank, same)
        assert found[f"R@{rank}"] == pytest.approx(want, abs=1e-12)
    assert found["R@1000"] == 1


def test_recall_by_hand():
    # On a line at 0, 1, 10, 12: neighbours of 0 -> 1 (b), 1 -> 0 (a), 10 -> 12 (a), 12 -> 10 (b).
    z = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    labels = torch.tensor([0, 1, 1, 0])
    found = metrics(Queries(z, z, labels, labels, same=True), ranks=(1, 2, 3))
    assert found["R@1"] == 0
    # Second neighbours: 0 -> 10 no, 1 -> 10 yes, 10 -> 1 yes, 12 -> 1 no.
    assert found["R@2"] == 0.5
    assert found["R@3"] == 1
    assert found["MAP@R"] == 0


def test_a_query_without_its_class_in_the_gallery_is_left_out():
    query, gallery = torch.tensor([[0.0], [5.0]]), torch.tensor([[0.1], [5.1]])
    found = metrics(
        Queries(query, gallery, torch.tensor([0, 7]), torch.tensor([0, 1]), same=False), ranks=(1,)
    )
    assert found == {"R@1": 1.0, "MAP@R": 1.0}
    found = metrics(
        Queries(query, gallery, torch.tensor([7, 8]), torch.tensor([0, 1]), same=False), ranks=(1,)
    )
    assert found == {"R@1": 0.0, "MAP@R": 0.0}


def test_nmi_of_clear_clusters_is_one_and_by_hand_where_two_are_one():
    random = torch.Generator().manual_seed(5)
    labels = sizes(7, 5, 9, 4)
    z = torch.eye(4)[labels] + 0.01 * torch.randn(25, 4, generator=random)
    assert nmi(z, labels) == pytest.approx(1, abs=1e-12)
    # Two classes of two at one point each, one of them again at the other: I = log 2 in both.
    points = torch.tensor([[0.0], [0], [1], [1]])
    assert nmi(points, torch.tensor([0, 0, 1, 1])) == pytest.approx(1)
    # Clusters {0, 1, 2}, {3}: H(labels) = log 2, and I = log 2 - 3/4 H(1/3), H(clusters) = H(1/4).
    points = torch.tensor([[0.0], [0], [0], [9]])
    two = lambda p: -p * math.log(p) - (1 - p) * math.log(1 - p)  # noqa: E731
    want = 2 * (math.log(2) - 0.75 * two(1 / 3)) / (math.log(2) + two(1 / 4))
    assert nmi(points, torch.tensor([0, 0, 1, 1])) == pytest.approx(want)


def test_nmi_is_seeded_and_serves_points_that_coincide():
    random = torch.Generator().manual_seed(6)
    z, labels = torch.randn(60, 3, generator=random), sizes(20, 20, 20)
    assert nmi(z, labels, 3) == nmi(z, labels, 3)
    assert nmi(torch.zeros(60, 3), labels) == 0
    assert nmi(z, torch.zeros(60, dtype=torch.long)) == 1  # one class, one cluster


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(("most", "start"), [(12, "k-means++"), (11, "random")])
def test_beyond_seeded_classes_nmi_starts_at_random_samples(monkeypatch, most, start, seed):
    z, labels = torch.randn(120, 3, generator=torch.Generator().manual_seed(8)), torch.arange(120) % 12
    monkeypatch.setattr("deconfuse.retrieval.metrics.SEEDED", most)

    def by_hand(init):
        clusters = KMeans(12, init=init, n_init=1, max_iter=20, random_state=seed).fit_predict(z.numpy())
        p = np.histogram2d(labels.numpy(), clusters, bins=12)[0] / 120
        rows, columns = p.sum(1), p.sum(0)
        information = (p[p > 0] * np.log((p / np.outer(rows, columns))[p > 0])).sum()
        return -2 * information / ((rows * np.log(rows)).sum() + (columns * np.log(columns)).sum())

    assert nmi(z, labels, seed) == pytest.approx(by_hand(start), abs=1e-9)
    assert abs(by_hand("random") - by_hand("k-means++")) > 1e-4


@given(points(), st.integers(1, 12), st.booleans(), st.integers(1, 4), st.integers(1, 4))
def test_nearest_of_any_size_and_type_is_a_sorted_list(drawn, k, same, rows, columns):
    """Also one point alone, more neighbours than there are, one dimension, and nothing but ties."""
    z, _ = drawn
    gallery = z if same else z.flip(0)[: max(1, len(z) - 2)]
    distance, index = nearest(z, gallery, k, same=same, tile=(rows, columns))
    want_distance, want_index = slow_nearest(z, gallery, k, same)
    assert distance.shape == index.shape == (len(z), min(k, len(gallery) - same))
    assert distance.dtype == z.dtype
    assert torch.equal(index, want_index.reshape(index.shape).long())
    torch.testing.assert_close(distance.double(), want_distance.reshape(index.shape), **PROMISED)


@given(points(least=2), st.booleans())
def test_metrics_of_any_labels_are_shares_that_grow_with_k(drawn, same):
    z, labels = drawn
    found = metrics(Queries(z, z, labels, labels, same=same), ranks=(1, 2, 4, 8))
    recalls = [found[f"R@{k}"] for k in (1, 2, 4, 8)]
    assert recalls == sorted(recalls)
    assert 0 <= found["MAP@R"] <= recalls[-1] + 1e-12 or max(labels.bincount()) > 8
    assert all(0 <= value <= 1 for value in found.values())
    if len(labels.unique()) == 1:  # there is nothing to take it for
        assert found == dict.fromkeys(found, 1.0)
    if same and max(labels.bincount()) == 1:  # no query has a second of its class
        assert found == dict.fromkeys(found, 0.0)


@given(
    points(least=2, most=23), st.sampled_from(["same", "other", "twins"]), st.sampled_from([0, 1, 300, 1e4])
)
def test_confusions_and_recall_add_up_exactly(drawn, case, offset):
    """R@1 times the queries that count is these less the confusions, as whole numbers, on any input."""
    z, labels = drawn
    z = z + offset
    gallery, theirs, twins = z, labels, None
    if case != "same":
        gallery, theirs = z.flip(0)[: len(z) // 2], labels.flip(0)[: len(z) // 2]
    if case == "twins":  # the last half of the queries are the gallery
        twins = torch.arange(len(z)).flip(0)
        twins[twins >= len(gallery)] = -1
    how = {"same": case == "same", "twins": twins}
    confused, measured = retrieve(Queries(z, gallery, labels, theirs, **how), (1, 2, 4, 8))
    found, confusions = measured["R@1"], len(confused)
    partners = (labels[:, None] == theirs).long()
    if case == "same":
        partners.fill_diagonal_(0)
    if twins is not None:
        partners[twins >= 0, twins[twins >= 0]] = 0
    counted = int((partners.sum(1) > 0).sum())
    assert round(found * counted) == counted - confusions
    assert found == ((counted - confusions) / counted if counted else 0)
