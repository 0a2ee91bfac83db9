import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from src.retrieval import metrics, nearest


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


@pytest.mark.parametrize("tile", [None, 1, 5, 23])
@pytest.mark.parametrize("same", [True, False])
def test_nearest_equals_a_sorted_list_for_any_tile(tile, same):
    query = torch.randn(23, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gallery = query if same else torch.randn(17, 6, dtype=torch.float64)
    distance, index = nearest(query, gallery, 4, same=same, tile=tile)
    want_distance, want_index = slow_nearest(query, gallery, 4, same)
    assert torch.equal(index, want_index)
    torch.testing.assert_close(distance, want_distance, rtol=1e-9, atol=1e-9)


def test_ties_go_to_the_smaller_index_and_k_is_capped():
    points = torch.tensor([[0.0, 0], [1, 0], [-1, 0], [0, 1]])
    distance, index = nearest(points, points, 99, same=True)
    assert index[0].tolist() == [1, 2, 3]
    assert distance[0].tolist() == [1, 1, 1]
    assert index.shape == (4, 3)


def test_more_ties_than_k_still_go_to_the_smaller_index():
    points = torch.zeros(100, 3)
    _, index = nearest(points, points, 5, same=True)
    assert index[0].tolist() == [1, 2, 3, 4, 5]
    assert index[3].tolist() == [0, 1, 2, 4, 5]
    assert nearest(points, points, 1, same=True)[1][:, 0].tolist() == [1] + [0] * 99


def test_golden_neighbours(golden):
    data = golden("proxynca")
    z = torch.from_numpy(data["test_features"]) @ torch.from_numpy(data["weight"]).T
    z = z + torch.from_numpy(data["bias"])
    _, index = nearest(z, z, 1, same=True)
    assert np.array_equal(index[:, 0], data["nn_indices"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_metrics_equal_pytorch_metric_learning(seed):
    random = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(6).repeat_interleave(2), torch.randint(0, 6, (29,), generator=random)])
    z = torch.nn.functional.normalize(torch.randn(len(labels), 5, generator=random))
    found = metrics(z, z, labels, labels, same=True)
    other = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=CustomKNN(LpDistance()),
    ).get_accuracy(z, labels)
    assert found["R@1"] == pytest.approx(other["precision_at_1"], abs=1e-6)
    assert found["MAP@R"] == pytest.approx(other["mean_average_precision_at_r"], abs=1e-6)


def test_recall_by_hand():
    # On a line at 0, 1, 10, 12: neighbours of 0 -> 1 (b), 1 -> 0 (a), 10 -> 12 (a), 12 -> 10 (b).
    z = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    labels = torch.tensor([0, 1, 1, 0])
    found = metrics(z, z, labels, labels, same=True, ranks=(1, 2, 3))
    assert found["R@1"] == 0
    # Second neighbours: 0 -> 10 no, 1 -> 10 yes, 10 -> 1 yes, 12 -> 1 no.
    assert found["R@2"] == 0.5
    assert found["R@3"] == 1
    assert found["MAP@R"] == 0


def test_a_query_without_its_class_in_the_gallery_counts_as_missed():
    query, gallery = torch.tensor([[0.0], [5.0]]), torch.tensor([[0.1], [5.1]])
    found = metrics(query, gallery, torch.tensor([0, 7]), torch.tensor([0, 1]), same=False, ranks=(1,))
    assert found == {"R@1": 0.5, "MAP@R": 1.0}
