"""Confusions, mis-similar pairs, groups and d by hand: numbers that any right implementation has."""

import math

import pytest
import torch

from deconfuse.retrieval.confusion import (
    Pairs,
    distance,
    distance_gradient,
    find,
    groups,
    mean_distance,
    mean_distance_gradient,
    mis_similar,
    retrieve,
)
from deconfuse.retrieval.queries import Queries

double = torch.float64


def on_circle(*degrees, length=1.0):
    """Rows at these angles; two of them at an angle a have d = 2 - 2 cos a."""
    angles = torch.tensor(degrees, dtype=double).deg2rad()
    return length * torch.stack([angles.cos(), angles.sin()], 1)


def test_confusions_in_a_gallery_of_their_own_by_hand():
    # Query 0 is nearest to row 1, of its class, 1 to row 0 at 60 degrees, 2 to row 2 at 90, 3 to row 0 at 45.
    query = on_circle(0, 100, 255, 205)
    gallery = on_circle(160, 5, 345, length=7.0)
    found = find(Queries(query, gallery, torch.tensor([1, 1, 1, 2]), torch.tensor([0, 1, 2]), same=False))
    assert found.pairs.tolist() == [[3, 0], [1, 0], [2, 2]]
    assert found.distance.tolist() == pytest.approx([2 - 2**0.5, 1, 2], abs=1e-12)
    assert len(found) == 3


def test_a_sample_is_not_its_own_neighbour_only_where_query_and_gallery_are_the_same_rows():
    z, labels = on_circle(0, 10, 170, 185), torch.tensor([0, 1, 0, 1])
    same = find(Queries(z, z, labels, labels, same=True))
    assert same.pairs.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    assert len(find(Queries(z, z.clone(), labels, labels, same=False))) == 0


def test_mis_similar_pairs_by_hand():
    # Class 0 lies at 0, 60 and 180 degrees; class 1 at 90 and 180; class 2 has one sample and so no pair.
    z = on_circle(0, 60, 180, 90, 180, 45)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    found = mis_similar(Queries(z, z, labels, labels, same=True))
    # 0 and 2 name each other and are told once, by the smaller; so are 3 and 4. 1 names 2 at 120 degrees.
    assert found.pairs.tolist() == [[0, 2], [1, 2], [3, 4]]
    assert found.distance.tolist() == pytest.approx([4, 3, 2], abs=1e-12)


def test_mis_similar_pairs_in_a_gallery_of_their_own_by_hand():
    query, gallery = on_circle(0, 90, 60, 30), on_circle(90, 180, 270, length=0.01)
    found = mis_similar(
        Queries(query, gallery, torch.tensor([0, 1, 1, 3]), torch.tensor([0, 1, 1]), same=False)
    )
    # Query 1 is 180 degrees from row 2, 2 is 150 from it, 0 is 90 from row 0; 3 has no class there.
    assert found.pairs.tolist() == [[1, 2], [2, 2], [0, 0]]
    assert found.distance.tolist() == pytest.approx([4, 2 + 3**0.5, 2], abs=1e-12)


def test_a_pair_that_one_side_names_is_told_by_it_whichever_comes_first():
    # 2 names 0 and 0 names 1: both pairs are told. 1 and 0 name each other.
    z, labels = on_circle(0, 170, 20), torch.zeros(3, dtype=torch.long)
    found = mis_similar(Queries(z, z, labels, labels, same=True))
    assert found.pairs.tolist() == [[0, 1], [2, 1]]
    # Of two samples that name each other the smaller tells the pair, whatever else is told.
    z = on_circle(20, 170, 0)
    assert mis_similar(Queries(z, z, labels, labels, same=True)).pairs.tolist() == [[1, 2], [0, 1]]


def test_groups_by_hand_are_largest_first_then_by_class():
    labels = torch.tensor([5, 2, 7, 2, 5, 7, 1])
    pairs = Pairs(torch.tensor([6, 4, 2, 3, 1, 0]), torch.zeros(6, dtype=torch.long), torch.arange(6.0))
    found = [(c, rows.tolist()) for c, rows in groups(pairs, labels)]
    assert found == [(2, [3, 4]), (5, [1, 5]), (1, [0]), (7, [2])]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_d_and_its_gradient_by_hand(scale):
    a, b = scale * torch.tensor([[2.0, 0.0]], dtype=double), scale * torch.tensor([[0.0, 4.0]], dtype=double)
    assert distance(a, b).tolist() == [2]
    # -2/||a|| (e_b - cos e_a), and mirrored.
    to_a, to_b = distance_gradient(a, b)
    torch.testing.assert_close(to_a, torch.tensor([[0.0, -1.0]], dtype=double) / scale)
    torch.testing.assert_close(to_b, torch.tensor([[-0.5, 0.0]], dtype=double) / scale)
    # At 60 degrees: e_b - e_a / 2 = (0, sqrt(3)/2), so dd/da = (0, -sqrt(3)).
    to_a, _ = distance_gradient(on_circle(0, length=scale), on_circle(60))
    torch.testing.assert_close(to_a, torch.tensor([[0.0, -(3**0.5)]], dtype=double) / scale)


