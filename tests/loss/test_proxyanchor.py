import math

import pytest
import torch
from pytorch_metric_learning.losses import ProxyAnchorLoss

from deconfuse.loss.proxyanchor import ProxyAnchor
from deconfuse.system.errors import UserError
from tests import agree
from tests.made import model_and_data


def made(n=23, c=5, m=7, **settings):
    torch.manual_seed(0)
    loss = ProxyAnchor(c, m, **settings).double()
    return loss, torch.randn(n, m, dtype=torch.float64), torch.randint(0, c, (n,))


def library(loss, c=5, m=7):
    other = ProxyAnchorLoss(c, m, margin=loss.margin, alpha=loss.alpha).double()
    other.proxies.data = loss.proxies.data
    return other


@pytest.mark.parametrize("settings", [{}, {"alpha": 3.0, "margin": 0.4}])
def test_a_batch_equals_pytorch_metric_learning(settings):
    loss, z, y = made(**settings)
    assert 1 < len(y[:4].unique()) < 5  # some proxies have no sample there
    for rows in (slice(None), slice(4)):
        torch.testing.assert_close(
            loss.of_batch(z[rows], y[rows]), library(loss)(z[rows], y[rows]), rtol=1e-9, atol=1e-10
        )


def test_a_sample_is_a_batch_of_its_own():
    loss, z, y = made()
    want = torch.stack([library(loss)(z[i : i + 1], y[i : i + 1]) for i in range(len(z))])
    torch.testing.assert_close(loss(z, y), want, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(loss.of_batch(z[3:4], y[3:4]), loss(z[3:4], y[3:4])[0])


def slow_of_batch(z, y, proxies, alpha, margin):
    total = [0.0, 0.0]
    for j, p in enumerate(proxies):
        s = [(row @ p / row.norm() / p.norm()).item() for row in z]
        near = sum(math.exp(-alpha * (s[i] - margin)) for i in range(len(z)) if y[i] == j)
        far = sum(math.exp(alpha * (s[i] + margin)) for i in range(len(z)) if y[i] != j)
        total[0] += math.log(1 + near)
        total[1] += math.log(1 + far)
    return total[0] / len(y.unique()) + total[1] / len(proxies)


def test_a_batch_equals_the_paper_written_out():
    loss, z, y = made(alpha=5.0, margin=0.2)
    want = slow_of_batch(z, y, loss.proxies.detach(), 5.0, 0.2)
    assert loss.of_batch(z, y).item() == pytest.approx(want, rel=1e-12)


def test_a_batch_is_at_most_the_sum_of_its_samples():
    loss, z, y = made()
    assert loss.of_batch(z, y) < loss(z, y).sum()


def test_perfect_embeddings_by_hand():
    loss = ProxyAnchor(3, 3, alpha=4.0, margin=0.5).double()
    loss.proxies.data = torch.eye(3, dtype=torch.float64)
    # Own proxy at cosine 1, two others at 0.
    want = math.log1p(math.exp(-4 * 0.5)) + 2 / 3 * math.log1p(math.exp(4 * 0.5))
    value = loss(torch.eye(3, dtype=torch.float64), torch.arange(3))
    torch.testing.assert_close(value, torch.full((3,), want, dtype=torch.float64))


def test_length_of_z_does_not_matter_and_extremes_stay_finite():
    loss, z, y = made()
    torch.testing.assert_close(loss(1e6 * z, y), loss(1e-6 * z, y))
    huge = ProxyAnchor(5, 7, alpha=1e4)
    assert torch.isfinite(huge(z.float(), y)).all()
    assert torch.isfinite(huge.of_batch(z.float(), y))


def test_influence_and_detectors_agree_two_ways():
    agree.check(ProxyAnchor(4, 5, alpha=6.0), 4)


def test_training_minimises_the_batch_form():
    model, data = model_and_data()
    model.loss = ProxyAnchor(6, 8)
    model.log = lambda *args, **settings: None
    images, labels, rows = next(iter(data.train_dataloader()))
    model.eval()  # BatchNorm with its running statistics: the same embeddings twice
    want = library(model.loss, 6, 8).float()(model(images), labels)
    torch.testing.assert_close(model.training_step((images, labels, rows), 0), want)


@pytest.mark.parametrize(("key", "value"), [("alpha", -1), ("margin", math.nan)])
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(UserError, match=f"loss.{key}={value}"):
        ProxyAnchor(3, 4, **{key: value})
