"""What a caller hands over, checked and taken apart: the samples of all sides, the head and the loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from deconfuse.adapt import arrays, losses, network
from deconfuse.adapt.questions import Questions
from deconfuse.adapt.samples import Samples, read
from deconfuse.system.errors import UserError, shorten
from deconfuse.system.progress import console

FITTED = "softtriple"  # the loss whose proxies are fitted where none is given, as on the command line
Loss = nn.Module | str | Mapping[str, Any] | None
Head = str | nn.Module | tuple | None


@dataclass(frozen=True)
class SampleSets:
    """The samples of each side; gallery: None where test is searched in itself."""

    train: Samples
    test: Samples
    gallery: Samples | None

    @property
    def named(self) -> dict[str, Samples]:
        """The sides that there are, as `Frozen` names them."""
        sides = {"train": self.train, "query": self.test}
        return sides if self.gallery is None else {**sides, "gallery": self.gallery}


def samples(model: Any, train: Any, test: Any, gallery: Any, ask: Questions) -> SampleSets:
    """Read all sides; UserError for whatever cannot be meant."""
    images = ask.images or {}
    given = {"train": train, "test": test} | ({} if gallery is None else {"gallery": gallery})
    found = {name: read(side, name, model is not None, images.get(name)) for name, side in given.items()}
    return SampleSets(found["train"], found["test"], found.get("gallery"))


@dataclass(frozen=True)
class Linear:
    """The head z = W phi + b; scaled: each row phi is first brought to a usual length, as only directions
    count where the rows are the embeddings."""

    weight: Float[Tensor, "m D"]
    bias: Float[Tensor, " m"]
    name: str
    scaled: bool = False

    @classmethod
    def identity(cls, size: int, name: str, scaled: bool = False) -> "Linear":
        """W = 1, b = 0."""
        return cls(torch.eye(size), torch.zeros(size), name, scaled)

    @classmethod
    def of(cls, layer: nn.Linear, name: str) -> "Linear":
        """The weights of a layer, in float32 on the CPU."""
        weight = layer.weight.detach().float().cpu().clone()
        bias = (
            layer.bias.detach().float().cpu().clone() if layer.bias is not None else torch.zeros(len(weight))
        )
        return cls(weight, bias, name)


def opened_model(
    model: Any, head: Head, loss: Loss, sides: SampleSets, ask: Questions
) -> tuple[network.Opened | None, Linear, nn.Module | str | Mapping]:
    """(the model without its head, the head, the loss: fitted, or the name of one that is to be fitted)."""
    if model is None:
        linear = given_head(head, sides.train.rows.shape[1])
        opened = None
    else:
        texts = _texts(sides, ask)
        opened = network.opened(model, _first_batch(sides, texts), head, texts)
        linear = _model_head(opened)
    chosen: nn.Module | str | Mapping
    if _is_classifier(opened, loss, sides):
        if opened is None or opened.head is None:
            raise UserError("loss: cross-entropy needs a model whose last layer is linear; name it as head=")
        console.print(f"{opened.name} is a classifier: the embeddings are what it reads")
        chosen = losses.Classifier(opened.head).requires_grad_(False)
        linear = Linear.identity(opened.head.in_features, f"input of {opened.name}")
    elif loss is None or isinstance(loss, (str, Mapping)):
        chosen = loss or FITTED
    else:
        chosen = losses.fitted(loss, len(linear.weight))
    return opened, linear, chosen


def given_head(head: Head, size: int) -> Linear:
    """The head that is applied to rows; by default the identity."""
    if head is None:
        return Linear.identity(size, "embeddings", scaled=True)
    if isinstance(head, nn.Linear):
        found = Linear.of(head, "head")
    elif isinstance(head, tuple) and len(head) == 2:
        weight = torch.from_numpy(arrays.rows(head[0], "head W").astype(np.float32))
        bias = torch.from_numpy(arrays.array(head[1], "head b").astype(np.float32))
        found = Linear(weight, bias, "head")
    else:
        raise UserError(
            "head: without a model give a torch.nn.Linear, or a tuple (W, b) of shapes (m, D) and (m,)"
        )
    if found.weight.shape[1] != size or found.bias.shape != found.weight.shape[:1]:
        shapes = tuple(found.weight.shape), tuple(found.bias.shape)
        raise UserError(
            f"head: W and b have the shapes {shapes[0]} and {shapes[1]} for rows of {size} numbers"
        )
    return found


def _model_head(opened: network.Opened) -> Linear:
    if opened.head is None:
        return Linear.identity(opened.backbone.num_features, opened.name)
    return Linear.of(opened.head, opened.name)


def _is_classifier(opened: network.Opened | None, loss: Loss, sides: SampleSets) -> bool:
    """True where cross-entropy is given, or nothing is and the head has one output for each training
    class."""
    if losses.is_cross_entropy(loss):
        return True
    if loss is not None or opened is None or opened.head is None or sides.train.labels.dtype == object:
        return False
    labels = set(sides.train.labels.tolist())
    return labels == set(range(opened.head.out_features)) and len(labels) > 1


def _texts(sides: SampleSets, ask: Questions) -> list[str] | None:
    """The inputs of all sides, train first, where they are texts."""
    if not isinstance(sides.train.item(0), str):
        return None
    if ask.params != "head":
        raise UserError(f"params={ask.params}: texts cannot be differentiated; take params=head")
    return [side.item(i) for side in sides.named.values() for i in range(len(side))]


def _first_batch(sides: SampleSets, texts: list[str] | None) -> Tensor:
    n = min(4, len(sides.train))
    if texts is not None:
        return torch.arange(n)
    items = [sides.train.item(i) for i in range(n)]
    shapes = {tuple(item.shape) for item in items}
    if len(shapes) > 1:
        raise UserError(
            f"train: its inputs have different shapes, {shorten(sorted(shapes), 2)}; resize them to one"
        )
    return torch.stack(items)
