import math

import pytest
import torch
from pytorch_metric_learning.losses import ProxyNCALoss

from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.system.errors import UserError


def slow(z, y, proxies, scale):
    losses = []
    for i in range(len(z)):
        e = scale * z[i] / z[i].norm()
        logits = [-((e - scale * p / p.norm()) ** 2).sum().item() for p in proxies]
        losses.append(math.log(sum(math.exp(value) for value in logits)) - logits[y[i]])
    return torch.tensor(losses, dtype=z.dtype)


def made(n=23, c=5, m=7, scale=3.0):
    torch.manual_seed(0)
    loss = ProxyNCA(c, m, scale).double()
    return loss, torch.randn(n, m, dtype=torch.float64), torch.randint(0, c, (n,))


def test_equals_the_distance_form_written_out():
    for scale in (1.0, 3.0):
        loss, z, y = made(scale=scale)
        torch.testing.assert_close(
            loss(z, y), slow(z, y, loss.proxies.detach(), scale), rtol=1e-12, atol=1e-12
        )


def test_equals_pytorch_metric_learning():
    loss, z, y = made()
    # Its proxies are normalised and its logits are -softmax_scale * squared distance.
    other = ProxyNCALoss(5, 7, softmax_scale=9).double()
    other.proxies.data = loss.proxies.data
    torch.testing.assert_close(loss(z, y).mean(), other(z, y), rtol=1e-9, atol=1e-9)


def test_golden_knowledge_of_a_perfect_embedding():
    loss = ProxyNCA(3, 3).double()
    loss.proxies.data = torch.eye(3, dtype=torch.float64)
    value = loss(torch.eye(3, dtype=torch.float64), torch.arange(3))
    # Own proxy at cosine 1, two others at 0: log(1 + 2 exp(-18)).
    torch.testing.assert_close(value, torch.full((3,), math.log1p(2 * math.exp(-18)), dtype=torch.float64))


def test_length_of_z_does_not_matter_and_extremes_stay_finite():
    loss, z, y = made()
    torch.testing.assert_close(loss(1e6 * z, y), loss(1e-6 * z, y))
    huge = ProxyNCA(5, 7, scale=1e3)
    assert torch.isfinite(huge(z.float(), y)).all()


def test_from_cosine_is_the_same_loss():
    loss, z, y = made()
    cosine = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(loss.proxies).T
    torch.testing.assert_close(loss.from_cosine(cosine, y), loss(z, y))


def test_a_negative_scale_is_refused():
    with pytest.raises(UserError, match=r"loss.scale=-1 .*too small"):
        ProxyNCA(3, 4, scale=-1)
