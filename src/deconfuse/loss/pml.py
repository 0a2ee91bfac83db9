"""Classification losses of pytorch-metric-learning, one value per sample."""

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from deconfuse.system.errors import UserError, at_least, count, did_you_mean, number

# name -> the arguments that can be set
LOSSES = {
    "ArcFaceLoss": ("margin", "scale"),
    "CosFaceLoss": ("margin", "scale"),
    "LargeMarginSoftmaxLoss": ("margin", "scale"),
    "NormalizedSoftmaxLoss": ("temperature",),
    "SphereFaceLoss": ("margin", "scale"),
    "SubCenterArcFaceLoss": ("margin", "scale", "sub_centers"),
}
OURS = {"ProxyAnchorLoss": "proxyanchor", "ProxyNCALoss": "proxynca", "SoftTripleLoss": "softtriple"}
WHOLE_MARGIN = ("LargeMarginSoftmaxLoss", "SphereFaceLoss")  # margin: an integer multiple of the angle


def load(
    num_classes: int, embedding_size: int, name: str, arguments: Mapping[str, object] | None
) -> nn.Module:
    """The loss of that name; an argument that is None has the library's default value.

    Raises UserError if the library is missing, for a name that is not a classification loss of the library,
    and for an argument that the loss does not take or that is out of range.
    """
    if name in OURS:
        raise UserError(f"loss.name={name} is a loss of its own here: loss={OURS[name]}")
    if name not in LOSSES:
        raise UserError(
            f"loss.name={name} is no classification loss of pytorch-metric-learning; "
            f"{did_you_mean(str(name), LOSSES)}"
        )
    given = {key: value for key, value in (arguments or {}).items() if value is not None}
    for key, value in given.items():
        _check(name, key, value)
    try:
        from pytorch_metric_learning import losses, reducers
    except ImportError:
        raise UserError(
            "loss=pml needs pytorch-metric-learning; install it with pip install 'deconfuse[pml]'"
        ) from None
    sizes = {"num_classes": num_classes, "embedding_size": embedding_size}
    loss = getattr(losses, name)(**sizes, **given, reducer=reducers.DoNothingReducer())
    if name == "NormalizedSoftmaxLoss":
        return SoftmaxOfCosines(loss.W, 1 / loss.temperature, 0.0)
    if name == "CosFaceLoss":
        return SoftmaxOfCosines(loss.W, loss.scale, loss.margin)
    return Adapted(loss)


def _check(name: str, key: str, value: object) -> None:
    """Raise UserError if the loss does not take the argument, or not with this value."""
    place = f"loss.arguments.{key}"
    if key not in LOSSES[name]:
        raise UserError(f"{place} is not known to {name}; it takes {', '.join(LOSSES[name])}")
    if key == "sub_centers" or (key == "margin" and name in WHOLE_MARGIN):
        count(place, value, 1)
    elif key == "margin":
        number(place, value)
    else:
        at_least(place, value, 1e-6)


class Adapted(nn.Module):
    """A loss as the library computes it, not reduced.

    ArcFace is a function of the angle, whose derivative in the cosine is infinite at 0: the gradient of an
    embedding that equals its proxy to the last digit is NaN.
    """

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss, self.num_classes = loss, loss.num_classes

    @property
    def proxies(self) -> Float[Tensor, "ck m"]:
        """A view of the library's W (m, ck), whose columns, here rows, are grouped by class."""
        return self.loss.W.T

    def forward(self, z: Float[Tensor, "n m"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample (nats, >= 0) of embeddings z, as long as they are."""
        return self.loss(z, y)["loss"]["losses"]

    def regulariser(self) -> Tensor:
        """What is added to the mean loss in training: 0."""
        return self.loss.W.new_zeros(())


class SoftmaxOfCosines(nn.Module):
    """NormalizedSoftmax (Zhai and Wu, BMVC 2019) and CosFace (Wang et al., CVPR 2018, eq. 4).

        l(z, y) = -log softmax_j( scale (cos(z, p_j) - margin [j = y]) )_y

    The library's loss, in the form whose derivatives influence methods compute in closed form.
    """

    def __init__(self, w: Float[Tensor, "m c"], scale: float, margin: float):
        super().__init__()
        self.scale, self.margin = scale, margin
        self.proxies = nn.Parameter(w.detach().T.contiguous())

    def from_cosine(self, cosine: Float[Tensor, "n c"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample (nats, >= 0) from cosines to the proxies."""
        shift = self.margin * F.one_hot(y, cosine.shape[1]).to(cosine.dtype)
        return F.cross_entropy(self.scale * (cosine - shift), y, reduction="none")

    def softmax(self) -> tuple[float, float]:
        """(a, b) of l = -log softmax_j(a (cos_j - b [j = y]))_y, which has closed-form derivatives."""
        return self.scale, self.margin

    def forward(self, z: Float[Tensor, "n m"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample (nats, >= 0) of embeddings z, normalised here."""
        cosine = F.normalize(z, dim=-1) @ F.normalize(self.proxies, dim=-1).T
        return self.from_cosine(cosine, y)

    def regulariser(self) -> Tensor:
        """What is added to the mean loss in training: 0."""
        return self.proxies.new_zeros(())
