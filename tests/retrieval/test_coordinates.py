import math

import pytest
import torch

from deconfuse.retrieval import coordinates
from deconfuse.retrieval.coordinates import Coordinates, chunks, pair_distances, product_error, row_lengths


def cloud(n, m, offset, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return offset + torch.randn(n, m, generator=generator, dtype=torch.float64)


def test_rows_are_moved_to_the_median_and_scaled_by_a_power_of_two():
    gallery, query = cloud(31, 4, 1e4), cloud(9, 4, 1e4, seed=1)
    found = Coordinates.of(query, gallery, unit=False, same=False, twins=None)
    assert torch.equal(found.centre, gallery.median(0).values)  # of all rows, as they are fewer than SAMPLE
    assert math.frexp(found.scale)[0] == 0.5
    widest = torch.cat([gallery, query]).sub(found.centre).abs().max().item()
    assert 0.5 <= widest * found.scale < 1
    want = (query - found.centre) * found.scale
    torch.testing.assert_close(found.centred(0, slice(None), torch.float64), want, rtol=1e-15, atol=0)
    rows = torch.tensor([3, 30])
    want = ((gallery[rows] - found.centre) * found.scale).float()
    assert torch.equal(found.centred(1, rows, torch.float32), want)
    assert found.own.tolist() == [-1] * 9


@pytest.mark.parametrize("unit", [False, True])
def test_distances_are_those_of_the_rows_as_they_were_given(unit, monkeypatch):
    monkeypatch.setattr(coordinates, "CHUNK", 11)  # some pairs at a time
    gallery, query = cloud(13, 3, 5.0), cloud(7, 3, 5.0, seed=1)
    found = Coordinates.of(query, gallery, unit, same=False, twins=None)
    rows, others = torch.arange(7).repeat(2), torch.arange(14) % 13
    sides = [each / each.norm(dim=1, keepdim=True) if unit else each for each in (query, gallery)]
    want = (sides[0][rows] - sides[1][others]).square().sum(1)
    torch.testing.assert_close(found.distance(rows, others), want, rtol=1e-12, atol=1e-15)


def test_copies_of_a_row_are_one_kind():
    gallery = cloud(5, 3, 0.0)[[0, 1, 0, 2, 1]]
    found = Coordinates.of(cloud(2, 3, 0.0, seed=1), gallery, unit=False, same=False, twins=None)
    kind, one = found.kinds
    assert len(one) == 3
    assert torch.equal(gallery[one[kind]], gallery)
    rows, others = torch.arange(2).repeat_interleave(5), torch.arange(5).repeat(2)
    distance = found.distance_by_kind(rows, others).view(2, 5)
    assert torch.equal(distance, distance[:, one[kind]])  # that of a copy is a copy
    # Each row's sum is of three numbers; of how many rows it is made at once may change its order.
    torch.testing.assert_close(distance.flatten(), found.distance(rows, others), rtol=1e-14, atol=0)


def test_who_is_itself_in_the_gallery():
    rows, twins = cloud(4, 2, 0.0), torch.tensor([2, -1, 0, 3])
    assert Coordinates.of(rows, rows, False, True, None).own.tolist() == [0, 1, 2, 3]
    assert Coordinates.of(rows, rows.clone(), False, False, twins).own.tolist() == [2, -1, 0, 3]


@pytest.mark.parametrize("m", [3, 64, 1000])
def test_a_product_in_float32_is_never_further_off_than_the_bound(m):
    generator = torch.Generator().manual_seed(m)
    a, b = (torch.randn(61, m, generator=generator) for _ in range(2))
    lengths = a.square().sum(1)
    squared = lengths[:, None] + b.square().sum(1) - 2 * a @ b.T
    exact = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    bound = product_error(exact, lengths.double(), m, torch.float32)
    off = (squared.double() - exact).abs()
    assert (off <= bound).all()
    assert off.max() > 1e-3 * bound.min()  # the bound is of some use


def test_parts_have_at_most_so_many_numbers(monkeypatch):
    monkeypatch.setattr(coordinates, "CHUNK", 10)
    parts = list(chunks(torch.zeros(7, 4)))
    assert [(part.start, part.stop) for part in parts] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert [part.stop - part.start for part in chunks(torch.zeros(3, 99))] == [1, 1, 1]


def test_distances_of_pairs_that_nearly_coincide():
    # d of directions at an angle t is 4 sin(t / 2)^2, at a right angle's two sides 4 sin(atan(y / x) / 2)^2.
    a = torch.tensor([[1e6, 1e3], [1e6, 1.0], [1e6, 1e-3], [1e6, 1e-6]])
    b = torch.tensor([[2.0, 0.0]])
    exact = 4 * (torch.atan(a[:, 1].double() / a[:, 0].double()) / 2).sin().square()
    found = pair_distances(a, b, torch.arange(4), torch.zeros(4, dtype=torch.long))
    # 1 - cos t, the first coordinates' difference, has lost its digits for small t, but is nothing beside t.
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=0)


def test_the_length_of_a_row_of_zeros_is_one():
    rows = torch.tensor([[3.0, 4.0], [0, 0], [3e-30, 4e-30], [3e30, 4e30]])
    want = torch.tensor([[5.0], [1], [5e-30], [5e30]], dtype=torch.float64)
    torch.testing.assert_close(row_lengths(rows), want, rtol=1e-6, atol=0)
