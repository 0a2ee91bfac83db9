"""The training side if more than the head is attributed: functions of theta, computed batch by batch.

theta (P,) is one vector of the chosen parameters: the backbone's, or its last block's, and the head's W.
The head's bias and the loss's proxies are constants, as with params=head. Features depend on theta, so
nothing is cached: each function here that returns values for all n training samples passes them all through
the network once. Derivatives are computed with torch.func; the model is not modified.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from deconfuse.attribution.head import Targets
from deconfuse.attribution.scores import room
from deconfuse.retrieval.confusion import mean_distance
from deconfuse.system import distributed
from deconfuse.system.errors import UserError
from deconfuse.system.progress import track

PAIRS = 32  # the number of pairs whose images pass the network at once


@dataclass(frozen=True)
class Network:
    """A frozen network in eval mode, its training samples, and its test samples by row.

    model: images (B, C, H, W) -> z (B, m); names: those of its parameters that are attributed; labels (n,);
    batches: an iterable of (images, _, rows) with every training sample once and without random augmentation;
    query and gallery: rows -> images. shared: True if the batches hold only this process's samples; results
    are of the samples of all processes nevertheless.
    """

    model: nn.Module
    loss: nn.Module
    names: tuple[str, ...]
    labels: Int[Tensor, " n"]
    batches: Iterable
    query: Callable[[Tensor], Tensor]
    gallery: Callable[[Tensor], Tensor]
    shared: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """The trained values of the attributed parameters, by name."""
        own = dict(self.model.named_parameters())
        return {name: own[name].detach() for name in self.names}

    @cached_property
    def theta(self) -> Float[Tensor, " P"]:
        """theta_0."""
        return torch.cat([value.reshape(-1) for value in self.start.values()])

    def z(self, theta: Float[Tensor, " P"], images: Tensor) -> Float[Tensor, "B m"]:
        """Embeddings at theta."""
        parts = theta.split([value.numel() for value in self.start.values()])
        named = {
            name: part.reshape(value.shape)
            for (name, value), part in zip(self.start.items(), parts, strict=True)
        }
        # Among torch's attention kernels only this one has second and forward-mode derivatives.
        with sdpa_kernel(SDPBackend.MATH):
            return torch.func.functional_call(self.model, named, (images.to(theta),))

    def sides(self, targets: Targets, i: int) -> tuple[Tensor, Float[Tensor, "1 q"]]:
        """(images of group i, its queries before their neighbours; the weight of each pair in d)."""
        group = targets.groups[i]
        images = torch.cat([self.query(group[:, 0]), self.gallery(group[:, 1])])
        return images, self.theta.new_full((1, len(group)), targets.sign / len(group))

    def distance(self, theta: Float[Tensor, " P"], images: Tensor, share: Float[Tensor, "1 q"]) -> Tensor:
        """d of a group at theta; images and share are what `sides` returns."""
        return sum(self._distance(theta, *part) for part in _parts(images, share))

    def distance_gradient(
        self, theta: Float[Tensor, " P"], images: Tensor, share: Float[Tensor, "1 q"]
    ) -> Float[Tensor, " P"]:
        """The gradient of a group's d at theta, summed over blocks of PAIRS pairs."""
        return sum(torch.func.grad(self._distance)(theta, *part) for part in _parts(images, share))

    def _distance(self, theta: Tensor, images: Tensor, share: Tensor) -> Tensor:
        return mean_distance(self.z(theta, images)[None], share)[0]

    def losses(self, theta: Float[Tensor, " P"]) -> Float[Tensor, " n"]:
        """Each training sample's loss at theta."""
        return self._each(lambda images, labels: self.loss(self.z(theta, images), labels))

    def along(self, v: Float[Tensor, " P"]) -> Float[Tensor, " n"]:
        """<v, grad l> of each training sample at theta_0, as a forward-mode derivative."""

        def slope(images: Tensor, labels: Tensor) -> Tensor:
            return torch.func.jvp(lambda t: self.loss(self.z(t, images), labels), (self.theta,), (v,))[1]

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.script.*", FutureWarning)  # torch's own use of it
            return self._each(slope)

    def hessian_product(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """H v, H the Hessian of the mean training loss in theta."""
        total = torch.zeros_like(v)
        for images, _, rows in self.batches:
            labels = self.labels[rows].to(v.device)

            def slope(t: Tensor, images=images, labels=labels) -> Tensor:
                gradient = torch.func.grad(lambda t: self.loss(self.z(t, images), labels).sum())(t)
                return gradient @ v

            total += torch.func.grad(slope)(self.theta)
        return (distributed.total(total) if self.shared else total) / len(self)

    def _each(self, of_batch: Callable[[Tensor, Tensor], Tensor]) -> Float[Tensor, " n"]:
        result = torch.empty(len(self), dtype=self.theta.dtype, device=self.theta.device)
        seen = torch.zeros(len(self), dtype=torch.bool)
        with torch.no_grad():
            for images, _, rows in self.batches:
                result[rows] = of_batch(images, self.labels[rows].to(result.device))
                seen[rows] = True
        if not self.shared:
            return result
        return distributed.by_row(result[seen.to(result.device)], seen.nonzero()[:, 0], len(self))


def _parts(images: Tensor, share: Float[Tensor, "1 q"]) -> Iterator[tuple[Tensor, Float[Tensor, "1 s"]]]:
    """A group's images and shares in blocks of PAIRS pairs; the group's d is the sum of the blocks'."""
    query, gallery = images.chunk(2)
    for start in range(0, share.shape[1], PAIRS):
        some = slice(start, start + PAIRS)
        yield torch.cat([query[some], gallery[some]]), share[:, some]


def score_groups(
    network: Network, targets: Targets, what: str, score: Callable[[int], Float[Tensor, " n"]]
) -> Float[Tensor, "g n"]:
    """The scores of all groups, one after the other; what: the method's name, for the progress bar."""
    theta = network.theta
    result = room(len(targets), len(network), theta.dtype, theta.device, targets.folder)
    for i in track(range(len(targets)), f"influence ({what})", len(targets)):
        result[i] = score(i)
    return result


def parameter_names(model: nn.Module, params: str) -> tuple[str, ...]:
    """The names of the attributed parameters.

    params=all: the backbone's and the head's W; params=last_block: those of the backbone's last block and of
    the layers after it, and W. Raises UserError if the backbone has no attribute last_block.
    """
    if params == "all":
        chosen = [name for name, _ in model.backbone.named_parameters()]
    else:
        chosen = getattr(model.backbone, "last_block", None)
        if chosen is None:
            raise UserError(
                f"params=last_block: {type(model.backbone).__name__} does not say what its last block is; "
                "give it last_block, a list of parameter names, or take params=all"
            )
    return (*(f"backbone.{name}" for name in chosen), "head.weight")
