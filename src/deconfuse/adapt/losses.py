"""A caller's loss as one value per sample: ours, pytorch-metric-learning's, a classifier's, or any that can
be."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from deconfuse.loss.pml import Adapted, SoftmaxOfCosines
from deconfuse.loss.proxyanchor import ProxyAnchor
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.system.errors import UserError

LIBRARY = "pytorch_metric_learning"
PROXIES = ("W", "proxies", "fc")  # what the library calls them
SAME = 1e-4  # relative difference up to which a sample's loss alone and in a batch is one


class Classifier(nn.Module):
    """The cross-entropy of a trained linear classifier on the features that it reads.

        l(z, y) = -log softmax_j(w_j . z + b_j)_y

    The rows w_j take the place of proxies.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.num_classes = layer.out_features
        self.proxies = nn.Parameter(layer.weight.detach().float().clone())
        bias = layer.bias if layer.bias is not None else layer.weight.new_zeros(layer.out_features)
        self.bias = nn.Parameter(bias.detach().float().clone())

    def forward(self, z: Float[Tensor, "n m"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample (nats, >= 0)."""
        return F.cross_entropy(F.linear(z, self.proxies, self.bias), y, reduction="none")


class PerSample(nn.Module):
    """Any loss module that returns one value per sample, as reduction="none" does."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, z: Float[Tensor, "n m"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample, as the module computes it."""
        return self.loss(z, y)


def is_cross_entropy(loss: Any) -> bool:
    """True for torch's cross-entropy, whose classifier is the model's own last layer."""
    return loss is F.cross_entropy or isinstance(loss, nn.CrossEntropyLoss)


def fitted(loss: nn.Module, size: int) -> nn.Module:
    """A frozen copy, in float32, of a loss that is trained already, one value per sample.

    size: of the embeddings m. Raises UserError where the loss is none of a single sample (such as a triplet
    loss), or is of another embedding size.
    """
    if not isinstance(loss, nn.Module):
        raise UserError(
            f"loss: a {type(loss).__name__}; give a loss module with its trained proxies, the name of a "
            "loss such "
            'as "softtriple" that is fitted to the embeddings, or nothing'
        )
    own = copy.deepcopy(loss).cpu().float().eval()
    found = _of_library(own) if type(own).__module__.startswith(LIBRARY) else _of_any(own)
    found = found.requires_grad_(False)
    proxies = getattr(found, "proxies", None)
    if isinstance(proxies, Tensor) and proxies.shape[1] != size:
        raise UserError(
            f"loss: its proxies have {proxies.shape[1]} numbers, and the embeddings {size}; give the loss "
            "of this "
            "model, or head=LAYER if the embeddings are another layer's"
        )
    _check(found, size)
    return found


def classes_of(loss: nn.Module) -> int | None:
    """How many classes a fitted loss knows; None where it does not say."""
    found = getattr(loss, "num_classes", None)
    proxies = getattr(loss, "proxies", None)
    return int(found) if found is not None else len(proxies) if isinstance(proxies, Tensor) else None


def _of_library(loss: nn.Module) -> nn.Module:
    """A loss of pytorch-metric-learning in our form: the same value per sample (nats)."""
    from pytorch_metric_learning import losses, reducers

    if isinstance(loss, losses.SoftTripleLoss):
        c, k = loss.num_classes, loss.centers_per_class
        gamma = 1 / loss.gamma  # which the library keeps inverted
        made = SoftTriple(c, loss.fc.shape[0], k, loss.la, gamma, tau=0.0, margin=loss.margin)
        return _with_proxies(made, loss.fc.T)
    if isinstance(loss, losses.ProxyAnchorLoss):
        made = ProxyAnchor(*loss.proxies.shape, alpha=loss.alpha, margin=loss.margin)
        return _with_proxies(made, loss.proxies)
    if isinstance(loss, losses.ProxyNCALoss):
        return SoftmaxOfCosines(loss.proxies.T, 2 * loss.softmax_scale, 0.0)
    if not hasattr(loss, "W"):
        raise UserError(
            f"loss: {type(loss).__name__} compares samples with each other, so that none has a loss of "
            "its own; "
            "leave loss out, and proxies are fitted to the embeddings"
        )
    if isinstance(loss, losses.NormalizedSoftmaxLoss):
        return SoftmaxOfCosines(loss.W, 1 / loss.temperature, 0.0)
    if isinstance(loss, losses.CosFaceLoss):
        return SoftmaxOfCosines(loss.W, loss.scale, loss.margin)
    loss.reducer = reducers.DoNothingReducer()
    return Adapted(loss)


def _with_proxies(loss: nn.Module, proxies: Tensor) -> nn.Module:
    loss.load_state_dict({"proxies": proxies.detach().contiguous()})
    return loss


def _of_any(loss: nn.Module) -> nn.Module:
    """Our own losses as they are; of others those that torch's `reduction` makes one value per sample."""
    if hasattr(loss, "from_cosine") or isinstance(loss, (Adapted, SoftmaxOfCosines)):
        return loss
    if hasattr(loss, "reduction"):
        loss.reduction = "none"
    return loss if hasattr(loss, "proxies") else PerSample(loss)


def _check(loss: nn.Module, size: int) -> None:
    """Raise UserError unless two made-up samples have a loss each, which is the same when each is alone."""
    z = torch.randn(2, size, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, min(1, (classes_of(loss) or 1) - 1)])
    name = type(getattr(loss, "loss", loss)).__name__
    try:
        both = loss(z, y)
        alone = torch.cat([loss(z[:1], y[:1]), loss(z[1:], y[1:])]) if both.shape == (2,) else both
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"loss: {name} fails on (embeddings (2, {size}), labels (2,)): "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if both.shape != (2,):
        raise UserError(
            f"loss: {name} gives a value of shape {tuple(both.shape)} for two samples; it must give one "
            "each, "
            'as reduction="none" does; or leave loss out, and proxies are fitted to the embeddings'
        )
    if not torch.allclose(both, alone, rtol=SAME, atol=SAME):
        raise UserError(
            f"loss: {name} of a sample depends on the other samples of its batch, so that none has a loss "
            "of its "
            "own; leave loss out, and proxies are fitted to the embeddings"
        )
