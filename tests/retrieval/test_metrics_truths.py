"""Neighbours and retrieval metrics by hand: numbers that any right implementation has."""

import math

import pytest
import torch

from deconfuse.retrieval.metrics import MEASURES, answer, metrics, nmi
from deconfuse.retrieval.neighbours import nearest
from deconfuse.retrieval.queries import Queries

double = torch.float64


def on_circle(*degrees):
    angles = torch.tensor(degrees, dtype=double).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


@pytest.mark.parametrize("dtype", [torch.float32, double])
def test_neighbours_by_hand(dtype):
    gallery = torch.tensor([[3.0, 0], [0, 0], [-1, 0], [0, 2.5], [0, -2]], dtype=dtype)
    squared, index = nearest(torch.tensor([[0.0, 0], [3, 1]], dtype=dtype), gallery, 3, same=False)
    assert index.tolist() == [[1, 2, 4], [0, 1, 3]]
    want = torch.tensor([[0, 1, 4], [1, 10, 11.25]], dtype=dtype)
    torch.testing.assert_close(squared, want, rtol=1e-5, atol=1e-5)
    squared, index = nearest(gallery, gallery, 2, same=True)
    assert index.tolist() == [[1, 4], [2, 4], [1, 4], [1, 2], [1, 2]]
    want = torch.tensor([[9, 13], [1, 4], [1, 5], [6.25, 7.25], [4, 5]], dtype=dtype)
    torch.testing.assert_close(squared, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 300])
@pytest.mark.parametrize("same", [True, False])
def test_neighbours_on_a_line_are_known_for_any_k_and_n(k, same):
    """Row i lies at i (i + 1) / 2 in a shuffled order; 301 rows, 300 neighbours of each at most."""
    order = torch.randperm(301, generator=torch.Generator().manual_seed(0))
    place = order.double() * (order + 1) / 2
    z = torch.stack([place, torch.ones(301, dtype=double)], 1)
    squared, index = nearest(z, z, k, same=same)
    apart = (place[:, None] - place).abs()
    if same:
        apart.fill_diagonal_(math.inf)
    want = apart.sort(1).values[:, :k]
    torch.testing.assert_close(squared.sqrt(), want, rtol=1e-9, atol=1e-3)
    torch.testing.assert_close(apart.gather(1, index), want, rtol=1e-9, atol=1e-9)
    assert all(len(set(row)) == min(k, 301 - same) for row in index.tolist())


def test_metrics_by_hand():
    # Gallery labels by angle: 0 at 0 degrees, 1 at 10, 0 at 20.
    gallery, labels = on_circle(0, 10, 20), torch.tensor([0, 1, 0])
    # Order of the labels that each query meets: 0 1 0; 1 0 0; 0 1 0; 0 1 0.
    query, asked = on_circle(-1, 9, 19, 30), torch.tensor([0, 0, 1, 1])
    found = metrics(Queries(query, gallery, asked, labels, same=False), ranks=(1, 2, 8))
    # MAP@R: R = 2: (1/1) / 2; (1/2) / 2. R = 1, not the first: 0; 0.
    assert found == pytest.approx({"R@1": 0.25, "R@2": 1, "R@8": 1, "MAP@R": (0.5 + 0.25) / 4})


def test_metrics_of_rows_among_themselves_by_hand():
    # Labels by angle: 0 0 1 0 1; nobody is its own neighbour, so R is 2, 2, 1, 2, 1.
    z, labels = on_circle(0, 1, 10, 30, 70), torch.tensor([0, 0, 1, 0, 1])
    # Met in order: 0 1 0 1; 0 1 0 1; 0 0 0 1; 1 0 0 1; 0 1 0 0.
    found = metrics(Queries(z, z, labels, labels, same=True), ranks=(1, 2, 3, 4))
    average = (0.5 + 0.5 + 0 + 0.25 + 0) / 5
    assert found == pytest.approx({"R@1": 0.4, "R@2": 0.8, "R@3": 0.8, "R@4": 1, "MAP@R": average})


def test_a_query_whose_class_the_gallery_lacks_is_left_out():
    gallery, labels = on_circle(0, 10, 20), torch.tensor([0, 1, 0])
    found = metrics(
        Queries(on_circle(9, 0, 20), gallery, torch.tensor([1, 7, 0]), labels, same=False), ranks=(1,)
    )
    # Query 2: 0 1 0, MAP@R (1/1) / 2; query 0: 1.
    assert found == pytest.approx({"R@1": 1, "MAP@R": 0.75})


