import numpy as np
import pytest
import torch

from deconfuse.retrieval import directions


@pytest.mark.parametrize("scale", [1e-37, 1e-18, 1e-12, 1.0, 1e18, 1e37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_direction_is_that_of_float64_for_any_length(scale, dtype):
    rows = (torch.randn(23, 7, generator=torch.Generator().manual_seed(0)) * scale).to(dtype)
    kept, x = rows.clone(), rows.double().numpy()
    found = directions.unit(rows)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found, x / np.linalg.norm(x, axis=1, keepdims=True), rtol=4 * torch.finfo(dtype).eps
    )
    assert torch.equal(rows, kept)  # what was given is not written to


def test_a_row_of_zeros_stays_one_and_the_type_may_be_another():
    rows = torch.tensor([[0.0, 0.0], [3e-20, 4e-20]])
    found = directions.unit(rows, torch.float64)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, [[0, 0], [0.6, 0.8]], rtol=1e-6)
    assert directions.unit(torch.zeros(0, 3)).shape == (0, 3)


def test_rows_in_several_chunks_are_those_in_one(monkeypatch):
    rows = torch.randn(23, 7, generator=torch.Generator().manual_seed(1))
    want = directions.unit(rows)
    monkeypatch.setattr(directions, "CHUNK", 30)  # four rows at a time
    # The squares of a row may be added in another order, in float64; then each number is rounded to float32.
    torch.testing.assert_close(directions.unit(rows), want, rtol=torch.finfo(torch.float32).eps, atol=0)
