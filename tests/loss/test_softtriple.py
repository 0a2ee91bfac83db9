import math

import pytest
import torch
from pytorch_metric_learning.losses import SoftTripleLoss

from deconfuse.loss.softtriple import SoftTriple
from deconfuse.system.errors import UserError


def slow(z, y, proxies, k, la, gamma, margin):
    losses = []
    c = len(proxies) // k
    for i in range(len(z)):
        similarity = []
        for j in range(c):
            cosines = [(z[i] @ p / z[i].norm() / p.norm()).item() for p in proxies[j * k : (j + 1) * k]]
            weights = [math.exp(value / gamma) for value in cosines]
            total = sum(w * value for w, value in zip(weights, cosines, strict=True)) / sum(weights)
            similarity.append(la * (total - (margin if j == y[i] else 0)))
        losses.append(math.log(sum(map(math.exp, similarity))) - similarity[y[i]])
    return torch.tensor(losses, dtype=z.dtype)


def made(k, n=23, c=5, m=7, **more):
    torch.manual_seed(0)
    loss = SoftTriple(c, m, centres=k, **more).double()
    return loss, torch.randn(n, m, dtype=torch.float64), torch.randint(0, c, (n,))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_equals_the_paper_written_out(k):
    loss, z, y = made(k, margin=0.3)
    torch.testing.assert_close(
        loss(z, y), slow(z, y, loss.proxies.detach(), k, 20.0, 0.1, 0.3), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("k", [1, 4])
def test_equals_pytorch_metric_learning(k):
    loss, z, y = made(k)
    other = SoftTripleLoss(5, 7, centers_per_class=k, la=20, gamma=0.1, margin=0.01).double()
    other.fc.data = loss.proxies.data.T.clone()
    torch.testing.assert_close(loss(z, y).mean(), other(z, y), rtol=1e-9, atol=1e-9)


def test_regulariser_equals_the_sum_over_pairs_of_centres():
    loss, _, _ = made(3, tau=0.2)
    w = torch.nn.functional.normalize(loss.proxies.detach(), dim=1)
    total = 0.0
    for c in range(5):
        for s in range(3):
            for t in range(s + 1, 3):
                total += math.sqrt(2 + 1e-5 - 2 * (w[3 * c + s] @ w[3 * c + t]).item())
    assert loss.regulariser().item() == pytest.approx(0.2 * total / (5 * 3 * 2), rel=1e-12)


def test_regulariser_has_a_finite_slope_where_centres_have_met_and_is_zero_for_one():
    loss, _, _ = made(2)
    loss.proxies.data[1] = loss.proxies.data[0]
    loss.regulariser().backward()
    assert torch.isfinite(loss.proxies.grad).all()
    assert made(1)[0].regulariser().item() == 0


def test_one_centre_without_margin_is_scaled_cosine_softmax():
    loss, z, y = made(1, margin=0.0)
    cosine = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(loss.proxies).T
    torch.testing.assert_close(
        loss(z, y), torch.nn.functional.cross_entropy(20 * cosine, y, reduction="none")
    )
    torch.testing.assert_close(loss.from_cosine(cosine, y), loss(z, y))


@pytest.mark.parametrize(("key", "value"), [("centres", 0), ("gamma", 0), ("la", -1), ("tau", -0.5)])
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(UserError, match=f"loss.{key}={value}"):
        SoftTriple(5, 7, **{key: value})