def test_a_twin_is_neither_found_nor_counted_by_hand():
    # Queries 0 and 1 are gallery rows 1 and 0; query 2 is none of them, and row 0 is its only partner.
    gallery, labels = on_circle(0, 10, 30), torch.tensor([0, 1, 1])
    query, asked = on_circle(10, 0, 4), torch.tensor([1, 0, 0])
    test = Queries(query, gallery, asked, labels, False, torch.tensor([1, 0, -1]))
    found = answer(test, ranks=(1, 2), unit=True)
    assert found.first.tolist() == [0, 1, 0]
    assert found.relevant.tolist() == [1, 0, 1]  # query 1 has nobody and is left out
    # Query 0 meets 0 1, query 2 meets 0 1 1.
    assert found.found == pytest.approx({"R@1": 0.5, "R@2": 1, "MAP@R": 0.5})


def test_a_row_alone_has_no_neighbour():
    one = on_circle(0)
    found = answer(Queries(one, one, *2 * [torch.tensor([3])], True), ranks=(1, 4), unit=False)
    assert (found.first.tolist(), found.relevant.tolist()) == ([-1], [0])
    assert found.found == {"R@1": 0, "R@4": 0, "MAP@R": 0}


def test_rows_are_compared_as_they_are_or_by_direction():
    # Row 1 is long: by distance row 2 is the nearest to row 0, by direction row 1.
    z, labels = on_circle(0, 10, 80, 90), torch.tensor([0, 0, 1, 1])
    z[1] *= 9
    test = Queries(z, z, labels, labels, True)
    plain, unit = (metrics(test, ranks=(1,), unit=unit) for unit in (False, True))
    assert (plain["R@1"], unit["R@1"]) == (0.75, 1)
    assert metrics(Queries(z, z, labels, labels, True), ranks=(1,)) == plain


def test_what_models_are_compared_by_is_measured():
    z, labels = on_circle(0, 10), torch.tensor([0, 0])
    assert set(MEASURES) < set(metrics(Queries(z, z, labels, labels, True)))


def test_the_default_ranks_are_1_2_4_8():
    z, labels = on_circle(*range(0, 40, 4)), torch.arange(10) // 2
    assert list(metrics(Queries(z, z, labels, labels, same=True))) == ["R@1", "R@2", "R@4", "R@8", "MAP@R"]


def test_the_same_metrics_with_many_neighbours_as_with_few():
    """600 rows of two classes in turn on an arc: R = 299 and 300 neighbours are asked for."""
    z, labels = on_circle(*(0.1 * i + 1e-5 * i * i for i in range(600))), torch.arange(600) % 2
    found = metrics(Queries(z, z, labels, labels, same=True), ranks=(1, 2))
    distance = (z[:, None] - z).square().sum(2).fill_diagonal_(math.inf)
    hits = (labels[distance.argsort(1)[:, :-1]] == labels[:, None]).double()
    precision = hits.cumsum(1) / torch.arange(1, 600)
    average = (precision * hits)[:, :299].sum(1) / 299
    want = {"R@1": hits[:, 0].mean(), "R@2": hits[:, :2].amax(1).mean(), "MAP@R": average.mean()}
    assert found == pytest.approx({key: value.item() for key, value in want.items()}, abs=1e-9)


def test_nmi_by_hand():
    # Two far clusters of three; each has two of one label and one of the other.
    z = on_circle(0, 1, 2, 180, 181, 182)
    shared = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert nmi(z, torch.tensor([0, 0, 1, 1, 1, 0])) == pytest.approx(shared / math.log(2), abs=1e-9)
    assert nmi(z, torch.tensor([4, 4, 4, 9, 9, 9])) == pytest.approx(1, abs=1e-9)
    assert nmi(z, torch.zeros(6, dtype=torch.long)) in (0, 1)  # one class, one cluster: nothing to tell


def test_rounding_does_not_decide_between_rows_that_are_equally_far():
    """A zero row is at d = 1 from every unit row; (0, 1, 1) / sqrt(2) has a square of 1 - 2e-16 or so."""
    z = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 1]])
    for k in (1, 2, 3, 4):
        _, index = nearest(z, z, k, same=True, unit=True)
        assert index[0].tolist() == [1, 2, 3, 4][:k]
    test = Queries(z, z, torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 0, 1]), same=True)
    for ranks in ((1,), (1, 2), (1, 2, 4, 8)):
        assert metrics(test, ranks=ranks, unit=True)["R@1"] == 1.0
