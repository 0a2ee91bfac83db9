"""Attribute what is explained to training samples: the frozen model at its checkpoints, as a method wants it.

A method's signature says what it takes: Training (features and the head) for params=head, Network too if it
can do more than the head, and `earlier` if it sums over the checkpoints kept.
"""

import copy
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import default_collate

from src.confusion import Explained
from src.datamodule import DataModule
from src.embedder import Embedder
from src.errors import UserError, one_of
from src.features import find_or_extract
from src.head import Targets, Training
from src.network import Network, parameter_names
from src.train import load

PARAMS = ("head", "last_block", "all")


@dataclass(frozen=True)
class Frozen:
    """A checkpoint seen from its head: the training side, and the features of the test side."""

    training: Training
    query: Float[Tensor, "q D"]
    gallery: Float[Tensor, "g D"]


def freeze(model: Embedder, data: DataModule, checkpoint: Path, device: torch.device) -> Frozen:
    """One pass of the backbone, or the features that lie beside the checkpoint; model has its weights."""
    split = data.split
    parts = {"train": split.train, "query": split.query}
    parts |= {} if split.shared_gallery else {"gallery": split.gallery}
    loaders = {part: data.in_order(samples) for part, samples in parts.items()}
    features = find_or_extract(model.float().to(device), loaders, checkpoint)
    model.cpu().requires_grad_(False)
    labels, head = torch.from_numpy(data.labels), model.head
    training = Training(features["train"], labels, head.weight, head.bias, model.loss)
    return Frozen(training, features["query"], features.get("gallery", features["query"]))


def attribute(
    explainer: Callable,
    explained: Explained,
    frozen: Frozen,
    model: Embedder,
    data: DataModule,
    params: str,
    device: torch.device,
    kept: list[Path],
) -> Float[Tensor, "g n"]:
    """The method's scores; kept: the checkpoints before the last one, for a method that sums over them."""

    def seen(model: Embedder, frozen: Frozen) -> tuple[Training | Network, Targets]:
        targets = Targets(frozen.query, frozen.gallery, explained.groups, explained.sign)
        return (frozen.training if params == "head" else whole(model, data, params, device)), targets

    if "earlier" not in inspect.signature(explainer.func).parameters:
        return explainer(*seen(model, frozen)).cpu()
    earlier = []
    for path in kept:
        past = copy.deepcopy(model)
        load(past, path)
        earlier.append(seen(past, freeze(past, data, path, device)))
    return explainer(*seen(model, frozen), earlier=earlier).cpu()


def whole(model: Embedder, data: DataModule, params: str, device: torch.device) -> Network:
    """The model as a function of its last block's, or of all its parameters."""
    query, gallery = (
        lambda rows, part=part: default_collate([data.item(part, i) for i in rows.tolist()])
        for part in (data.split.query, data.split.gallery)
    )
    model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    labels = torch.from_numpy(data.labels)
    batches = data.in_order(data.split.train)
    return Network(model, model.loss, parameter_names(model, params), labels, batches, query, gallery)


def check(explainer: Callable, method: str, params: str) -> None:
    """Raise UserError where params is no choice, or one that the method does not have."""
    one_of("params", params, PARAMS)
    hint = typing.get_type_hints(explainer.func)["training"]
    if params != "head" and Network not in typing.get_args(hint):
        raise UserError(
            f"influence={method} works on the head only; take params=head, or influence=eif, if or tracin"
        )


def rehearse(explainer: Callable, model: Embedder, params: str, shape: tuple[int, ...]) -> None:
    """Explain one pair by four made-up samples: bad settings and missing derivatives show at once."""
    random = torch.Generator().manual_seed(0)
    phi = torch.randn(4, model.head.in_features, generator=random)
    labels, pair = torch.zeros(4, dtype=torch.long), torch.tensor([[0, 1]])
    head = copy.deepcopy(model.head).requires_grad_(False)
    if params == "head":
        side = Training(phi, labels, head.weight, head.bias, model.loss)
    else:
        side = _made_up(head, model.loss, ("weight",), labels, phi)
    explainer(side, Targets.pairs(phi, phi, pair))
    if params != "head":
        images = torch.randn(4, *shape, generator=random)
        still = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        network = _made_up(still, model.loss, parameter_names(model, params), labels, images)
        slope = network.distance_gradient(network.theta, *network.sides(Targets.pairs(phi, phi, pair), 0))
        try:
            network.along(slope)
            network.hessian_product(slope)
        except (RuntimeError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"params={params}: {type(model.backbone).__name__} lacks a derivative that is needed "
                f"({reason}); take params=head"
            ) from None


def _made_up(
    model: nn.Module, loss: nn.Module, names: tuple[str, ...], labels: Tensor, images: Tensor
) -> Network:
    batch = (images, labels, torch.arange(len(images)))
    return Network(model, loss, names, labels, [batch], images.__getitem__, images.__getitem__)
