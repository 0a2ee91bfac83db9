import sys
from types import SimpleNamespace

import pytest
import torch

from deconfuse.report.projection import pca, umap


def test_points_on_an_ellipse_come_back_on_their_axes():
    angle = torch.linspace(0, 2 * torch.pi, 14, dtype=torch.float64)[:-1]
    flat = torch.stack([3 * angle.cos(), angle.sin()], 1)
    turned = torch.linalg.qr(
        torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    x, share = pca(flat @ turned.Q[:2] + 7)
    torch.testing.assert_close(x.abs(), flat.abs())
    # Variances 9/2 and 1/2 of the two axes.
    assert share == pytest.approx((0.9, 0.1))


def test_the_sign_does_not_depend_on_the_order_of_the_samples():
    e = torch.randn(23, 4, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(23, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(pca(e[order])[0], pca(e)[0][order], rtol=1e-4, atol=1e-5)


def test_what_has_no_second_axis_lies_on_a_line():
    x, share = pca(torch.tensor([[1.0], [2.0], [6.0]]))
    torch.testing.assert_close(x, torch.tensor([[-2.0, 0], [-1, 0], [3, 0]]))
    assert share == pytest.approx((1, 0))
    same, none = pca(torch.ones(3, 2))
    assert same.abs().max() == 0
    assert none == (0, 0)


def test_umap_of_a_few_samples_is_pca():
    e = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(umap(e, 0), pca(e)[0])


def test_umap_is_asked_for_cosines_with_the_seed(monkeypatch):
    asked = {}

    class Fake:
        def __init__(self, **settings):
            asked.update(settings)

        def fit_transform(self, rows):
            return rows[:, :2] * 2

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Fake))
    e = torch.randn(11, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(umap(e, 7), 2 * e[:, :2])
    assert asked == {"n_neighbors": 10, "metric": "cosine", "random_state": 7}
