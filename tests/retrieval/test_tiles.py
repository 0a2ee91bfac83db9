import pytest
import torch

from deconfuse.retrieval.tiles import BLOCK, tiled, with_squares


def wide(rows):
    return with_squares(torch.cat([rows, rows.new_full((len(rows), 2), torch.nan)], 1))


def test_rows_are_followed_by_one_and_their_squared_length():
    assert wide(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[3, 4, 1, 25], [0, 0, 1, 0]]


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("tile", [(5, 3), (23, 23), (7, 100), (64, 2 * BLOCK)])
@pytest.mark.parametrize("k", [1, 4])
def test_the_nearest_of_all_tiles_are_those_of_one_matrix_of_distances(same, tile, k):
    generator = torch.Generator().manual_seed(k)
    query = torch.randn(23, 6, generator=generator, dtype=torch.float64)
    gallery = query if same else torch.randn(301, 6, generator=generator, dtype=torch.float64)
    own = torch.arange(23) if same else torch.full((23,), -1)
    if not same:
        own[4] = 17
    squared = torch.cdist(query, gallery).square()
    mine = own >= 0
    squared[mine, own[mine]] = torch.inf
    want, places = squared.topk(k, largest=False)
    found = list(tiled(wide(query), wide(gallery), k, same, own, tile))
    assert [part[0] for part in found] == [slice(i, min(i + tile[0], 23)) for i in range(0, 23, tile[0])]
    torch.testing.assert_close(torch.cat([part[1] for part in found]), want, rtol=1e-9, atol=1e-9)
    assert torch.equal(torch.cat([part[2] for part in found]), places)


def test_where_a_query_has_fewer_others_the_rest_is_at_infinity():
    rows = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    ((_, squared, index),) = tiled(wide(rows), wide(rows), 3, True, torch.arange(3), (8, 8))
    assert index[:, :2].tolist() == [[1, 2], [0, 2], [1, 0]]
    assert squared[:, :2].tolist() == [[1, 9], [1, 4], [4, 9]]
    assert squared[:, 2].tolist() == [torch.inf] * 3