def test_the_d_of_a_group_weighs_its_pairs():
    # Queries at 0 and 0, their neighbours at 90 (d = 2) and 180 (d = 4).
    z = on_circle(0, 0, 90, 180)[None]
    share = torch.tensor([[0.75, -0.25]], dtype=double)
    assert mean_distance(z, share).tolist() == pytest.approx([0.75 * 2 - 0.25 * 4])
    gradient = mean_distance_gradient(z, share)
    # Opposite samples have no slope; the first pair's is 0.75 (0, -2) and 0.75 (-2, 0).
    want = torch.tensor([[[0.0, -1.5], [0, 0], [-1.5, 0], [0, 0]]], dtype=double)
    torch.testing.assert_close(gradient, want, rtol=0, atol=1e-12)


def test_a_group_of_three_pairs_is_three_queries_and_then_three_neighbours():
    # At 0 and 60 degrees d = 1, at 10 and 100 d = 2, at 20 and 200 d = 4.
    z = on_circle(0, 10, 20, 60, 100, 200)[None]
    share = torch.tensor([[0.5, 0.25, -1.0]], dtype=double)
    assert mean_distance(z, share).tolist() == pytest.approx([0.5 * 1 + 0.25 * 2 - 1.0 * 4])
    lengths = mean_distance_gradient(z, share).norm(dim=2)
    # The gradient of d in one of two unit vectors at an angle a has length 2 sin a.
    want = torch.tensor([[0.5 * 3**0.5, 0.25 * 2, 0.0]], dtype=double)
    torch.testing.assert_close(lengths, want.repeat(1, 2), rtol=0, atol=1e-12)


def test_a_twin_is_in_no_pair_and_a_query_with_no_other_of_its_class_neither():
    # Queries 0 and 1 are gallery rows 2 and 0; query 2 is not in the gallery; query 3 is row 4, alone there.
    gallery, theirs = on_circle(40, 170, 0, 20, 90), torch.tensor([0, 0, 0, 1, 2])
    query, labels = on_circle(0, 40, 165, 90), torch.tensor([0, 0, 0, 2])
    twins = torch.tensor([2, 0, -1, 4])
    found = find(Queries(query, gallery, labels, theirs, same=False, twins=twins))
    assert found.pairs.tolist() == [[0, 3], [1, 3]]  # both 20 degrees from row 3
    far = mis_similar(Queries(query, gallery, labels, theirs, same=False, twins=twins))
    assert far.pairs.tolist() == [[0, 1], [2, 2], [1, 1]]  # at 170, 165 and 130 degrees
    want = [2 - 2 * math.cos(math.radians(angle)) for angle in (170, 165, 130)]
    assert far.distance.tolist() == pytest.approx(want, abs=1e-12)


def test_one_search_has_the_pairs_and_the_metrics_by_hand():
    # By direction 0 and 1 are taken for each other, and 2 and 3; by distance others are, as row 1 is long.
    z, labels = on_circle(0, 10, 90, 105), torch.tensor([0, 1, 0, 1])
    z[1] *= 5
    pairs, found = retrieve(Queries(z, z, labels, labels, True), (1, 2))
    assert pairs.pairs.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    # The second nearest of 0 and 3 is of their class, that of 1 and 2 is not.
    assert found == pytest.approx({"R@1": 0, "R@2": 0.5, "MAP@R": 0})
    # Queries 0 and 2 of them in that gallery: neither is its own neighbour.
    side = Queries(z[[0, 2]], z, labels[[0, 2]], labels, False, torch.tensor([0, 2]))
    pairs, found = retrieve(side, (1, 2))
    assert pairs.pairs.tolist() == [[0, 1], [1, 3]]
    assert found == pytest.approx({"R@1": 0, "R@2": 0.5, "MAP@R": 0})


def test_a_twin_of_another_class_and_no_twin_leave_every_sample_of_the_class_as_a_candidate():
    # Of class 0 the first row, the last row and the row after the twin's place are farthest, in turn.
    gallery, theirs = on_circle(180, 0, 20, 270), torch.tensor([0, 0, 1, 0])
    query, labels = on_circle(0, 0, 90), torch.tensor([0, 0, 0])
    for twins in ([-1, 2, -1], [2, -1, 2]):
        far = mis_similar(Queries(query, gallery, labels, theirs, False, torch.tensor(twins)))
        assert far.pairs.tolist() == [[0, 0], [1, 0], [2, 3]]
    # A twin that lies behind all rows of the class.
    far = mis_similar(
        Queries(query, gallery[[0, 1, 3, 2]], labels, theirs[[0, 1, 3, 2]], False, torch.tensor([3, 3, 3]))
    )
    assert far.pairs.tolist() == [[0, 0], [1, 0], [2, 2]]


def test_copies_have_d_0_and_the_pair_is_listed_once():
    z, labels = on_circle(30, 30, 80), torch.tensor([0, 0, 1])
    found = mis_similar(Queries(z, z, labels, labels, same=True))
    assert found.pairs.tolist() == [[0, 1]]
    assert found.distance.tolist() == [0]


def test_d_of_a_pair_that_nearly_coincides_keeps_its_digits():
    # Rows (1, t) and (1, 0) have d = 4 sin(atan(t) / 2)^2, about t^2: 1e-10 here, a float32 step of 1 squared
    # away from nothing.
    z, labels = torch.tensor([[1.0, 1e-5], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]), torch.tensor([0, 1, 1, 0])
    found = find(Queries(z, z, labels, labels, same=True))
    assert found.pairs.tolist()[:2] == [[0, 1], [1, 0]]
    assert found.distance.tolist()[:2] == pytest.approx([1e-10] * 2, rel=1e-6)
