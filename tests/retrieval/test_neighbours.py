"""The search against numpy in float64, by differences, on input that breaks |a|^2 + |b|^2 - 2 a.b."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deconfuse.retrieval import coordinates, neighbours
from deconfuse.retrieval.neighbours import nearest, search, smallest
from tests.drawn import points

OFFSETS = [0.0, 1.0, 300.0, 1e3, 5e3, 1e4]
SCALES = [1e-18, 1e-6, 1.0, 1e6, 1e18]


def truth(query, gallery, same, unit=False, own=None, digits=None):
    """Squared distances (q, g) in float64 by differences; inf where a row is the query itself.

    digits: to which they are rounded, as distances of unit rows that are equal differ by rounding in numpy.
    """
    sides = [side.double().numpy() for side in (query, gallery)]
    if unit:
        lengths = [np.sqrt((side**2).sum(1, keepdims=True)) for side in sides]
        sides = [side / np.where(length > 0, length, 1) for side, length in zip(sides, lengths, strict=True)]
    apart = ((sides[0][:, None] - sides[1][None]) ** 2).sum(2)
    apart = apart if digits is None else apart.round(digits)
    if same:
        np.fill_diagonal(apart, np.inf)
    if own is not None:
        apart[own >= 0, own[own >= 0]] = np.inf
    return apart


def agree(query, gallery, k, *, same, unit=False, twins=None, tile=neighbours.TILE):
    """The same neighbours in the same order as a stable sort of the truth, and their distances."""
    apart = truth(query, gallery, same, unit, None if twins is None else twins.numpy())
    k = min(k, len(gallery) - same)
    want = apart.argsort(1, kind="stable")[:, :k]
    blocks = list(search(query, gallery, k, same=same, unit=unit, twins=twins, tile=tile))
    index = torch.cat([block[2] for block in blocks]).numpy()
    squared = torch.cat([block[1] for block in blocks]).numpy()
    exact = np.take_along_axis(apart, want, 1)
    there = ~np.isinf(exact)
    assert np.array_equal(index[there], want[there])
    assert (index[~there] == -1).all()
    assert np.isinf(squared[~there]).all()
    # 1e-4 is what the search promises; the second term is float64's rounding of rows that coincide.
    np.testing.assert_allclose(
        squared[there], exact[there], rtol=neighbours.PRECISE, atol=1e-28 if unit else 0
    )


def cloud(n, m, offset=0.0, axes="all", scale=1.0, seed=0):
    """Rows of spread 1 moved by offset on all axes or the first, then scaled; float32."""
    z = torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z[:, slice(None) if axes == "all" else 0] += offset
    return (scale * z).float()


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("axes", ["all", "one"])
@pytest.mark.parametrize("offset", OFFSETS)
def test_a_common_part_of_all_rows_changes_nothing(offset, axes, unit):
    for n, k in ((23, 1), (61, 8), (331, 300)):
        z, others = cloud(n, 7, offset, axes), cloud(n + 3, 7, offset, axes, seed=1)
        agree(z, z, k, same=True, unit=unit)
        agree(z, others, k, same=False, unit=unit, tile=(16, 64))


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_no_scale_overflows_or_vanishes(scale, unit):
    for offset in (0.0, 1e3):
        z, others = cloud(61, 5, offset, scale=scale), cloud(23, 5, offset, scale=scale, seed=1)
        for k in (1, 8, 300):
            agree(z, z, k, same=True, unit=unit)
            agree(z, others, k, same=False, unit=unit)


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("k", [1, 8, 300])
def test_copies_and_zeros_go_to_the_smaller_index(k, unit, offset):
    z = cloud(61, 4, offset)
    for copies in (1, 2, 3, 40):
        rows = z[torch.arange(61) * 7 % max(1, 61 // copies)]
        if not unit:
            rows[5] = rows[17] = 0
        agree(rows, rows, k, same=True, unit=unit)
        agree(rows[:23], rows, k, same=False, unit=unit)
    for rows in (z[:1].repeat(61, 1), torch.zeros(61, 4)):
        agree(rows, rows, k, same=True, unit=unit, tile=(7, 16))


def test_rows_of_zeros_have_length_one_and_lie_at_1_from_every_direction():
    z = cloud(61, 4, 2.0)
    z[5] = z[17] = 0
    squared, index = nearest(z, z, 60, same=True, unit=True)
    assert index[[5, 17], 0].tolist() == [17, 5]
    assert squared[[5, 17], 0].tolist() == [0, 0]
    torch.testing.assert_close(squared[[5, 17], 1:], torch.ones(2, 59), rtol=0, atol=1e-6)
    others = [i for i in range(61) if i not in (5, 17)]
    agree(z[others], z[others], 8, same=True, unit=True)


def test_a_row_and_its_multiples_have_one_direction():
    # Three times a row has its direction to float64's rounding, so the smaller index is first.
    z = torch.randint(1, 2**16, (23, 5), generator=torch.Generator().manual_seed(2)).float()
    rows = torch.cat([3 * z, z, 7 * z])  # exact
    _, index = nearest(rows, rows, 2, same=True, unit=True)
    want = [[i + 23, i + 46] for i in range(23)] + [[i, i + 46] for i in range(23)]
    assert index.tolist() == want + [[i, i + 23] for i in range(23)]


@pytest.mark.parametrize("offset", [0.0, 1.0, 300.0, 1e4])
@pytest.mark.parametrize("k", [1, 8, 300])
def test_ties_of_a_grid_go_to_the_smaller_index(k, offset):
    """Whole numbers: the truth is exact, and each query has many ties at every distance."""
    random = torch.Generator().manual_seed(3)
    for m in (1, 2, 9):
        z = torch.randint(-2, 3, (331, m), generator=random).float() + offset
        agree(z, z, k, same=True)
        agree(z[:23], z[40:], k, same=False, tile=(5, 64))


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("k", [1, 2, 8, 21, 22, 23, 300])
def test_a_twin_is_no_neighbour_and_a_query_may_have_none(k, unit):
    gallery = cloud(23, 5, 10.0)
    query = torch.cat([gallery[[4, 4, 0, 22]], cloud(9, 5, 10.0, seed=1)])
    twins = torch.tensor([4, -1, 0, 22] + 9 * [-1])
    agree(query, gallery, k, same=False, unit=unit, twins=twins)
    agree(query, gallery, k, same=False, unit=unit, twins=twins, tile=(3, 4))


@pytest.mark.parametrize("k", [1, 8, 300])
def test_two_far_clusters_and_one_far_row(k):
    z = cloud(331, 6)
    far = z + 1e4 * (2 * (torch.arange(331) % 2) - 1)[:, None]
    agree(far, far, k, same=True)
    agree(z[:23], far, k, same=False)
    for away in (1e6, 1e12):
        outlier = torch.cat([z, torch.full((1, 6), away)])
        agree(z, outlier, k, same=False)  # the far row's own distances are equal to float64's rounding


@pytest.mark.parametrize("k", [1, 8, 300])
def test_more_near_copies_than_float64_products_tell_apart(k):
    """Two far points with 100 rows around each, a float32 step or some apart: none is a copy."""
    step = torch.randint(0, 9, (331, 5), generator=torch.Generator().manual_seed(4)) * 2.0**-23
    z = (1 + step).float()
    z[::2, 0] += 2.0**-22
    far = torch.cat([z, torch.full((20, 5), 3e9), torch.full((331, 5), -3e9)])
    agree(far[:40], far, k, same=False)


@pytest.mark.parametrize("m", [64, 2048])
def test_roundings_that_all_point_the_same_way(m):
    """Rows of one number each, m times: every addition of a product is rounded alike."""
    z = torch.randn(61, 1, generator=torch.Generator().manual_seed(5)).expand(61, m).contiguous()
    agree(z, z, 1, same=True)
    agree(z, z, 8, same=True)


def test_one_dimension_and_one_row():
    z = cloud(331, 1, 1e3)
    for k in (1, 8, 300):
        agree(z, z, k, same=True)
        agree(z[:1], z, k, same=False)
        agree(z, z[:1], k, same=False)
    assert nearest(z[:1], z[:1], 5, same=True)[1].shape == (1, 0)
    assert nearest(z[:0], z, 5, same=False)[1].shape == (0, 5)
    assert nearest(z, z[:0], 5, same=False)[1].shape == (331, 0)


def test_numbers_that_are_not_finite_count_as_zero():
    z = cloud(23, 3)
    broken = z.clone()
    z[3, 1] = z[9, 0] = z[20, 2] = 0
    broken[3, 1], broken[9, 0], broken[20, 2] = torch.nan, torch.inf, -torch.inf
    for k in (1, 8):
        want, found = (nearest(rows, rows, k, same=True) for rows in (z, broken))
        assert torch.equal(want[1], found[1])


def test_blocks_of_whole_rows_are_as_one(monkeypatch):
    z = cloud(331, 5, 300.0)
    monkeypatch.setattr(neighbours, "HELD", 5000)
    monkeypatch.setattr(coordinates, "CHUNK", 37)
    agree(z, z, 300, same=True)
    agree(z[torch.arange(331) % 90], z, 8, same=False)


def test_a_few_numbers_in_float64_are_held_at_a_time(monkeypatch):
    """All rows equal is what takes most: every query is compared with the whole gallery, and all are ties."""
    held, product = [], torch.addmm

    def watched(*operands, **options):
        result = product(*operands, **options)
        held.extend([result.numel()] if result.dtype == torch.float64 else [])
        return result

    monkeypatch.setattr(neighbours, "HELD", 2**12)
    monkeypatch.setattr(torch, "addmm", watched)
    z = cloud(1, 5, 300.0).repeat(211, 1)
    for k in (1, 210):
        nearest(z, z, k, same=True)
    assert 0 < max(held) <= 2**11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rows_that_are_searched_stay_as_they_are(dtype):
    z = cloud(23, 3, 2.0).to(dtype)
    given = z.clone()
    nearest(z, z, 2, same=True, unit=True)
    nearest(z, z.flip(0), 2, same=False)
    assert torch.equal(z, given)


@settings(max_examples=60, deadline=None)
@given(points(), st.integers(1, 9), st.booleans(), st.booleans(), st.sampled_from([0, 300, 4096]))
def test_any_grid_with_any_offset_is_a_stable_sort(drawn, k, same, unit, offset):
    z = drawn[0] + offset
    # Distances of directions that are equal differ by rounding in numpy.
    apart = truth(z, z, same, unit, digits=16 if unit else None)
    k = min(k, len(z) - same)
    squared, index = nearest(z, z, k, same=same, unit=unit)
    tolerance = {"rtol": 2e-4, "atol": 1e-16}
    np.testing.assert_allclose(squared.double(), np.sort(apart, 1)[:, :k], **tolerance)
    np.testing.assert_allclose(np.take_along_axis(apart, index.numpy(), 1), squared.double(), **tolerance)
    if not unit:
        assert np.array_equal(index.numpy(), apart.argsort(1, kind="stable")[:, :k])


def test_the_smallest_by_a_stable_sort():
    values = torch.randint(0, 5, (29, 41), generator=torch.Generator().manual_seed(6)).float()
    values[3], values[4, :20] = 2.0, torch.inf
    for k in (1, 7, 40, 41):
        assert torch.equal(smallest(values, k), values.argsort(dim=1, stable=True)[:, :k])
