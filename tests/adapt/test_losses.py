import pytest
import torch
from torch import nn

from deconfuse.adapt.losses import Classifier, classes_of, fitted
from deconfuse.loss.proxyanchor import ProxyAnchor
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.system.errors import UserError

SIZES = {"num_classes": 4, "embedding_size": 6}


def batch(n=23):
    random = torch.Generator().manual_seed(0)
    return torch.randn(n, 6, generator=random), torch.randint(0, 4, (n,), generator=random)


@pytest.mark.parametrize(
    "name",
    [
        *("ArcFaceLoss", "CosFaceLoss", "NormalizedSoftmaxLoss", "SphereFaceLoss", "LargeMarginSoftmaxLoss"),
        *("SubCenterArcFaceLoss", "SoftTripleLoss", "ProxyNCALoss"),
    ],
)
def test_losses_of_pytorch_metric_learning_keep_their_value(name):
    """The mean of the values per sample is what the library's loss gives for the batch, at its trained
    weights."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    torch.manual_seed(1)
    loss = getattr(losses, name)(**SIZES)
    z, y = batch()
    own = fitted(loss, 6)
    assert classes_of(own) == 4
    whole = loss(z, y).item()
    assert own(z, y).mean().item() == pytest.approx(whole, rel=1e-4)
    assert own(z, y).shape == (23,)
    assert not any(p.requires_grad for p in own.parameters())
    assert all(p.requires_grad for p in loss.parameters())


def test_proxy_anchor_of_the_library_is_ours_with_its_proxies():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    loss = losses.ProxyAnchorLoss(**SIZES)
    own = fitted(loss, 6)
    assert isinstance(own, ProxyAnchor)
    z, y = batch()
    assert own.of_batch(z, y).item() == pytest.approx(loss(z, y).item(), rel=1e-4)


def test_losses_that_compare_samples_are_refused():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    with pytest.raises(UserError, match=r"^loss: TripletMarginLoss compares samples with each other"):
        fitted(losses.TripletMarginLoss(), 6)


def test_a_classifier_has_the_cross_entropy_of_its_layer():
    layer, (z, y) = nn.Linear(6, 4), batch()
    truth = nn.functional.cross_entropy(layer(z), y, reduction="none")
    torch.testing.assert_close(Classifier(layer)(z, y), truth)
    bare = nn.Linear(6, 4, bias=False)
    torch.testing.assert_close(
        Classifier(bare)(z, y), nn.functional.cross_entropy(bare(z), y, reduction="none")
    )


def test_any_module_with_a_value_per_sample_is_taken():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.centres = nn.Parameter(torch.eye(4, 6))

        def forward(self, z, y):
            return (z - self.centres[y]).square().sum(1)

    own, (z, y) = fitted(Own(), 6), batch()
    torch.testing.assert_close(own(z, y), (z - torch.eye(4, 6)[y]).square().sum(1))
    assert classes_of(own) is None


class Mean(nn.Module):
    def forward(self, z, y):
        return z.square().mean()


class Batch(nn.Module):
    def forward(self, z, y):
        return (z - z.mean(0)).square().sum(1)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Mean(), r"^loss: Mean gives a value of shape \(\) for two samples"),
        (Batch(), r"^loss: Batch of a sample depends on the other samples"),
        (SoftTriple(4, 5), r"^loss: its proxies have 5 numbers, and the embeddings 6"),
        (lambda z, y: z.sum(1), r"^loss: a function; give a loss module"),
    ],
)
def test_a_loss_that_has_no_value_of_a_sample_is_one_line(loss, message):
    with pytest.raises(UserError, match=message):
        fitted(loss, 6)
